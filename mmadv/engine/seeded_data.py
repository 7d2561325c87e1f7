"""Training data whose random transforms depend on a sample's position in the epoch, not on earlier samples."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Sampler

from mmadv.attacks import derive_seed


def seed_generators(seed: int) -> None:
    """Seeds the global generators of torch (on every device), numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


class SeededDataset(Dataset):
    """A dataset that seeds the global generators before it reads a sample of ``SeededSampler``, in any worker.

    Args:
        dataset: the dataset to read; its attributes are available here too.
        seed: seed of the run.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.rank = get_rank()

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # while unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, _PlacedIndex):
            seed_generators(derive_seed('sample', self.seed, self.rank, *index.place))
        return self.dataset[int(index)]


class SeededSampler(Sampler):
    """A sampler whose indexes carry their epoch and their position in the epoch.

    Args:
        sampler: the sampler that chooses the indexes.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self._epoch = 0
        self._start = 0

    def __getattr__(self, name: str) -> Any:
        if name == 'sampler':  # while unpickling
            raise AttributeError(name)
        value = getattr(self.sampler, name)
        return self._skip if name == 'skip' else value

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        for place, index in enumerate(self.sampler, self._start):
            placed = _PlacedIndex(index)
            placed.place = (self._epoch, place)
            yield placed

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the sampler and of the following indexes."""
        self._epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def _skip(self, number: int) -> None:
        """Skips some samples, as mmengine's loop does when it resumes; only samplers with ``skip`` support this."""
        self.sampler.skip(number)
        self._start = number


class _PlacedIndex(int):
    place: tuple[int, int]


def seeded(loader: DataLoader, seed: int) -> DataLoader | None:
    """Returns the same dataloader with seeded samples; None if its samples have no positions.

    Samples have no positions if the dataset is iterable, or if the batch sampler is a custom one.
    """
    batches = loader.batch_sampler
    if isinstance(loader.dataset, IterableDataset) or type(batches) is not BatchSampler:
        return None
    names: tuple[str, ...] = ('num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn')
    names += ('multiprocessing_context', 'generator', 'prefetch_factor', 'persistent_workers')
    return DataLoader(
        SeededDataset(loader.dataset, seed),
        batch_size=batches.batch_size,
        drop_last=batches.drop_last,
        sampler=SeededSampler(batches.sampler),
        **{name: getattr(loader, name) for name in names},
    )
