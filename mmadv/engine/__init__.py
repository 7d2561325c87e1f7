"""Loops, hooks and measurements, with the data, memory and process helpers that they need."""

from mmadv.engine.atomic_checkpoint_hook import AtomicCheckpointHook
from mmadv.engine.attack_test_loop import AttackTestLoop
from mmadv.engine.attack_val_loop import AttackValLoop
from mmadv.engine.catastrophic_overfitting_hook import CatastrophicOverfittingHook
from mmadv.engine.channels_last_hook import ChannelsLastHook
from mmadv.engine.cost_sampler import CostSampler
from mmadv.engine.free_train_loop import FreeTrainLoop
from mmadv.engine.iteration_seed_hook import IterationSeedHook
from mmadv.engine.measurements import (
    Calibration,
    CommonCorruptions,
    InputGradients,
    MinimalRadius,
    ObjectSizes,
    RadiusSheet,
    SanityChecks,
    SavedImages,
    UniversalPerturbation,
)
from mmadv.engine.pag_target_hook import PAGTargetHook
from mmadv.engine.predictor import PredictedGroup, Predictor
from mmadv.engine.spec import EvaluationSpec

__all__ = [
    'AtomicCheckpointHook',
    'AttackTestLoop',
    'AttackValLoop',
    'Calibration',
    'CatastrophicOverfittingHook',
    'ChannelsLastHook',
    'CommonCorruptions',
    'CostSampler',
    'EvaluationSpec',
    'FreeTrainLoop',
    'InputGradients',
    'IterationSeedHook',
    'MinimalRadius',
    'ObjectSizes',
    'PAGTargetHook',
    'PredictedGroup',
    'Predictor',
    'RadiusSheet',
    'SanityChecks',
    'SavedImages',
    'UniversalPerturbation',
]
