"""The public checkpoint families: their names for the network's weights, and the other content of their files.

One function per family maps a key of a file to the network's key, or says why the key is dropped. Backbones
keep the names of timm and torchvision, so mapping is mostly unwrapping. Segmentors have mmseg's names.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmadv.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Dropped:
    """The ``reason`` why a key has no place in a backbone."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Changed:
    """A key whose value the network holds in another form.

    Attributes:
        key: the key of the network.
        change: value of the file -> value of the network; a value that already has the network's form stays unchanged.
    """

    key: str
    change: Callable[[Tensor], Tensor]


def transposed(value: Tensor) -> Tensor:
    """Returns a matrix transposed: the file's code computes x @ W, and a linear layer computes x @ W.T."""
    return value.mT if value.ndim == 2 else value


def as_aspp_bottleneck(value: Tensor) -> Tensor:
    """Returns the 1x1 convolution behind an ASPP as the equivalent 3x3 convolution of mmseg.

    In the 1x1 convolution the pooled features are the last inputs; in mmseg's they are the first. The rim of the 3x3
    kernel is zero, so both compute the same. A 3x3 convolution stays unchanged.
    """
    if value.ndim != 4 or tuple(value.shape[2:]) != (1, 1):
        return value
    pooled = value.shape[1] // 5  # one of five equal parts
    return F.pad(torch.cat([value[:, -pooled:], value[:, :-pooled]], dim=1), (1, 1, 1, 1))


CLASSIFIER = Dropped('classifier head')
NORMALIZER = Dropped('normalizer, which the data preprocessor replaces')
ATTACKER = Dropped("the attacker's copy of the model")

# The parts of a normalising layer's key, under every name that the families give it.
NORMALIZERS = ('normalize', 'base_normalize', 'normalizer')
MEANS, DEVIATIONS = ('mean', 'mu', 'new_mean'), ('std', 'sigma', 'new_std')

TIMM_ARCHITECTURES = (
    'convnext_t', 'convnext_s', 'convnext_b', 'vit_s', 'vit_b', 'resnet18', 'resnet50', 'resnet101', 'resnetv2_50',
)  # fmt: skip
RESNETS = ('resnet18', 'resnet50', 'resnet101')

# Parts of the keys of Robust-Segmentation's UPerNet -> parts of mmseg's keys, or of timm's keys in the backbone.
UPERNET_PARTS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r'^backbone\.downsample_layers\.0\.stem\.', 'backbone.stem.stem.'),
        (r'^backbone\.downsample_layers\.([123])\.', r'backbone.stages.\1.downsample.'),
        (r'^backbone\.stages\.(\d)\.(\d+)\.', r'backbone.stages.\1.blocks.\2.'),
        (r'\.dwconv\.', '.conv_dw.'),
        (r'\.pwconv([12])\.', r'.mlp.fc\1.'),
        (r'^backbone\.norm([0-3])\.', r'backbone.output_norms.\1.'),
        (r'\.batch_norm\.', '.bn.'),
        (r'_head\.classifier\.', '_head.conv_seg.'),
    )
)
# Layers of Segmenter's decoder -> those of mmseg's SegmenterMaskTransformerHead.
SEGMENTER_LAYERS = {
    'norm1.weight': 'ln1.weight',
    'norm1.bias': 'ln1.bias',
    'norm2.weight': 'ln2.weight',
    'norm2.bias': 'ln2.bias',
    'attn.qkv.weight': 'attn.attn.in_proj_weight',
    'attn.qkv.bias': 'attn.attn.in_proj_bias',
    'attn.proj.weight': 'attn.attn.out_proj.weight',
    'attn.proj.bias': 'attn.attn.out_proj.bias',
    'mlp.fc1.weight': 'ffn.layers.0.0.weight',
    'mlp.fc1.bias': 'ffn.layers.0.0.bias',
    'mlp.fc2.weight': 'ffn.layers.1.weight',
    'mlp.fc2.bias': 'ffn.layers.1.bias',
}
# Parts of the keys of the segmentors of DDC-AT's authors -> parts of mmseg's keys. Models of DDC-AT have cls1 and
# aux_cls1. The models that DDC-AT is compared with have cls and aux.
DDC_AT_PARTS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r'^layer0\.', 'backbone.stem.'),
        (r'^layer([1-4])\.', r'backbone.layer\1.'),
        (r'^ppm\.features\.(\d)\.1\.', r'decode_head.psp_modules.\1.1.conv.'),
        (r'^ppm\.features\.(\d)\.2\.', r'decode_head.psp_modules.\1.1.bn.'),
        (r'^aspp\.convs\.([0-3])\.0\.', r'decode_head.aspp_modules.\1.conv.'),
        (r'^aspp\.convs\.([0-3])\.1\.', r'decode_head.aspp_modules.\1.bn.'),
        (r'^aspp\.convs\.4\.1\.', 'decode_head.image_pool.1.conv.'),
        (r'^aspp\.convs\.4\.2\.', 'decode_head.image_pool.1.bn.'),
        (r'^cls1?\.0\.', 'decode_head.bottleneck.conv.'),
        (r'^cls1?\.1\.', 'decode_head.bottleneck.bn.'),
        (r'^cls1?\.4\.', 'decode_head.conv_seg.'),
        (r'^aux(_cls1)?\.0\.', 'auxiliary_head.convs.0.conv.'),
        (r'^aux(_cls1)?\.1\.', 'auxiliary_head.convs.0.bn.'),
        (r'^aux(_cls1)?\.4\.', 'auxiliary_head.conv_seg.'),
    )
)
DDC_AT_BRANCHES = {
    'cls2': Dropped('second classifier of DDC-AT, which training alone uses'),
    'mask1': Dropped('mask head of DDC-AT, which training alone uses'),
}
# Layers in the stem of semseg's ResNet -> layers in the stem of mmseg's ResNetV1c.
SEMSEG_STEM = {'conv1': '0', 'bn1': '1', 'conv2': '3', 'bn2': '4', 'conv3': '6', 'bn3': '7'}


