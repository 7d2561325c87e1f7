"""The content of a classifier's checkpoint: its weights, and the normalisation of its training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmadv.checkpoints.conventions import name_of
from mmadv.checkpoints.families import DEVIATIONS, MEANS, Source, is_normalizer, unwrapped
from mmadv.errors import UserError

# The keys under which the families keep the weights, beside optimizers, schedules and counters.
HOLDERS = ('state_dict', 'model', 'model_state_dict')
# mmadv convert writes its record under this key of the file's meta.
RECORD = 'mmadv'


@dataclasses.dataclass(frozen=True)
class Normalizer:
    """The mean and std of the normalising layer in front of a file's network, for images in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def input_convention(self) -> str | None:
        """The name of the convention; None if no known convention has these values."""
        return name_of(self.mean, self.std)

    def __str__(self) -> str:
        mean, std = (', '.join(f'{value:.4g}' for value in values) for values in (self.mean, self.std))
        return f'mean ({mean}) and std ({std})'


def weights_of(checkpoint: Mapping[str, Any], file: str) -> dict[str, Tensor]:
    """Returns the weights in a checkpoint.

    Raises:
        UserError: the checkpoint holds no weights.
    """
    holder: Any = checkpoint
    for key in HOLDERS:
        if isinstance(checkpoint.get(key), Mapping):
            holder = checkpoint[key]
            break
    if not holder or not all(isinstance(value, Tensor) for value in holder.values()):
        keys = ', '.join(map(str, list(checkpoint)[:5])) or 'nothing'
        raise UserError(
            f'the checkpoint {file} holds no weights: expected tensors, at the top or under {", ".join(HOLDERS)}; '
            f'found {keys}'
        )
    return dict(holder)


def normalizer_of(weights: Mapping[str, Tensor]) -> Normalizer | None:
    """Returns the normalising layer in front of the network, None if the file holds none."""
    statistics: dict[str, tuple[float, ...]] = {}
    for key, value in weights.items():
        bare = unwrapped(key, ('module.', 'model.', 'base_model.'))
        if is_normalizer(bare):
            name = bare.rpartition('.')[2]
            kind = 'mean' if name in MEANS else 'std'
            assert kind == 'mean' or name in DEVIATIONS
            statistics[kind] = tuple(value.flatten().tolist())
    return Normalizer(statistics['mean'], statistics['std']) if len(statistics) == 2 else None


def record_of(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the record that mmadv convert wrote into a file; None for any other file."""
    meta = checkpoint.get('meta')
    record = meta.get(RECORD) if isinstance(meta, Mapping) else None
    return dict(record) if isinstance(record, Mapping) else None


def convention_of(
    weights: Mapping[str, Tensor], source: Source, stated: str | None, file: str
) -> tuple[str | None, str]:
    """Returns the name of a checkpoint's input convention, None if it is unknown, and where the name comes from.

    The statement of the user comes first, then the normalising layer in the file, then the convention of the source.

    Raises:
        UserError: the file holds a normalising layer of no known convention.
    """
    normalizer = normalizer_of(weights)
    if stated is not None:
        return stated, 'as stated'
    if normalizer is not None:
        name = normalizer.input_convention
        if name is None:
            raise UserError(
                f'the checkpoint {file} holds a normalizer with {normalizer}, which is not a known input convention; '
                'state input_convention'
            )
        return name, f'by the normalizer that {file} holds'
    return source.input_convention, f"as are all checkpoints of the source '{source.name}'"
