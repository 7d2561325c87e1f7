"""The papers' configs against the papers' tables, and one training and attack step of every kind of model."""

import copy
import functools
import json
import math
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.optim import LinearLR, PolyLR, build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules
from torch.nn.modules.batchnorm import _BatchNorm

from mmadv.attacks import BIM, FGSM, PGD, FastNewton, Linf, RandomFGSM, SegPGD
from mmadv.checkpoints.families import SOURCES
from mmadv.errors import UserError
from mmadv.models import FreeAdvSegDataPreProcessor
from mmadv.models.backbones import RobustPretrained
from mmadv.models.backbones.input_convention import check_preprocessor
from mmadv.models.pag_regions import RegionExemplars
from mmadv.models.pag_segmentor import PAGMixin
from mmadv.registry import ATTACKS, build
from mmadv.robustness.gradient_targets import ClassBank, FixedRepresentative

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'
LEAVES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
# What only scores a trained model starts from no backbone's weights.
TRAINED = [leaf for leaf in LEAVES if not leaf.startswith(('published/', 'without_background/'))]
register_all_modules()


@functools.cache
def parsed(leaf):
    return Config.fromfile(CONFIGS / leaf)


def load(leaf):
    return copy.deepcopy(parsed(leaf))


@pytest.fixture(autouse=True)
def mmseg_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


# Table 5 of 'Towards reliable evaluation and fast training of robust semantic segmentation models'.
ADAMW = dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-2)
TABLE_5 = {
    ('pspnet', 'voc'): dict(
        optimizer=dict(type='SGD', lr=5e-4, momentum=0.9, weight_decay=0.0),
        power=0.9, decoder_ratio=10, auxiliary_weight=0.4, crop=473, images=8498, classes=21, warmup={50: 5, 300: 30},
    ),
    ('upernet', 'voc'): dict(
        optimizer=ADAMW,
        power=1.0, decoder_ratio=1, auxiliary_weight=0.4, crop=473, images=8498, classes=21, warmup={50: 5, 300: 30},
    ),
    ('upernet', 'ade20k'): dict(
        optimizer=ADAMW,
        power=1.0, decoder_ratio=1, auxiliary_weight=0.4, crop=512, images=20210, classes=151, warmup={32: 5, 128: 20},
    ),
    ('segmenter', 'ade20k'): dict(
        optimizer=dict(type='SGD', lr=2e-3, momentum=0.9, weight_decay=1e-2),
        power=0.9, decoder_ratio=1, auxiliary_weight=None, crop=512, images=20210, classes=151,
        warmup={32: 5, 128: 20},
    ),
}  # fmt: skip

