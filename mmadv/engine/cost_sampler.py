"""A sampler that shares images between processes so that all processes finish at about the same time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

import mmcv
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS
from PIL import Image
from torch.utils.data import Sampler

from mmadv.engine.data import Selection, leaves
from mmadv.fields import NotNegative, checked


def split_by_cost(costs: Sequence[int], number: int) -> list[list[int]]:
    """Returns the positions that each process gets, in order; the sums of costs are about equal.

    The items are dealt from the most to the least costly. Each item goes to the process with the smallest sum so far
    (longest processing time first; Graham, 1969). No process has more than its even share plus one image. Items of
    equal cost are dealt in turn.

    >>> split_by_cost([1, 9, 1, 5, 4], 2)
    [[0, 1], [2, 3, 4]]
    """
    shares: list[list[int]] = [[] for _ in range(number)]
    loads = [(0, rank) for rank in range(number)]
    for position in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, rank = heapq.heappop(loads)
        shares[rank].append(position)
        heapq.heappush(loads, (load + costs[position], rank))
    return [sorted(share) for share in shares]


def image_costs(selection: Selection) -> list[int]:
    """Returns the number of pixels of every image after the test pipeline's resizing, from the headers of the files.

    If a file or its header cannot be read, or if samples have no files, all images cost the same. The error of such a
    file is raised when the file is loaded.
    """
    (*others, first) = leaves(selection.dataset)
    resize = None if others else _resize_step(first)
    costs = []
    for index in selection.indexes:
        info = selection.dataset.get_data_info(index) if hasattr(selection.dataset, 'get_data_info') else {}
        try:
            with Image.open(info['img_path']) as image:
                width, height = image.size
        except (KeyError, TypeError, OSError):
            return [1] * len(selection)
        costs.append(_pixels(width, height, resize))
    return costs


@DATA_SAMPLERS.register_module()
@checked
class CostSampler(Sampler):
    """Gives every process its share of a ``Selection``, by ``image_costs``: each image once, and each share in order.

    Args:
        dataset: the selection.
        seed: unused; mmengine passes a seed to all samplers, but this sampler draws no random numbers.
    """

    def __init__(self, dataset: Selection, seed: NotNegative | None = None) -> None:
        self.dataset = dataset
        self.rank, self.processes = get_dist_info()
        self._share: list[int] | None = None

    @property
    def share(self) -> list[int]:
        """Returns the positions of this process."""
        if self._share is None:
            costs = image_costs(self.dataset) if self.processes > 1 else [1] * len(self.dataset)
            self._share = split_by_cost(costs, self.processes)[self.rank]
        return self._share

    def __iter__(self) -> Iterator[int]:
        return iter(self.share)

    def __len__(self) -> int:
        return len(self.share)

    def set_epoch(self, epoch: int) -> None:
        """Does nothing: every epoch is the same."""


def _resize_step(dataset: Any) -> Any:
    """Returns the resizing step of a dataset's pipeline; None if it has none, or is another kind of pipeline."""
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', None) or ()
    steps = [getattr(step, 'resize', step) for step in steps]  # in the space 'image' the adapter resizes
    return next((step for step in steps if type(step).__name__ == 'Resize'), None)


def _pixels(width: int, height: int, resize: Any) -> int:
    scale, factors = getattr(resize, 'scale', None), getattr(resize, 'scale_factor', None)
    if scale is None and factors is not None:
        scale = (int(width * factors[0] + 0.5), int(height * factors[1] + 0.5))
    if scale is not None:
        keeps = getattr(resize, 'keep_ratio', False)
        width, height = mmcv.rescale_size((width, height), scale) if keeps else scale
    return int(width) * int(height)
