import ast
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS, HOOKS, METRICS, TRANSFORMS

from mmadv.attacks.attack import Attack
from mmadv.registry import ATTACKS, build

CONFIGS = Path(__file__).parents[2] / 'configs'
LEAVES = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
# What only scores a trained model has no training of its own.
SCORED = [path for path in LEAVES if path.parent.name in ('published', 'without_background')]
TRAINED = [path for path in LEAVES if path not in SCORED]
ATTACK_BASES = sorted((CONFIGS / '_base_' / 'attacks').glob('*.py'))

METHOD_BASES = sorted((CONFIGS / '_base_' / 'methods').glob('*.py'))
METHOD_LEAVES = [path for path in LEAVES if '{{_base_.method.model}}' in path.read_text(encoding='utf-8')]


def first_base(path):
    """Returns the path of the first base of a config whose first statement names its bases."""
    (bases,) = (node.value for node in ast.parse(path.read_text(encoding='utf-8')).body if is_bases(node))
    bases = ast.literal_eval(bases)
    return (path.parent / (bases if isinstance(bases, str) else bases[0])).resolve()


def is_bases(node):
    return isinstance(node, ast.Assign) and node.targets[0].id == '_base_'


def is_clean(path):
    return path.parent.name == 'clean' or '_clean_' in path.stem


# (adversarial leaf, the clean leaf that it inherits, trained as long)
PAIRS = [
    (path, first_base(path))
    for path in LEAVES
    if 'AdvSegDataPreProcessor' in (text := path.read_text(encoding='utf-8'))
    and is_clean(first_base(path))
    and 'train_cfg' not in text
    and 'val_cfg' not in text
]


def name(path):
    return str(path.relative_to(CONFIGS))


@pytest.fixture(autouse=True)
def mmseg_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def test_there_are_configs_to_test():
    assert len(LEAVES) >= 53
    assert len(ATTACK_BASES) >= 17
    assert len(METHOD_BASES) >= 2
    assert len(PAIRS) >= 18
    assert len(METHOD_LEAVES) >= 2


@pytest.mark.parametrize('path', LEAVES, ids=name)
def test_leaf_is_named_architecture_method_dataset(path):
    assert re.fullmatch(r'[a-z0-9]+(_[a-z0-9]+){2,}', path.stem)


@pytest.mark.parametrize('path', LEAVES, ids=name)
def test_leaf_reads_and_scores_the_classes_of_its_model(path):
    config = Config.fromfile(path)
    stages = ('train', 'val', 'test') if path in TRAINED else ('test',)
    for loader in (config[f'{stage}_dataloader'] for stage in stages):
        for part in loader.dataset.get('datasets', [loader.dataset]):
            dataset = DATASETS.build({**part, 'lazy_init': True})
            excluded = config.model.get('excluded_classes', ())
            assert config.model.decode_head.num_classes == len(dataset.metainfo['classes']) + len(excluded)
            for transform in part.pipeline:
                TRANSFORMS.build(transform)
    METRICS.build(config.test_evaluator)


@pytest.mark.parametrize('path', TRAINED, ids=name)
def test_schedule_ends_with_the_training(path):
    config = Config.fromfile(path)
    assert config.param_scheduler[-1].end == config.train_cfg.max_iters


@pytest.mark.parametrize(('path', 'clean_path'), PAIRS, ids=lambda path: path.stem)
def test_adversarial_leaf_differs_from_its_clean_one_by_the_attack_alone(path, clean_path):
    adversarial, clean = Config.fromfile(path), Config.fromfile(clean_path)
    preprocessor = adversarial.model.data_preprocessor
    assert preprocessor.pop('type') == 'AdvSegDataPreProcessor'
    assert preprocessor.pop('attack') == adversarial.pop('attack')
    assert 0 < preprocessor.pop('prob', 1) <= 1
    assert clean.model.data_preprocessor.pop('type') == 'SegDataPreProcessor'
    assert adversarial.to_dict() == clean.to_dict()


@pytest.mark.parametrize('path', ATTACK_BASES, ids=name)
def test_attack_base_defines_only_an_attack(path):
    config = Config.fromfile(path).to_dict()
    assert set(config) == {'attack'}
    assert isinstance(build(config['attack'], ATTACKS), Attack)


