"""Banks of training images for the targets of the PAG loss: reading, storage in a file, and sharing by processes."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import broadcast, broadcast_object_list, is_main_process
from mmengine.logging import print_log

from mmadv.engine.data import NamedErrors, leaves
from mmadv.errors import UserError
from mmadv.robustness import ClassBank


def shared_bank(make: Callable[[], ClassBank]) -> ClassBank:
    """Returns, in every process, the bank that the main process makes.

    The examples are sent class by class, so that no process holds more than the bank and one class of it. All processes
    must call this function together. With a single process, the function returns ``make()``.

    Args:
        make: function that makes the bank; only the main process calls it.

    Raises:
        UserError: the main process could not make the bank. The main process itself raises the error of ``make``.
    """
    bank: ClassBank | None = None
    failure: BaseException | None = None
    head: list[Any] = [None]
    if is_main_process():
        try:
            bank = make()
            head = [(list(bank.examples.shape), bank.examples.dtype, bank.counts.tolist())]
        except BaseException as error:  # the others must not wait for a bank that does not come
            failure, head = error, [str(error) or type(error).__name__]
    broadcast_object_list(head)
    if failure is not None:
        raise failure
    if isinstance(head[0], str):
        raise UserError(head[0])
    shape, dtype, counts = head[0]
    if bank is None:
        bank = ClassBank(torch.empty(shape, dtype=dtype), torch.tensor(counts))
    for examples in bank.examples:
        broadcast(examples)
    return bank


def cached_bank(path: Path, key: str, make: Callable[[], ClassBank]) -> ClassBank:
    """Returns the bank of a file; makes and writes the bank first unless the file holds one with the same key.

    The file is written completely or not at all. If a file cannot be read, the function logs this and makes the bank
    again.

    Args:
        path: path of the file.
        key: key of everything that decides the bank's content.
        make: function that makes the bank.
    """
    if path.is_file():
        try:
            stored = torch.load(path, weights_only=True)
            if stored['key'] == key:
                return ClassBank(stored['examples'], stored['counts'])
        except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            print_log(f'{path} cannot be read ({type(error).__name__}) and is made anew', logger='current', level=30)
    bank = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}-{os.getpid()}')
    try:
        torch.save({'key': key, 'examples': bank.examples, 'counts': bank.counts}, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return bank


def raw_pictures(dataset: Any, seed: int, limit: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields images (H, W, C) uint8 and labels (H, W) of a training set in random order, loaded but not augmented.

    Args:
        dataset: dataset of mmseg, in any nesting of wrappers.
        seed: seed of the order.
        limit: number of images; None for all.

    Raises:
        UserError: the dataset's pipeline has no loading transform, or does not load images and labels.
    """
    parts = list(leaves(dataset))
    places = [(part, index) for part in parts for index in range(len(part))]
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed)).tolist()
    loaders = {id(part): NamedErrors(_loading(part)) for part in parts}
    for place in order[:limit]:
        part, index = places[place]
        results = loaders[id(part)](part.get_data_info(index))
        if 'img' not in results or 'gt_seg_map' not in results:
            raise UserError('PAGTargetHook: the training pipeline must load img and gt_seg_map')
        image = np.asarray(results['img'])
        yield (image if image.ndim == 3 else image[..., None]), np.asarray(results['gt_seg_map'])


def _loading(dataset: Any) -> Callable[[dict], dict]:
    """Returns the loading part of a dataset's pipeline."""
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', None) or ()
    loaders = [transform for transform in transforms if type(transform).__name__.startswith('Load')]
    if not loaders:
        raise UserError('PAGTargetHook: the training pipeline has no Load... transform; load images and labels in it')

    def load(results: dict) -> dict:
        for transform in loaders:
            results = transform(results)
        return results

    return load
