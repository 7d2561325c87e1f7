"""Adversarial attacks on semantic segmentation, in pure torch.

Images are float in [0, 1], (N, C, H, W); a model is a callable from images to logits (N, K, H, W).
"""

from mmadv.attacks.annealed_margin import AnnealedMargin
from mmadv.attacks.apgd import APGD
from mmadv.attacks.attack import Attack
from mmadv.attacks.attack_context import NonFinite, NonFiniteGradient, NonFiniteLogits
from mmadv.attacks.by_radius import ByRadius
from mmadv.attacks.cascade import Cascade
from mmadv.attacks.ensemble import WorstCase
from mmadv.attacks.explore_then_commit import ExploreThenCommit
from mmadv.attacks.fast_newton import FastNewton, PixelwiseFastNewton
from mmadv.attacks.furthest_class import FurthestClass
from mmadv.attacks.gaussian_noise import GaussianNoise
from mmadv.attacks.objectives import (
    BalancedCrossEntropy,
    CosineCrossEntropy,
    CrossEntropy,
    JensenShannon,
    KullbackLeibler,
    LogitMargin,
    MaskedBalancedCrossEntropy,
    MaskedCrossEntropy,
    MaskedImageBalancedCrossEntropy,
    MaskedSpherical,
    Objective,
    Tsallis,
)
from mmadv.attacks.patch import Patch, UniversalPatch
from mmadv.attacks.pgd import BIM, FGSM, PGD, CosPGD, RandomFGSM, SegPGD
from mmadv.attacks.pixels import FromPixels
from mmadv.attacks.presets import PRESETS, adaptive, ama, auto, preset, sea
from mmadv.attacks.radius_reduction import RadiusReduction
from mmadv.attacks.random_choice import RandomChoice
from mmadv.attacks.randomness import derive_seed
from mmadv.attacks.region import Box, Pixels, Region
from mmadv.attacks.restarts import Restarts
from mmadv.attacks.result import AttackResult
from mmadv.attacks.scheduled_pgd import ScheduledPGD
from mmadv.attacks.schedules import CosineSchedule, Schedule
from mmadv.attacks.square import RandomNoise, Square
from mmadv.attacks.step_search import StepSearch
from mmadv.attacks.threat import L1, L2, Linf, Threat, parse_radius
from mmadv.attacks.trained_attack import TrainingBatch
from mmadv.attacks.universal import Universal
from mmadv.attacks.worst_place import WorstPlace

__all__ = [
    'APGD',
    'BIM',
    'FGSM',
    'L1',
    'L2',
    'PGD',
    'PRESETS',
    'AnnealedMargin',
    'Attack',
    'AttackResult',
    'BalancedCrossEntropy',
    'Box',
    'ByRadius',
    'Cascade',
    'CosPGD',
    'CosineCrossEntropy',
    'CosineSchedule',
    'CrossEntropy',
    'ExploreThenCommit',
    'FastNewton',
    'FromPixels',
    'FurthestClass',
    'GaussianNoise',
    'JensenShannon',
    'KullbackLeibler',
    'Linf',
    'LogitMargin',
    'MaskedBalancedCrossEntropy',
    'MaskedCrossEntropy',
    'MaskedImageBalancedCrossEntropy',
    'MaskedSpherical',
    'NonFinite',
    'NonFiniteGradient',
    'NonFiniteLogits',
    'Objective',
    'Patch',
    'Pixels',
    'PixelwiseFastNewton',
    'RadiusReduction',
    'RandomChoice',
    'RandomFGSM',
    'RandomNoise',
    'Region',
    'Restarts',
    'Schedule',
    'ScheduledPGD',
    'SegPGD',
    'Square',
    'StepSearch',
    'Threat',
    'TrainingBatch',
    'Tsallis',
    'Universal',
    'UniversalPatch',
    'WorstCase',
    'WorstPlace',
    'adaptive',
    'ama',
    'auto',
    'derive_seed',
    'parse_radius',
    'preset',
    'sea',
]
