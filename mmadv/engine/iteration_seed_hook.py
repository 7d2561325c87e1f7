"""A hook that makes the random draws of a training step a function of seed, process and iteration."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmadv.attacks import derive_seed


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seeds the global generators before every training iteration, so that a resumed run draws what it would have.

    Dropout, stochastic depth and whatever else a network draws in training come from torch's global generator, which
    no checkpoint holds. With this hook their draws follow from the run's seed, the process and the iteration.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds the generators of torch, numpy and Python."""
        seed_generators(derive_seed('iteration', runner.seed, get_rank(), runner.iter))


def seed_generators(seed: int) -> None:
    """Seeds the global generators of torch, on every device, of numpy and of Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
