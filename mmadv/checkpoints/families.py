"""The public checkpoint families: what each calls the backbone's weights, and what else is in its files.

One function per family maps a key of a file to the backbone's key, or says why the key is dropped. Backbones
keep the names of timm and torchvision, so mapping is mostly unwrapping.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from mmadv.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A key that has no place in a backbone, and why."""

    reason: str


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


def unwrapped(key: str, wrappers: tuple[str, ...]) -> str:
    """Returns a key without the names of the modules that wrap the network, however nested.

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


def timm(key: str) -> str | Dropped:
    """Maps keys of timm's ConvNeXt, VisionTransformer, ResNet and ResNetV2, as timm saves them."""
    key = unwrapped(key, ('module.',))
    # 'head.' of ConvNeXt, ViT and ResNetV2; 'fc.' of ResNet; 'fc_norm.' of ViTs that pool by averaging.
    return CLASSIFIER if key.split('.')[0] in ('head', 'fc', 'fc_norm') else key


def revisiting_at(key: str) -> str | Dropped:
    """Maps keys of ConvNeXt and ViT from the 'Revisiting adversarial training for ImageNet' release.

    The networks are timm's, some with a ConvStem, within ``module.``, ``model.`` and ``base_model.`` in any order; some
    files hold the normalising layer that preceded the network, as ``base_normalize.*`` or ``normalize.*``.
    """
    key = unwrapped(key, ('module.', 'model.', 'base_model.'))
    return NORMALIZER if is_normalizer(key) else timm(key)


def torchvision(key: str) -> str | Dropped:
    """Maps keys of torchvision's ResNet."""
    key = unwrapped(key, ('module.',))
    return CLASSIFIER if key.startswith('fc.') else key


def madry(key: str) -> str | Dropped:
    """Maps keys of MadryLab's robustness library, which saves the network, its normaliser and its attacker.

    ``module.model.*`` is the network with torchvision's names, ``module.normalizer.*`` precedes it, and
    ``module.attacker.*`` holds both once more.
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


def converted(key: str) -> str | Dropped:
    """Maps keys of a file that ``mmadv convert`` wrote: they are the backbone's already."""
    return key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A family of checkpoints.

    Attributes:
        name: what configs and the command line call it.
        map_key: key of a file -> key of the backbone, or why it is dropped.
        input_convention: what its networks were trained with unless the file says otherwise; None where
            that differs from network to network.
        architectures: the backbones it publishes, by the names of ``mmadv.models.backbones.ARCHITECTURES``.
    """

    name: str
    map_key: Callable[[str], str | Dropped]
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
    )
}  # fmt: skip


def source(name: str) -> Source:
    """Returns the source of that name; raises UserError with the nearest name otherwise."""
    if name not in SOURCES:
        raise UserError(f"unknown checkpoint source '{name}'{nearest(str(name), SOURCES)}")
    return SOURCES[name]