@pytest.mark.parametrize('path', METHOD_BASES, ids=name)
def test_method_base_defines_only_a_method(path):
    config = Config.fromfile(path).to_dict()
    assert set(config) == {'method'}
    assert set(config['method']) <= {'model', 'train_cfg'}


@pytest.mark.parametrize('path', METHOD_LEAVES, ids=name)
def test_leaf_of_a_method_takes_all_of_it_and_nothing_else(path):
    config, clean = Config.fromfile(path), Config.fromfile(first_base(path))
    method = config.pop('method')
    clean.merge_from_dict(method.to_dict())
    assert config.to_dict() == clean.to_dict()


def test_watched_leaf_validates_under_attack_and_draws_the_curves():
    config = Config.fromfile(CONFIGS / 'demo' / 'pspnet_watched_digits.py')
    clean = Config.fromfile(CONFIGS / 'demo' / 'pspnet_clean_digits.py')
    for key, value in config.robust_validation.items():
        clean.merge_from_dict({key: value.to_dict()})
        assert config[key].to_dict() == clean[key].to_dict()
    assert config.default_hooks.checkpoint.save_best == 'robust/mIoU'
    assert config.val_cfg.type == 'AttackValLoop'
    strong, weak = (build(part, ATTACKS) for part in (config.custom_hooks[0].attack, config.attack))
    assert strong.threat == weak.threat and strong.steps > weak.steps
    HOOKS.build(config.custom_hooks[0])


# The published checkpoints; each has the config of its training under the same name in pir_at.
PUBLISHED = (
    'upernet_convnext_t_voc',
    'upernet_convnext_s_voc',
    'upernet_convnext_t_ade20k',
    'upernet_convnext_s_ade20k',
    'segmenter_vit_s_ade20k',
)


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_leaf_has_the_network_of_its_training_and_the_protocol_of_its_authors(name):
    published = Config.fromfile(CONFIGS / 'published' / f'{name}_sea_protocol.py')
    trained = Config.fromfile(CONFIGS / 'pir_at' / f'{name}.py')
    del trained.model.backbone['init_cfg'], trained.model.data_preprocessor['attack']
    trained.model.data_preprocessor.type = 'SegDataPreProcessor'
    assert published.model.to_dict() == trained.model.to_dict()
    size = 473 if 'voc' in name else 512
    steps = {step['type']: step for step in published.test_dataloader.dataset.pipeline}
    void = ['VoidToClass'] if 'voc' in name else []
    assert list(steps) == [
        'LoadImageFromFile', 'LoadAnnotations', *void, 'ResizeShortSide', 'CenterCrop', 'ScoreAtInputSize',
        'PackSegInputs',
    ]  # fmt: skip
    assert (steps['ResizeShortSide']['size'], steps['CenterCrop']['crop_size']) == (size, (size, size))


def test_every_published_leaf_is_tested():
    published = {path.stem for path in SCORED if path.parent.name == 'published'}
    assert {f'{name}_sea_protocol' for name in PUBLISHED} == published


def test_leaf_without_background_differs_from_the_151_classes_by_it_alone():
    scored, trained = (
        Config.fromfile(CONFIGS / folder / 'upernet_convnext_t_ade20k.py') for folder in ('without_background', 'clean')
    )
    assert (scored.model.pop('type'), scored.model.pop('excluded_classes')) == ('ClassExcludingEncoderDecoder', (0,))
    assert scored.model.backbone.pop('init_cfg') is None
    del trained.model['type'], trained.model.backbone['init_cfg']
    assert scored.model.to_dict() == trained.model.to_dict()
    data, whole = (
        DATASETS.build({**config.test_dataloader.dataset, 'lazy_init': True}) for config in (scored, trained)
    )
    assert data.metainfo['classes'] == whole.metainfo['classes'][1:]
    steps = [dict(step) for step in scored.test_dataloader.dataset.pipeline]
    assert [step.pop('reduce_zero_label', None) for step in steps].count(True) == 1
    assert steps == [dict(step) for step in trained.test_dataloader.dataset.pipeline]