def unwrapped(key: str, wrappers: tuple[str, ...]) -> str:
    """Returns a key without the names of the modules that wrap the network, at any depth.

    >>> unwrapped('module.base_model.stem.0.weight', ('module.', 'model.', 'base_model.'))
    'stem.0.weight'
    """
    while wrapper := next((wrapper for wrapper in wrappers if key.startswith(wrapper)), ''):
        key = key.removeprefix(wrapper)
    return key


def is_normalizer(key: str) -> bool:
    """Returns whether an unwrapped key is the mean or std of a normalising layer."""
    layer, _, name = key.rpartition('.')
    return layer in NORMALIZERS and name in MEANS + DEVIATIONS


# A family maps a key to the network's key, to a key with a changed value, or to the reason why the key is dropped.
Mapped = str | Changed | Dropped


def timm(key: str) -> str | Dropped:
    """Maps keys of timm's ConvNeXt, VisionTransformer, ResNet and ResNetV2, as timm saves them."""
    key = unwrapped(key, ('module.',))
    # 'head.' of ConvNeXt, ViT and ResNetV2; 'fc.' of ResNet; 'fc_norm.' of ViTs that pool by averaging.
    return CLASSIFIER if key.split('.')[0] in ('head', 'fc', 'fc_norm') else key


def revisiting_at(key: str) -> str | Dropped:
    """Maps keys of ConvNeXt and ViT from the 'Revisiting adversarial training for ImageNet' release.

    The networks are timm's, and some have a ConvStem. Their keys start with ``module.``, ``model.`` and
    ``base_model.`` in any order. Some files hold the normalising layer in front of the network as
    ``base_normalize.*`` or ``normalize.*``.
    """
    key = unwrapped(key, ('module.', 'model.', 'base_model.'))
    return NORMALIZER if is_normalizer(key) else timm(key)


def torchvision(key: str) -> str | Dropped:
    """Maps keys of torchvision's ResNet."""
    key = unwrapped(key, ('module.',))
    return CLASSIFIER if key.startswith('fc.') else key


def madry(key: str) -> str | Dropped:
    """Maps keys of MadryLab's robustness library, which saves the network, its normaliser and its attacker.

    ``module.model.*`` is the network with torchvision's names. ``module.normalizer.*`` is the normaliser in front of
    it. ``module.attacker.*`` holds both a second time.
    """
    key = unwrapped(key, ('module.',))
    if key.startswith('attacker.'):
        return ATTACKER
    key = unwrapped(key, ('model.',))
    return NORMALIZER if is_normalizer(key) else torchvision(key)


def salman(key: str) -> str | Dropped:
    """Maps keys of the robust ImageNet ResNets of Salman et al. (2020), trained with the robustness library."""
    return madry(key)


def robustbench_salman(key: str) -> str | Dropped:
    """Maps keys of the same ResNets in RobustBench, which puts ``model.*`` behind ``normalize.*``."""
    key = unwrapped(key, ('module.', 'model.'))
    return NORMALIZER if is_normalizer(key) else torchvision(key)


