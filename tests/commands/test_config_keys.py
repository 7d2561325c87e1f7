"""Keys of configs and of --cfg-options that nothing reads."""

import copy
import re

import pytest
import tiny_project
from mmengine.config import Config

from mmadv.commands.command_line import load_config
from mmadv.commands.config_keys import arguments_of, check_config, check_options, distance
from mmadv.errors import UserError


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    root = tmp_path_factory.mktemp('keys')
    return tiny_project.write_config(root / 'config.py', root / 'data')


@pytest.fixture(scope='module')
def stock(file):
    return Config.fromfile(file)


@pytest.mark.parametrize(
    ('extra', 'sentence'),
    [
        ("trian_cfg = dict(type='TestLoop')", "nothing reads the key 'trian_cfg'; did you mean 'train_cfg'?"),
        (
            'test_dataloder = dict(batch_size=2)',
            "nothing reads the key 'test_dataloder'; did you mean 'test_dataloader'?",
        ),
        ('modle = dict()', "nothing reads the key 'modle'; did you mean 'model'?"),
        ('load_form = "x.pth"', "nothing reads the key 'load_form'; did you mean 'load_from'?"),
        (
            "model['test_cfg']['mod'] = 'slide'",
            "nothing reads 'model.test_cfg.mod'; did you mean 'model.test_cfg.mode'?",
        ),
        ("model['test_cfg']['crop_sise'] = (8, 8)", "did you mean 'model.test_cfg.crop_size'?"),
        ("model['bakbone'] = dict()", "model: EncoderDecoder has no argument 'bakbone'; did you mean 'backbone'?"),
        ("model['decode_head']['ignore_indx'] = 0", "model.decode_head: FCNHead has no argument 'ignore_indx'"),
        ("model['backbone']['dept'] = 18", "model.backbone: ResNet has no argument 'dept'; did you mean 'depth'?"),
        (
            "model['data_preprocessor']['men'] = [0]",
            "model.data_preprocessor: SegDataPreProcessor has no argument 'men'",
        ),
        ("test_evaluator['ignore_indx'] = 0", "val_evaluator: IoUMetric has no argument 'ignore_indx'"),
        ("test_dataloader['num_wrkers'] = 0", "nothing reads the key 'num_wrkers'; did you mean 'num_workers'?"),
        ("dataset['img_sufix'] = '.png'", "train_dataloader.dataset: BaseSegDataset has no argument 'img_sufix'"),
        ("pipeline[1]['reduce_zero_labl'] = True", "pipeline.1: LoadAnnotations has no argument 'reduce_zero_labl'"),
        ("train_cfg['max_iter'] = 3", "train_cfg: IterBasedTrainLoop has no argument 'max_iter'"),
        ('val_cfg = dict(atack=1)', "val_cfg: nothing reads the key 'atack'"),
        (
            "default_hooks['checkpoint']['intervl'] = 3",
            "default_hooks.checkpoint: CheckpointHook has no argument 'intervl'; did you mean 'interval'?",
        ),
        ("optim_wrapper['clip_grd'] = dict()", "optim_wrapper: OptimWrapper has no argument 'clip_grd'"),
        ("optim_wrapper['optimizer']['rl'] = 1", "optim_wrapper.optimizer: Adam has no argument 'rl'"),
        (
            "model['backbone']['norm_cfg'] = dict(type='BN', requires_gard=True)",
            "model.backbone.norm_cfg: BN has no argument 'requires_gard'; did you mean 'requires_grad'?",
        ),
        (
            "model['decode_head']['norm_cfg'] = dict(type='SyncBN', momentun=0.1)",
            "model.decode_head.norm_cfg: SyncBN has no argument 'momentun'; did you mean 'momentum'?",
        ),
        (
            "model['auxiliary_head'] = [dict(model['decode_head'], act_cfg=dict(type='LeakyReLU', negative_slop=0.1))]",
            "model.auxiliary_head.0.act_cfg: LeakyReLU has no argument 'negative_slop'; did you mean 'negative_slope'?",
        ),
        ("randomness['sed'] = 3", "randomness: nothing reads the key 'sed'; did you mean 'seed'?"),
        ("env_cfg['cudnn_benchmrk'] = True", "did you mean 'cudnn_benchmark'?"),
        ("param_scheduler = [dict(type='PolyLR', powr=1)]", "param_scheduler.0: PolyLR has no argument 'powr'"),
    ],
)
def test_misspelt_keys_of_files(file, extra, sentence):
    path = file.with_name('misspelt.py')
    path.write_text(file.read_text() + extra + '\n')
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_config(str(path))


