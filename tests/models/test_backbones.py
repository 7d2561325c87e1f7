"""Backbones against timm's and torchvision's own networks: weights by name, features, strides, sizes."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from mmengine.config import Config
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules
from timm.layers import LayerNorm2d
from timm.models.resnetv2 import ResNetV2
from torch import nn
from torch.nn import functional as F

import mmadv  # noqa: F401  (registers the components)
from mmadv.checkpoints.families import SOURCES
from mmadv.checkpoints.matching import match
from mmadv.errors import UserError
from mmadv.models.backbones import ARCHITECTURES, ConvStem, build_backbone
from mmadv.models.backbones.architectures import SEGMENTORS, fresh_parameters, shapes_of

CONFIGS = Path(__file__).parents[2] / 'configs' / '_base_' / 'models'
register_all_modules()


def randomise(module, seed=0):
    """Gives every weight, norm statistic and layer scale a value that matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if key.endswith('num_batches_tracked'):
                continue
            noise = torch.rand(value.shape, generator=generator)
            if value.ndim > 1:
                fan = value[0].numel() if value.ndim > 2 or 'weight' in key else 100
                value.copy_((noise - 0.5) * (12 / fan) ** 0.5)
            elif key.endswith(('weight', 'running_var', 'gamma')):
                value.copy_(0.5 + noise)
            else:
                value.copy_(noise - 0.5)
    return module.eval()


def load(backbone, reference, source):
    """Fills a backbone with a reference network's weights, key by key."""
    weights = reference.state_dict()
    report = match(weights, SOURCES[source].map_key, shapes_of(backbone), fresh=fresh_parameters(backbone))
    report.require_complete('the reference', type(backbone).__name__)
    backbone.load_state_dict(report.weights, strict=not fresh_parameters(backbone))
    return backbone.eval()


def pixels(height, width, seed=1):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