def robust_segmentation(key: str) -> Mapped:
    """Maps keys of the segmentors of SEA's authors: UPerNet on ConvNeXt with ConvStem, and Segmenter on ViT-S.

    The files are plain state dicts of github.com/nmndeep/Robust-Segmentation.
    """
    key = unwrapped(key, ('module.',))
    part, _, rest = key.partition('.')
    if part == 'encoder':
        return CLASSIFIER if rest.startswith('head.') else f'backbone.{rest}'
    if part == 'decoder':
        return _segmenter_head(rest)
    for pattern, replacement in UPERNET_PARTS:
        key = pattern.sub(replacement, key)
    return key


def _segmenter_head(key: str) -> str | Changed:
    if key in ('proj_patch', 'proj_classes'):
        return Changed(f'decode_head.{key.removeprefix("proj_")}_proj.weight', transposed)
    block = re.fullmatch(r'blocks\.(\d+)\.(.+)', key)
    if block:
        return f'decode_head.layers.{block[1]}.{SEGMENTER_LAYERS.get(block[2], block[2])}'
    return f'decode_head.{key.replace("proj_dec.", "dec_proj.", 1)}'


def ddc_at(key: str) -> Mapped:
    """Maps keys of the segmentors of DDC-AT's authors: PSPNet and DeepLabv3 on a ResNet-50 with a deep stem.

    The files come from github.com/dvlab-research/Robust-Semantic-Segmentation. They hold models of DDC-AT, of SAT, with
    which DDC-AT is compared, and of training without defence.
    """
    key = unwrapped(key, ('module.',))
    branch = DDC_AT_BRANCHES.get(key.split('.')[0])
    if branch is not None:
        return branch
    for pattern, replacement in DDC_AT_PARTS:
        key = pattern.sub(replacement, key)
    return Changed(key, as_aspp_bottleneck) if key == 'decode_head.bottleneck.conv.weight' else key


def semseg(key: str) -> str | Dropped:
    """Maps keys of the ImageNet ResNets of github.com/hszhao/semseg, whose stem has three convolutions."""
    key = unwrapped(key, ('module.',))
    part, _, rest = key.partition('.')
    if part == 'fc':
        return CLASSIFIER
    return f'stem.{SEMSEG_STEM[part]}.{rest}' if part in SEMSEG_STEM else key


def converted(key: str) -> str | Dropped:
    """Maps keys of a file that ``mmadv convert`` wrote; the keys are already the backbone's keys."""
    return key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A family of checkpoints.

    Attributes:
        name: the name in configs and on the command line.
        map_key: key of a file -> key of the network, or the reason why the key is dropped.
        input_convention: the convention that its networks were trained with, unless the file says otherwise; None if
            the convention differs between its networks.
        architectures: the networks that it publishes. The names are those of
            ``mmadv.models.backbones.ARCHITECTURES``, or of ``SEGMENTORS`` there if they are whole segmentors.
    """

    name: str
    map_key: Callable[[str], Mapped]
    input_convention: str | None
    architectures: tuple[str, ...]


SOURCES = {
    source.name: source
    for source in (
        Source(
            name='revisiting-at',
            map_key=revisiting_at,
            input_convention='unit',
            architectures=(
                'convnext_t_convstem', 'convnext_s_convstem', 'convnext_b_convstem', 'convnext_t', 'convnext_s',
                'convnext_b', 'vit_s_convstem', 'vit_b_convstem', 'vit_s', 'vit_b',
            ),
        ),
        Source(name='salman', map_key=salman, input_convention='imagenet', architectures=RESNETS),
        Source(
            name='robustbench-salman', map_key=robustbench_salman, input_convention='imagenet', architectures=RESNETS
        ),
        Source(name='madry', map_key=madry, input_convention='imagenet', architectures=RESNETS),
        Source(name='timm', map_key=timm, input_convention=None, architectures=TIMM_ARCHITECTURES),
        Source(name='torchvision', map_key=torchvision, input_convention='imagenet', architectures=RESNETS),
        Source(
            name='robust-segmentation',
            map_key=robust_segmentation,
            input_convention='unit',
            architectures=('upernet_convnext_t_convstem', 'upernet_convnext_s_convstem', 'segmenter_vit_s'),
        ),
        Source(
            name='ddc-at',
            map_key=ddc_at,
            input_convention='imagenet',
            architectures=('pspnet_resnet50_v1c', 'deeplabv3_resnet50_v1c'),
        ),
        Source(name='semseg', map_key=semseg, input_convention='imagenet', architectures=('resnet50_v1c',)),
    )
}  # fmt: skip


def source(name: str) -> Source:
    """Returns the source with this name; if there is none, raises UserError with the nearest name."""
    if name not in SOURCES:
        raise UserError(f"unknown checkpoint source '{name}'{nearest(str(name), SOURCES)}")
    return SOURCES[name]