# The rows of its tables 3, 4 and 9, the models of appendix C.3, those of 300 epochs (table 5, figure 8), and the clean
# models: leaf, attack steps, epochs, backbone's checkpoint.
CN_T, CN_S = 'convnext_t_cvst_{}.pt', 'convnext_s_cvst_{}.pt'
SEA_MODELS = [
    ('clean/pspnet_r50_voc.py', 0, 50, 'resnet50-0676ba61.pth'),
    ('clean/upernet_convnext_t_voc.py', 0, 50, CN_T.format('clean')),
    ('clean/upernet_convnext_s_voc.py', 0, 50, CN_S.format('clean')),
    ('clean/upernet_convnext_t_ade20k.py', 0, 128, CN_T.format('clean')),
    ('clean/upernet_convnext_t_ade20k_150.py', 0, 128, CN_T.format('clean')),
    ('clean/upernet_convnext_s_ade20k.py', 0, 128, CN_S.format('clean')),
    ('clean/segmenter_vit_s_ade20k.py', 0, 128, 'vit_small_patch16_224_timm.pth'),
    ('at/pspnet_r50_voc.py', 5, 50, 'resnet50-0676ba61.pth'),
    ('at/pspnet_r50_voc_300e.py', 5, 300, 'resnet50-0676ba61.pth'),
    ('at/upernet_convnext_t_voc.py', 5, 50, CN_T.format('clean')),
    ('at/upernet_convnext_t_voc_2step.py', 2, 50, CN_T.format('clean')),
    ('at/upernet_convnext_t_voc_300e.py', 5, 300, CN_T.format('clean')),
    ('at/upernet_convnext_t_voc_2step_300e.py', 2, 300, CN_T.format('clean')),
    ('at/upernet_convnext_s_voc.py', 5, 50, CN_S.format('clean')),
    ('at/upernet_convnext_t_ade20k.py', 5, 128, CN_T.format('clean')),
    ('at/upernet_convnext_t_ade20k_2step.py', 2, 128, CN_T.format('clean')),
    ('at/upernet_convnext_t_ade20k_150_2step.py', 2, 128, CN_T.format('clean')),
    ('at/upernet_convnext_s_ade20k.py', 5, 128, CN_S.format('clean')),
    ('at/segmenter_vit_s_ade20k.py', 5, 128, 'vit_small_patch16_224_timm.pth'),
    ('pir_at/pspnet_r50_voc.py', 5, 50, 'resnet50_linf_eps4.0.ckpt'),
    ('pir_at/pspnet_r50_voc_300e.py', 5, 300, 'resnet50_linf_eps4.0.ckpt'),
    ('pir_at/upernet_convnext_t_voc.py', 5, 50, CN_T.format('robust')),
    ('pir_at/upernet_convnext_t_voc_2step.py', 2, 50, CN_T.format('robust')),
    ('pir_at/upernet_convnext_t_voc_300e.py', 5, 300, CN_T.format('robust')),
    ('pir_at/upernet_convnext_s_voc.py', 5, 50, CN_S.format('robust')),
    ('pir_at/upernet_convnext_t_ade20k.py', 5, 128, CN_T.format('robust')),
    ('pir_at/upernet_convnext_t_ade20k_2step.py', 2, 128, CN_T.format('robust')),
    ('pir_at/upernet_convnext_t_ade20k_150_2step.py', 2, 128, CN_T.format('robust')),
    ('pir_at/upernet_convnext_t_ade20k_32e.py', 5, 32, CN_T.format('robust')),
    ('pir_at/upernet_convnext_s_ade20k.py', 5, 128, CN_S.format('robust')),
    ('pir_at/segmenter_vit_s_ade20k.py', 5, 128, 'vit_s_robust.pt'),
    ('pir_at/segmenter_vit_s_ade20k_32e.py', 5, 32, 'vit_s_robust.pt'),
]


def attack_of(config):
    """Returns the training attack and the share of adversarial samples; (None, 0) for clean training."""
    preprocessor = config.model.data_preprocessor
    if preprocessor.type == 'SegDataPreProcessor':
        assert 'attack' not in config
        return None, 0
    assert preprocessor.type == 'AdvSegDataPreProcessor'
    assert preprocessor.attack == config.attack
    return build(preprocessor.attack, ATTACKS), preprocessor.get('prob', 1)


def heads_of(config):
    return [config.model[name] for name in ('decode_head', 'auxiliary_head') if name in config.model]


@pytest.mark.parametrize(('leaf', 'steps', 'epochs', 'checkpoint'), SEA_MODELS, ids=lambda value: str(value))
def test_sea_leaf_has_the_settings_of_its_tables(leaf, steps, epochs, checkpoint):
    config = load(leaf)
    architecture = Path(leaf).stem.split('_')[0]
    row = TABLE_5[architecture, 'voc' if '_voc' in leaf else 'ade20k']
    attack, share = attack_of(config)
    if steps:
        assert (attack, share) == (PGD(threat=Linf(radius='4/255'), steps=steps, step_size=0.01), 1)
    else:
        assert attack is None
    assert config.model.backbone.init_cfg.checkpoint == f'checkpoints/{checkpoint}'

    assert dict(config.optim_wrapper.optimizer) == row['optimizer']
    keys = config.optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {})
    ratio = row['decoder_ratio']
    assert keys == ({} if ratio == 1 else {head: dict(lr_mult=ratio) for head in ('decode_head', 'auxiliary_head')})

    batch = 16 * 8
    assert config.train_dataloader.batch_size == 16
    assert config.auto_scale_lr.base_batch_size == batch
    total = math.ceil(epochs * row['images'] / batch)
    warmup = math.ceil(row['warmup'][epochs] * row['images'] / batch)
    linear, poly = config.param_scheduler
    assert (linear.type, linear.begin, linear.end) == ('LinearLR', 0, warmup)
    assert (poly.type, poly.begin, poly.end, poly.power, poly.eta_min) == ('PolyLR', warmup, total, row['power'], 0)
    assert not linear.by_epoch
    assert not poly.by_epoch
    assert config.train_cfg.max_iters == total

    assert config.crop_size == (row['crop'],) * 2 == config.model.data_preprocessor.size
    assert {head.num_classes for head in heads_of(config)} == {150 if '_150' in leaf else row['classes']}
    weights = [head.loss_decode.get('loss_weight', 1) for head in heads_of(config)]
    assert weights == [1] + ([] if row['auxiliary_weight'] is None else [row['auxiliary_weight']])


