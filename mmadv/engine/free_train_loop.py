"""The train loop of "free" adversarial training, which replays every batch several times in a row."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.runner import IterBasedTrainLoop
from mmseg.registry import LOOPS

from mmadv.errors import UserError
from mmadv.fields import NotNegative, Positive, checked
from mmadv.models.adapter import unwrap
from mmadv.models.free_adv_data_preprocessor import FreeAdvSegDataPreProcessor

# The message hub's name of the perturbations.
PERTURBATIONS = 'free_perturbations'


@LOOPS.register_module()
@checked
class FreeTrainLoop(IterBasedTrainLoop):
    """An IterBasedTrainLoop that trains on every batch ``replays`` times in a row (Shafahi et al., 2019, algorithm 1).

    Every replay is an iteration that updates the weights and the perturbation. ``max_iters`` iterations take as long as
    in clean training, and see max_iters / replays batches. With gradient accumulation, the batches of one update are
    replayed together, and each batch has its own perturbation.

    Args:
        runner: the runner.
        dataloader: the training data, or its config.
        max_iters: number of iterations; every replay counts.
        replays: m of the paper, which uses 8 for CIFAR-10 and 4 for ImageNet.
        val_begin, val_interval, dynamic_intervals, fast_forward_on_resume: as in IterBasedTrainLoop.

    Raises:
        UserError: ``replays`` is invalid; or, at the start, the data preprocessor is not a FreeAdvSegDataPreProcessor.
    """

    # The train loop sets this attribute.
    dataloader_iterator: Any

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_iters: Positive,
        replays: Positive = 4,
        val_begin: NotNegative = 1,
        val_interval: Positive = 1000,
        dynamic_intervals: list[tuple[NotNegative, Positive]] | None = None,
        fast_forward_on_resume: bool = False,
    ) -> None:
        super().__init__(
            runner,
            dataloader,
            max_iters=max_iters,
            val_begin=val_begin,
            val_interval=val_interval,
            dynamic_intervals=dynamic_intervals,
            fast_forward_on_resume=fast_forward_on_resume,
        )
        self.replays = replays

    def run(self) -> Any:
        """Trains, and returns the model."""
        self.preprocessor = unwrap(self.runner.model).data_preprocessor
        check_perturbs_replayed_batches(self.preprocessor)
        # Checkpoints hold the hub. The hub keeps this dict itself, not a copy, and training fills it.
        self.preprocessor.perturbations = self.runner.message_hub.get_info(PERTURBATIONS) or {}
        self.runner.message_hub.update_info(PERTURBATIONS, self.preprocessor.perturbations)
        group = getattr(self.runner.optim_wrapper, '_accumulative_counts', 1)
        self.dataloader_iterator = Replayed(self.dataloader_iterator, self.replays, group)
        return super().run()

    def run_iter(self, data_batch: Any) -> None:
        """Trains on one batch with its own perturbation."""
        self.preprocessor.slot = self.dataloader_iterator.slot
        super().run_iter(data_batch)


def check_replays(replays: Any) -> None:
    """Raises UserError unless ``replays`` is a positive integer."""
    if isinstance(replays, bool) or not isinstance(replays, int) or replays < 1:
        raise UserError(f'train_cfg.replays must be a positive integer; found {replays!r}')


def check_perturbs_replayed_batches(preprocessor: Any) -> None:
    """Raises UserError unless a data preprocessor is a FreeAdvSegDataPreProcessor."""
    if not isinstance(preprocessor, FreeAdvSegDataPreProcessor):
        raise UserError(
            'FreeTrainLoop needs a data_preprocessor of type FreeAdvSegDataPreProcessor; '
            f'found {type(preprocessor).__name__}'
        )


class Replayed:
    """An iterator that returns every group of batches several times.

    Args:
        batches: iterator of batches; its ``skip_iter(n)`` skips n batches.
        replays: number of times that each group is returned.
        group: number of batches in a group; 2 gives a, b, a, b, ...

    Attributes:
        slot: position of the last batch in its group.
    """

    def __init__(self, batches: Any, replays: int, group: int = 1) -> None:
        self._batches = batches
        self._length = replays * group
        self._group = group
        self._kept: list[Mapping] = []
        self._position = 0
        self.slot = 0

    def __next__(self) -> Any:
        """Returns a copy of the next batch, because training writes into the data samples."""
        if self._position == 0:
            self._kept = []
        if self._position < self._group:
            self._kept.append(next(self._batches))
        self.slot = self._position % self._group
        self._position = (self._position + 1) % self._length
        return copy.deepcopy(self._kept[self.slot])

    def skip_iter(self, num_iters: int) -> None:
        """Skips a number of iterations, replays counted; whole groups are skipped without being read."""
        groups, rest = divmod(num_iters, self._length)
        if groups:
            self._batches.skip_iter(groups * self._group)
        for _ in range(rest):
            next(self)