@pytest.mark.parametrize(
    'extra',
    [
        'crop_size = (8, 8)\nnorm_cfg = dict(type="BN")\ntrain_pipeline = []\nbase_model = 1\nmodel_2 = 3',
        'optim_wrapper.update(clip_grad=dict(max_norm=1), paramwise_cfg=dict(custom_keys=dict()))',
        "custom_hooks = [dict(type='EMAHook', momentum=.1, priority='ABOVE_NORMAL')]",
        "train_dataloader['dataset'] = dict(type='RepeatDataset', dataset=dataset, times=2)",
        "model['backbone'].update(norm_cfg=dict(type='GN', num_groups=4, eps=1e-6))",
        "model['decode_head'].update(norm_cfg=dict(type='BN', requires_grad=False), act_cfg=dict(type='GELU'))",
        "model['backbone'].update(init_cfg=dict(type='Pretrained', checkpoint='x.pth'))",
        'modle = None',
    ],
)
def test_keys_that_are_right_or_variables(file, extra):
    path = file.with_name('right.py')
    path.write_text(file.read_text() + extra + '\n')
    load_config(str(path))


ADVERSARIAL = dict(
    type='AdvSegDataPreProcessor', attack=dict(type='PGD', threat=dict(type='Linf', radius='4/255'), steps=2)
)


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'data_preprocessor.attack.steps': 5}, "did you mean 'model.data_preprocessor.attack.steps'?"),
        ({'data_preprocessor.mean': [0.0] * 3}, "did you mean 'model.data_preprocessor.mean'?"),
        ({'data_root': 'elsewhere'}, "nothing reads it; did you mean 'test_dataloader.dataset.data_root'?"),
        ({'dataset.data_root': 'elsewhere'}, "did you mean 'test_dataloader.dataset.data_root'?"),
        ({'optimizer.lr': 0.1}, "did you mean 'optim_wrapper.optimizer.lr'?"),
        ({'pipeline.0.type': 'x'}, 'nothing reads it'),
        ({'trian_cfg.max_iters': 3}, "did you mean 'train_cfg.max_iters'?"),
        ({'model.test_cfg.mod': 'slide'}, "did you mean 'model.test_cfg.mode'?"),
        ({'model.test_cfg.colour': 1}, 'nothing reads it; known are'),
        ({'model.decode_head.num_clases': 3}, "did you mean 'model.decode_head.num_classes'?"),
        ({'model.backbone.norm_cfg.tpye': 'GN'}, "did you mean 'model.backbone.norm_cfg.type'?"),
        ({'randomnes.seed': 3}, "did you mean 'randomness.seed'?"),
    ],
)
def test_options_that_nothing_reads(stock, options, sentence):
    before = stock.copy()
    before.model.data_preprocessor = copy.deepcopy({**before.model.data_preprocessor, **ADVERSARIAL})
    after = before.copy()
    after.merge_from_dict(options)
    with pytest.raises(UserError, match=re.escape(sentence)):
        check_options(options, before, after)
        check_config(after, 'x.py')


@pytest.mark.parametrize(
    'options',
    [
        {'randomness.deterministic': True},
        {'model.init_cfg.type': 'Pretrained', 'model.init_cfg.checkpoint': 'x.pth'},
        {'default_hooks.checkpoint.interval': 3, 'default_hooks.checkpoint.max_keep_ckpts': 1},
        {'load_from': 'x.pth', 'work_dir': 'x', 'resume': True},
        {'model.test_cfg.mode': 'slide', 'model.test_cfg.crop_size': (8, 8), 'model.test_cfg.stride': (8, 8)},
        {'model.data_preprocessor.attack.steps': 3},
        {'optim_wrapper.clip_grad.max_norm': 1.0},
        {'auto_scale_lr.enable': True},
    ],
)
def test_options_that_are_read(stock, options):
    before = stock.copy()
    before.model.data_preprocessor = copy.deepcopy({**before.model.data_preprocessor, **ADVERSARIAL})
    after = before.copy()
    after.merge_from_dict(options)
    check_options(options, before, after)
    check_config(after, 'x.py')


def test_the_top_level_preprocessor_takes_options_where_it_counts(stock):
    before = stock.copy()
    before.data_preprocessor = before.model.pop('data_preprocessor')
    for own in (None, ADVERSARIAL):
        if own is not None:
            before.model.data_preprocessor = copy.deepcopy(own)
        after, options = before.copy(), {'data_preprocessor.mean': [1.0, 2.0, 3.0]}
        after.merge_from_dict(options)
        check_options(options, before, after)  # inherited


class Open:
    def __init__(self, first, **rest):
        self.rest = dict(rest)


class Passing(Open):
    def __init__(self, second=1, **kwargs):
        super().__init__(first=2, **kwargs)


class Swallowing:
    def __init__(self, first, **kwargs):
        self.first = first


class Closed(Swallowing):
    def __init__(self, third, **kwargs):
        super().__init__(**kwargs)


def test_arguments_are_those_that_something_reads():
    assert arguments_of(Open) == ({'first'}, True)
    assert arguments_of(Passing) == ({'first', 'second'}, True)
    assert arguments_of(Swallowing) == ({'first'}, False)
    assert arguments_of(Closed) == ({'first', 'third'}, False)
    assert arguments_of(None) == (set(), True)
    assert arguments_of(distance) == ({'one', 'other'}, False)