@pytest.mark.parametrize('base', ['sgd_voc_50e', 'adamw_ade20k_128e'])
def test_learning_rate_warms_up_and_decays(base):
    config = Config.fromfile(CONFIGS / '_base_' / 'schedules' / f'{base}.py')
    rate, (linear, poly) = config.optim_wrapper.optimizer.lr, config.param_scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    schedulers = [
        kind(optimizer, **{key: value for key, value in settings.items() if key != 'type'})
        for kind, settings in ((LinearLR, linear), (PolyLR, poly))
    ]
    rates = []
    for _ in range(config.train_cfg.max_iters):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    half = (poly.begin + poly.end) // 2
    left = (poly.end - half) / (poly.end - poly.begin)
    assert rates[0] == pytest.approx(1e-6 * rate)
    assert rates[linear.end // 2] == pytest.approx(rate / 2, rel=0.01)
    assert rates[linear.end] == pytest.approx(rate, rel=0.01)
    assert rates[half] == pytest.approx(rate * left**poly.power, rel=0.01)
    assert rates[-1] < rate / 500


@pytest.mark.parametrize(('leaf', 'attack'), [
    ('at/pspnet_r50_voc_3step.py', PGD(threat=Linf(radius=0.03), steps=3, step_size=0.01)),
    ('at/pspnet_r50_voc_segpgd7.py', SegPGD(threat=Linf(radius='8/255'), steps=7, step_size=0.01)),
])  # fmt: skip
def test_rivals_of_table_3_train_on_half_adversarial_batches(leaf, attack):
    assert attack_of(load(leaf)) == (attack, 0.5)


LINF_3 = Linf(radius=0.03)
# Section 4.1 of 'Single-step adversarial training for semantic segmentation'.
FIVE_MODELS = {
    'clean/pspnet_r50v2_{}.py': None,
    'at/pspnet_r50v2_{}_fgsm.py': FGSM(threat=LINF_3),
    'at/pspnet_r50v2_{}_random_fgsm.py': RandomFGSM(threat=LINF_3),
    'at/pspnet_r50v2_{}_bim3.py': BIM(threat=LINF_3, steps=3, step_size=0.01),
    'fast_newton/pspnet_r50v2_{}.py': FastNewton(),
}


@pytest.mark.parametrize(
    ('data', 'crop', 'classes', 'iterations'), [('voc', 472, 21, 30000), ('cityscapes', 712, 19, 90000)]
)
@pytest.mark.parametrize('leaf', FIVE_MODELS)
def test_models_of_fast_newtons_paper(leaf, data, crop, classes, iterations):
    config = load(leaf.format(data))
    attack = FIVE_MODELS[leaf]
    assert attack_of(config) == ((attack, 0.5) if attack else (None, 0))
    assert config.optim_wrapper.optimizer == dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)
    (poly,) = config.param_scheduler
    assert (poly.type, poly.power, poly.begin, poly.end) == ('PolyLR', 0.9, 0, iterations)
    assert config.train_cfg.max_iters == iterations
    assert config.train_dataloader.batch_size == config.auto_scale_lr.base_batch_size == 16
    assert config.crop_size == (crop, crop) == config.model.data_preprocessor.size
    assert config.model.decode_head.num_classes == classes
    assert 'auxiliary_head' not in config.model


@pytest.mark.parametrize('name', ['pspnet_r50_voc', 'upernet_convnext_t_voc', 'segmenter_vit_s_ade20k'])
def test_fast_newton_differs_from_clean_training_in_the_attack_alone(name):
    config, clean = load(f'fast_newton/{name}.py'), load(f'clean/{name}.py')
    assert attack_of(config) == (FastNewton(), 0.5)
    assert config.optim_wrapper == clean.optim_wrapper and config.train_dataloader == clean.train_dataloader
    assert config.train_cfg == clean.train_cfg and config.model.decode_head == clean.model.decode_head


