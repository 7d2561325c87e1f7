"""A hook that makes the random numbers of training a function of seed, process and iteration."""

from __future__ import annotations

from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from mmseg.registry import HOOKS

from mmadv.attacks import derive_seed
from mmadv.engine.seeded_data import SeededDataset, seed_generators, seeded
from mmadv.fields import checked


@HOOKS.register_module()
@checked
class IterationSeedHook(Hook):
    """Seeds the global generators, so that a resumed run draws the same random numbers as an uninterrupted run.

    Checkpoints do not hold the state of the generators. With this hook, the random numbers of the network depend only
    on the run's seed, the process and the iteration; examples are dropout and stochastic depth. The random transforms
    of the data depend only on the seed, the process, the epoch and the sample's position in the epoch. The number of
    workers has no influence.

    If the dataset is iterable, or the batch sampler is a custom one, the hook warns and leaves the data unchanged.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Seeds the samples of the training data."""
        loop = runner._train_loop
        if not isinstance(loop, BaseLoop) or isinstance(loop.dataloader.dataset, SeededDataset):
            return
        loader = seeded(loop.dataloader, runner.seed)
        if loader is None:
            runner.logger.warning(
                'IterationSeedHook cannot seed the samples of this train_dataloader: random transforms of a resumed '
                'run differ from those of an uninterrupted one'
            )
            return
        loop.dataloader = loader
        if hasattr(loop, 'dataloader_iterator'):
            loop.dataloader_iterator = type(loop.dataloader_iterator)(loader)

    def before_train(self, runner: Runner) -> None:
        """Takes the run's seed; a resumed run has the seed of its checkpoint."""
        dataset = runner.train_loop.dataloader.dataset
        if isinstance(dataset, SeededDataset):
            dataset.seed = runner.seed

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds the generators of torch, numpy and Python."""
        seed_generators(derive_seed('iteration', runner.seed, get_rank(), runner.iter))