class ReferenceStem(nn.Module):
    """The ConvStem as published: convolution, LayerNorm over channels written out, GELU."""

    def __init__(self, convolutions):
        super().__init__()
        layers = []
        for inner, outer, kernel, stride, norm in convolutions:
            layers.append(nn.Conv2d(inner, outer, kernel, stride, kernel // 2))
            layers.extend([LayerNorm2d(outer), nn.GELU()] if norm else [])
        self.stem = nn.Sequential(*layers)

    def forward(self, images):
        features = images
        for layer in self.stem:
            if isinstance(layer, LayerNorm2d):
                centred = features - features.mean(1, keepdim=True)
                features = centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + 1e-6)
                features = layer.weight[:, None, None] * features + layer.bias[:, None, None]
            else:
                features = layer(features)
        return features


TINY_STEM = [(3, 48, 3, 2, True), (48, 96, 3, 2, True)]
BASE_STEM = [(3, 64, 3, 2, True), (64, 96, 3, 2, True), (96, 128, 3, 1, True)]
VIT_STEM = [(3, 48, 3, 2, True), (48, 96, 3, 2, True), (96, 192, 3, 2, True), (192, 384, 3, 2, True)]


@pytest.mark.parametrize('stem', [None, TINY_STEM], ids=['patch', 'convstem'])
def test_convnext_features_are_timms(stem):
    reference = timm.create_model('convnext_tiny', depths=(1, 1, 2, 1))
    if stem:
        reference.stem = ReferenceStem(stem)
    randomise(reference)
    name = 'convnext_t_convstem' if stem else 'convnext_t'
    backbone = load(build_backbone(name, depths=(1, 1, 2, 1)), reference, 'timm')
    images = pixels(64, 96)
    with torch.no_grad():
        expected = reference.forward_intermediates(images, intermediates_only=True)
        features = backbone(images)
    for stage, (own, theirs) in enumerate(zip(features, expected, strict=True)):
        theirs = F.layer_norm(theirs.permute(0, 2, 3, 1), theirs.shape[1:2], eps=1e-6).permute(0, 3, 1, 2)
        assert own.shape == (2, 96 * 2**stage, 16 >> stage, 24 >> stage)
        torch.testing.assert_close(own, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize('stem', [None, [*VIT_STEM, (384, 384, 1, 1, False)]], ids=['patch', 'convstem'])
def test_vit_features_are_timms(stem):
    reference = timm.create_model('vit_small_patch16_224', depth=3, img_size=64)
    if stem:
        reference.patch_embed.proj = ReferenceStem(stem)
    randomise(reference)
    name = 'vit_s_convstem' if stem else 'vit_s'
    backbone = load(build_backbone(name, depth=3, img_size=64, out_indices=(0, 2)), reference, 'timm')
    with torch.no_grad():
        first = reference.forward_intermediates(pixels(64, 64), indices=[0], intermediates_only=True)[0]
        last = reference.forward_features(pixels(64, 64))[:, 1:].transpose(1, 2).reshape(2, 384, 4, 4)
        features = backbone(pixels(64, 64))
    torch.testing.assert_close(features[0], first, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features[1], last, atol=1e-5, rtol=1e-5)


def test_vit_resizes_its_position_embedding_as_timm():
    reference = randomise(timm.create_model('vit_small_patch16_224', depth=1, img_size=64, dynamic_img_size=True))
    backbone = load(build_backbone('vit_s', depth=1, img_size=64, out_indices=(0,)), reference, 'timm')
    with torch.no_grad():
        expected = reference.forward_features(pixels(48, 96))[:, 1:].transpose(1, 2).reshape(2, 384, 3, 6)
        torch.testing.assert_close(backbone(pixels(48, 96))[0], expected, atol=1e-5, rtol=1e-5)


def test_vit_refuses_other_sizes():
    backbone = build_backbone('vit_s', depth=1, out_indices=(0,))
    with pytest.raises(UserError, match='input of 473x480, which is not a multiple of its patch size 16; pad it'):
        backbone(torch.zeros(1, 3, 473, 480))
    with pytest.raises(UserError, match='img_size .473, 473. of the backbone must be multiples'):
        build_backbone('vit_s', img_size=473)
    with pytest.raises(UserError, match='out_indices .11,. of the backbone must be from 0 to 2'):
        build_backbone('vit_s', depth=3)


@pytest.mark.parametrize('stride', [8, 32])
def test_plain_resnet_features_are_torchvisions(stride):
    dilated = [False, stride == 8, stride == 8]
    reference = torchvision.models.resnet50(replace_stride_with_dilation=dilated)
    backbone = load(build_backbone('resnet50', output_stride=stride), randomise(reference), 'torchvision')
    expected = []
    with torch.no_grad():
        features = reference.maxpool(reference.relu(reference.bn1(reference.conv1(pixels(64, 96)))))
        for stage in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
            features = stage(features)
            expected.append(features)
        maps = backbone(pixels(64, 96))
    for index, (own, theirs) in enumerate(zip(maps, expected, strict=True)):
        reduction = min(4 << index, stride)
        assert own.shape == (2, 256 << index, 64 // reduction, 96 // reduction)
        torch.testing.assert_close(own, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=1e-4)


@pytest.mark.parametrize('stride', [8, 32])
def test_resnet_v2_features_are_timms(stride):
    reference = randomise(timm.create_model('resnetv2_50', output_stride=stride))
    assert isinstance(reference, ResNetV2)
    backbone = load(build_backbone('resnetv2_50', output_stride=stride), reference, 'timm')
    with torch.no_grad():
        expected = reference.forward_intermediates(pixels(64, 96), indices=[1, 2, 3, 4], intermediates_only=True)
        expected = [*expected[:3], reference.forward_features(pixels(64, 96))]
        features = backbone(pixels(64, 96))
    for index, (own, theirs) in enumerate(zip(features, expected, strict=True)):
        reduction = min(4 << index, stride)
        assert own.shape == (2, 256 << index, 64 // reduction, 96 // reduction)
        torch.testing.assert_close(own, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=1e-4)


# Published parameter counts of the classifiers, and the channels that their classifier takes.
PUBLISHED = {
    'convnext_t': (28_589_128, 768),
    'convnext_s': (50_223_688, 768),
    'convnext_b': (88_591_464, 1024),
    'vit_s': (22_050_664, 384),
    'vit_b': (86_567_656, 768),
    'resnet18': (11_689_512, 512),
    'resnet50': (25_557_032, 2048),
    'resnet101': (44_549_160, 2048),
    'resnetv2_50': (25_549_352, 2048),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    with torch.device('meta'):
        backbone = build_backbone(name)
    published, channels = PUBLISHED[name]
    own = sum(value.numel() for key, value in backbone.named_parameters() if not key.startswith('output_norms.'))
    # The classifier: a linear layer of 1000 classes, behind a norm in ConvNeXt.
    head = 1000 * channels + 1000 + (2 * channels if name.startswith('convnext') else 0)
    assert own + head == published


@pytest.mark.parametrize(
    ('name', 'prefix', 'convolutions'),
    [
        ('convnext_t_convstem', 'stem.stem.', TINY_STEM),
        ('convnext_s_convstem', 'stem.stem.', TINY_STEM),
        ('convnext_b_convstem', 'stem.stem.', BASE_STEM),
        ('vit_s_convstem', 'patch_embed.proj.stem.', [*VIT_STEM, (384, 384, 1, 1, False)]),
        ('vit_b_convstem', 'patch_embed.proj.stem.', [*VIT_STEM, (384, 768, 1, 1, False)]),
    ],
)
def test_conv_stem_has_the_public_keys_and_shapes(name, prefix, convolutions):
    with torch.device('meta'):
        shapes = shapes_of(build_backbone(name))
    expected = {}
    for index, (inner, outer, kernel, _, norm) in enumerate(convolutions):
        expected[f'{prefix}{3 * index}.weight'] = (outer, inner, kernel, kernel)
        expected[f'{prefix}{3 * index}.bias'] = (outer,)
        if norm:
            expected[f'{prefix}{3 * index + 1}.weight'] = expected[f'{prefix}{3 * index + 1}.bias'] = (outer,)
    plain = 'stem.' if prefix.startswith('stem') else 'patch_embed.'
    assert {key: shape for key, shape in shapes.items() if key.startswith(plain)} == expected


def test_conv_stem_refuses_impossible_widths():
    with pytest.raises(UserError, match='stem_widths .48,. cannot make a stride of 4'):
        ConvStem((48,), stride=4)
    with pytest.raises(UserError, match='must end in 96'):
        build_backbone('convnext_t', stem_widths=(48, 64))


@pytest.mark.parametrize(
    ('name', 'millions'),
    [
        ('upernet_convnext_t', 60.2),
        ('upernet_convnext_s', 81.8),
        ('upernet_convnext_b', 122.2),
        ('segmenter_vit_s', 26.0),
        ('pspnet_r50', 49.0),
        ('pspnet_r50v2', 46.6),
        # torchvision's fcn_resnet50 and fcn_resnet101 with 21 classes, auxiliary head included.
        ('fcn_r50', 35.322218),
        ('fcn_r101', 54.314346),
    ],
)
def test_segmentors_have_the_published_size(name, millions):
    config = Config.fromfile(CONFIGS / f'{name}.py').model
    with torch.device('cpu' if name.startswith('segmenter') else 'meta'):
        model = MODELS.build(config)
    size = sum(value.numel() for value in model.parameters()) / 1e6
    assert size == pytest.approx(millions, abs=5e-7 if millions != round(millions, 1) else 0.05)


@pytest.mark.parametrize(('name', 'rate'), [('upernet_convnext_t', 0.4), ('upernet_convnext_s', 0.3)])
def test_stochastic_depth_is_the_papers(name, rate):
    with torch.device('meta'):
        backbone = MODELS.build(Config.fromfile(CONFIGS / f'{name}.py').model.backbone)
    blocks = [block for stage in backbone.stages for block in stage.blocks]
    rates = [getattr(block.drop_path, 'drop_prob', 0.0) for block in blocks]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(rate)
    assert rates == sorted(rates)


@pytest.mark.parametrize(
    ('name', 'changes'),
    [
        ('convnext_t_convstem', dict(depths=(1, 1, 1, 1), dims=(8, 16, 16, 16), stem_widths=(4, 8))),
        ('vit_s_convstem', dict(depth=2, embed_dim=24, num_heads=2, out_indices=(1,), second_order_gradients=True)),
        ('resnetv2_50', dict(depths=(1, 1, 1, 1))),
        ('resnet18', {}),
    ],
)
def test_backbones_differentiate_twice(name, changes):
    backbone = build_backbone(name, **changes).eval()
    images = pixels(32, 32)[:1].requires_grad_()
    (gradient,) = torch.autograd.grad(backbone(images)[-1].pow(2).sum(), images, create_graph=True)
    weight = backbone.stem.stem[0].weight if name.startswith('convnext') else next(backbone.parameters())
    (second,) = torch.autograd.grad(gradient.pow(2).sum(), weight)
    assert torch.isfinite(second).all()
    assert second.abs().sum() > 0


def test_second_order_gradients_change_no_output():
    fused = build_backbone('vit_s', depth=2, img_size=32, out_indices=(1,)).eval()
    exact = build_backbone('vit_s', depth=2, img_size=32, out_indices=(1,), second_order_gradients=True).eval()
    exact.load_state_dict(fused.state_dict())
    assert [block.attn.fused_attn for block in exact.blocks] == [False, False]
    with torch.no_grad():
        torch.testing.assert_close(exact(pixels(32, 32))[0], fused(pixels(32, 32))[0], atol=1e-5, rtol=1e-5)


def test_every_architecture_is_named_by_a_source():
    assert {*ARCHITECTURES, *SEGMENTORS} == {name for source in SOURCES.values() for name in source.architectures}


def test_epsilon_of_the_layer_norms():
    for changes, expected in (({}, 1e-6), ({'norm_eps': 1e-5}, 1e-5)):
        backbone = build_backbone('vit_s', depth=1, out_indices=(0,), **changes)
        assert {module.eps for module in backbone.modules() if isinstance(module, nn.LayerNorm)} == {expected}


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UserError, match="unknown architecture 'convnxt_t'; did you mean 'convnext_t'"):
        build_backbone('convnxt_t')
    with pytest.raises(UserError, match="unknown input_convention 'imgenet'; did you mean 'imagenet'"):
        build_backbone('resnet18', input_convention='imgenet')
    with pytest.raises(UserError, match='PlainResNet.output_stride must be 8 or 16 or 32; found 4'):
        build_backbone('resnet18', output_stride=4)