@pytest.mark.parametrize('name', ['pspnet_r50_voc', 'upernet_convnext_t_voc', 'segmenter_vit_s_ade20k'])
def test_full_size_pag_leaf_goes_on_from_the_clean_model_of_its_name(name):
    config, clean = load(f'pag/{name}.py').to_dict(), load(f'clean/{name}.py').to_dict()
    assert config.pop('load_from') == f'work_dirs/clean/{name}/iter_{clean["train_cfg"]["max_iters"]}.pth'
    clean.pop('load_from')
    (hook,) = config.pop('custom_hooks')
    assert hook['type'] == 'PAGTargetHook' and hook['target']['type'] == 'RegionExemplars'
    assert config['model'].pop('type') == 'PAGEncoderDecoder'
    assert config['model'].pop('pag') == config.pop('pag')
    assert config['model']['backbone'].pop('init_cfg') is None
    del clean['model']['type'], clean['model']['backbone']['init_cfg']
    assert config == clean


# The public configs of 'Dynamic divide-and-conquer adversarial training for robust semantic segmentation'.
@pytest.mark.parametrize(
    ('data', 'crop', 'classes', 'images', 'epochs'), [('voc', 473, 21, 10582, 50), ('cityscapes', 449, 19, 2975, 400)]
)
@pytest.mark.parametrize('network', ['pspnet', 'deeplabv3'])
@pytest.mark.parametrize('folder', ['clean', 'ddc_at'])
def test_models_of_ddcats_authors(folder, network, data, crop, classes, images, epochs):
    config = load(f'{folder}/{network}_r50v1c_{data}.py')
    if folder == 'clean':
        assert config.model.type == 'EncoderDecoder'
    else:
        assert config.model.type == 'DDCATEncoderDecoder'
        attack = build(config.model.data_preprocessor.attack, ATTACKS)
        assert attack == BIM(threat=LINF_3, steps=3, step_size=0.01)
    assert config.optim_wrapper.optimizer == dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)
    heads = ('decode_head', 'auxiliary_head', 'branches')
    assert config.optim_wrapper.paramwise_cfg.custom_keys == {head: dict(lr_mult=10.0) for head in heads}
    (poly,) = config.param_scheduler
    iterations = epochs * (images // 16)
    assert (poly.type, poly.power, poly.begin, poly.end) == ('PolyLR', 0.9, 0, iterations)
    assert config.train_cfg.max_iters == iterations
    assert config.train_dataloader.batch_size == config.auto_scale_lr.base_batch_size == 16
    assert config.crop_size == (crop, crop) == config.model.data_preprocessor.size
    assert [(head.num_classes, head.align_corners) for head in heads_of(config)] == [(classes, True)] * 2
    assert [head.loss_decode.get('loss_weight', 1) for head in heads_of(config)] == [1, 0.4]


# 'Adversarially robust segmentation models learn perceptually-aligned gradients', section 5.1.
@pytest.mark.parametrize(
    ('leaf', 'depth', 'epochs', 'images'),
    [
        ('clean/fcn_r50_coco.py', 50, 30, 92500),
        ('at/fcn_r50_coco.py', 50, 9, 92500),
        ('at/fcn_r101_coco.py', 101, 3, 92500),
        ('rb/fcn_r50_voc.py', 50, 20, 1464),
    ],
)
def test_models_of_the_aligned_gradients_paper(leaf, depth, epochs, images):
    config = load(leaf)
    attack, share = attack_of(config)
    if leaf.startswith('at/'):
        assert (attack, share) == (PGD(threat=Linf(radius=0.03), steps=3, step_size=0.01), 1)
    else:
        assert attack is None
    assert config.model.backbone.depth == depth
    assert {head.num_classes for head in heads_of(config)} == {21}
    assert config.train_cfg.max_iters == math.ceil(epochs * images / config.train_dataloader.batch_size)
    assert config.param_scheduler[-1].end == config.train_cfg.max_iters


@pytest.mark.parametrize('leaf', [leaf for leaf in LEAVES if re.match(r'pir_at/(?!.*_(digits|camvid)\.py)', leaf)])
def test_pir_at_differs_from_at_by_the_backbone_alone(leaf):
    counterpart = leaf.replace('pir_at/', 'at/').replace('_32e', '')
    robust, clean = (load(path).to_dict() for path in (leaf, counterpart))
    for config in (robust, clean):
        del config['model']['backbone']['init_cfg']
        if 'segmenter' in leaf:  # whose clean weights take other images
            del config['model']['backbone']['input_convention']
            del config['model']['data_preprocessor']['mean'], config['model']['data_preprocessor']['std']
        if '_32e' in leaf:
            del config['param_scheduler'], config['train_cfg']
    assert robust == clean


@pytest.mark.parametrize('leaf', TRAINED)
def test_normalisation_is_that_of_the_backbones_weights(leaf):
    model = load(leaf).model
    stated = model.backbone.get('input_convention')
    if model.backbone.type == 'ResNetV1c' and 'init_cfg' in model.backbone:  # mmseg's own cannot state it
        stated = SOURCES[model.backbone.init_cfg.source].input_convention
    assert (stated is not None) == ('init_cfg' in model.backbone)
    if stated is not None:
        check_preprocessor(MODELS.build(model.data_preprocessor), stated, 'the config states it')
    if model.backbone.get('init_cfg') is not None:  # None if the whole model is loaded from a checkpoint
        RobustPretrained(**{key: value for key, value in model.backbone.init_cfg.items() if key != 'type'})


def test_missing_checkpoints_are_named_and_documented(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    documented = (ROOT / 'docs' / 'configs.md').read_text(encoding='utf-8')
    initialisers = [load(leaf).model.backbone.get('init_cfg') for leaf in TRAINED]
    checkpoints = {(config.checkpoint, config.source) for config in initialisers if config}
    assert len(checkpoints) == 13
    for checkpoint, source in checkpoints:
        assert f'`{checkpoint}`' in documented
        with pytest.raises(UserError, match=f'{checkpoint}'):
            RobustPretrained(checkpoint, source)(torch.nn.Identity())


def shrunk(leaf):
    """Returns a leaf's model for 64x64 images: random weights, narrow heads, one attack step on every sample."""
    model = ConfigDict(json.loads(json.dumps(load(leaf).model.to_dict())))
    model.backbone.pop('init_cfg', None)
    preprocessor = model.data_preprocessor
    if preprocessor.get('size'):
        preprocessor.size = (64, 64)
    if 'img_size' in model.backbone:
        model.backbone.img_size = (64, 64)
    for head in (model[name] for name in ('decode_head', 'auxiliary_head') if name in model):
        if head.type != 'SegmenterMaskTransformerHead':
            head.channels = 32
        if 'class_weight' not in head.loss_decode:
            head.num_classes = 7
    if 'attack' in preprocessor:
        preprocessor.prob = 1.0
        if 'steps' in preprocessor.attack:
            preprocessor.attack.steps = 1
    return model


# Segmentors with the network of an EncoderDecoder.
SAME_NETWORK = ('TRADESEncoderDecoder', 'DDCATEncoderDecoder', 'ClassExcludingEncoderDecoder')


def kind(model, *, with_attack):
    """Returns what tells models apart: the network, and the attack's type."""
    model = json.loads(json.dumps(model.to_dict()))
    preprocessor = model.pop('data_preprocessor')
    if not with_attack and model['type'] in SAME_NETWORK:
        model['type'] = 'EncoderDecoder'
        model.pop('excluded_classes', None)
    model['backbone'].pop('input_convention', None)
    for head in (model[name] for name in ('decode_head', 'auxiliary_head') if name in model):
        head['loss_decode'].pop('loss_weight', None)
    attack = preprocessor.get('attack', preprocessor)['type'] if with_attack else False
    return json.dumps([model, attack], sort_keys=True)


def distinct_leaves():
    """Returns one leaf for every pair of network and attack; clean ones only of networks that no attack comes with."""
    chosen, networks = {}, set()
    for leaf in LEAVES:
        model = shrunk(leaf)
        if model.data_preprocessor.type != 'SegDataPreProcessor':
            chosen.setdefault(kind(model, with_attack=True), leaf)
            networks.add(kind(model, with_attack=False))
    for leaf in LEAVES:
        network = kind(shrunk(leaf), with_attack=False)
        if network not in networks:
            networks.add(network)
            chosen[network] = leaf
    return sorted(chosen.values())


DISTINCT = distinct_leaves()


def batch(model, generator):
    """Returns two images and label maps as a data loader gives them, with void pixels in one.

    The labels are the model's own predictions: Fast Newton leaves an image that is fooled already as it is.
    """
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    inputs = (images.flip(1) - model.data_preprocessor.mean) / model.data_preprocessor.std
    model.eval()
    with torch.no_grad():
        labels = model.encode_decode(inputs, [dict(img_shape=(64, 64))] * 2).argmax(1)
    labels[1, :8] = 255
    samples = []
    for label_map in labels:
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64)))
        sample.gt_sem_seg = PixelData(data=label_map[None])
        samples.append(sample)
    return dict(inputs=list(images), data_samples=samples)


def pixels(preprocessor, data):
    """Returns what a preprocessor makes of a training batch, as images in [0, 1] of the loaded channel order.

    Of pairs of clean and adversarial images, the adversarial ones.
    """
    preprocessed = preprocessor({key: list(value) for key, value in data.items()}, training=True)['inputs']
    preprocessed = preprocessed[-len(data['inputs']) :].detach()
    return ((preprocessed * preprocessor.std + preprocessor.mean) / 255)[:, [2, 1, 0]]


def pag_target(config, images):
    """Returns a target of the form that a config's hook makes: of regions, or of whole images."""
    (hook,) = config.custom_hooks
    if not hook.target.type.startswith('Region'):
        return FixedRepresentative(images)
    classes = torch.arange(len(images), dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 64, 64)
    bank = ClassBank(torch.cat([images, classes], 1)[:, None], torch.ones(len(images), dtype=torch.int64))
    return RegionExemplars(bank)


def test_every_kind_of_model_and_attack_is_stepped():
    assert len(LEAVES) >= 53
    assert {'rb/fcn_r50_voc.py', 'fast_newton/pspnet_r50v2_cityscapes.py'} <= set(DISTINCT)
    assert len(DISTINCT) >= 19
    stepped = {kind(shrunk(leaf), with_attack=False) for leaf in DISTINCT}
    assert {kind(shrunk(leaf), with_attack=False) for leaf in LEAVES} == stepped


@pytest.mark.filterwarnings('ignore:.*, less than the radius:UserWarning')
@pytest.mark.parametrize('leaf', DISTINCT)
def test_one_training_step_and_one_attack_step(leaf):
    torch.manual_seed(0)
    config, model_config = load(leaf), shrunk(leaf)
    model = MODELS.build(model_config)
    data = batch(model, torch.Generator().manual_seed(1))
    model.train()
    original = torch.stack(data['inputs']) / 255

    preprocessor = model.data_preprocessor
    if isinstance(preprocessor, FreeAdvSegDataPreProcessor):
        preprocessor.slot = 0  # as FreeTrainLoop does; the first perturbation is zero
    if isinstance(model, PAGMixin):  # as PAGTargetHook does
        images = torch.randint(0, 256, (model.num_classes, 3, 64, 64), generator=torch.Generator().manual_seed(2))
        model.set_pag_target(pag_target(config, images.to(torch.uint8)))
    if 'attack' in model_config.data_preprocessor:
        difference = (pixels(preprocessor, data) - original).abs()
        radius = build(model_config.data_preprocessor.attack, ATTACKS).threat.radius
        assert 0 < difference.max() <= radius + 1e-5
    else:
        torch.testing.assert_close(pixels(preprocessor, data), original, atol=1e-5, rtol=0)

    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    statistics = {name: value.clone() for name, value in model.backbone.named_buffers()}
    losses = model.train_step(data, build_optim_wrapper(model, config.optim_wrapper))
    assert losses['loss'].isfinite()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert any(name.startswith('decode_head.') for name in moved)
    assert any(name.startswith('backbone.') for name in moved) == (not leaf.startswith('rb/'))
    if leaf.startswith('rb/'):
        assert all(torch.equal(value, statistics[name]) for name, value in model.backbone.named_buffers())
        assert not any(value.requires_grad or value.grad is not None for value in model.backbone.parameters())
        assert not any(module.training for module in model.backbone.modules() if isinstance(module, _BatchNorm))
        assert all(value.requires_grad for value in model.decode_head.parameters())

    model.eval()
    with torch.no_grad():
        logits = model.encode_decode(torch.zeros(1, 3, 64, 96), [dict(img_shape=(64, 96))])
    assert logits.shape == (1, model.num_classes, 64, 96)
    assert logits.isfinite().all()


def test_model_without_background_loads_all_classes_and_predicts_the_others():
    model_config = shrunk('without_background/upernet_convnext_t_ade20k.py')
    scored = MODELS.build(model_config).eval()
    del model_config['excluded_classes']
    stock = MODELS.build({**model_config, 'type': 'EncoderDecoder'}).eval()
    scored.load_state_dict(stock.state_dict())
    image, meta = torch.rand(1, 3, 64, 64), [dict(img_shape=(64, 64))]
    with torch.no_grad():
        assert torch.equal(scored.encode_decode(image, meta), stock.encode_decode(image, meta)[:, 1:])
