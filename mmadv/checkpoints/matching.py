"""Strict matching of a checkpoint's weights with a network's weights: the report accounts for every key of both."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mmadv.checkpoints.families import Changed, Dropped, Mapped
from mmadv.errors import UserError

POSITION_EMBEDDING = 'pos_embed'
# Files of torch before 0.4.1 lack this counter. Only batch norms without momentum use it.
BATCH_COUNTER = 'num_batches_tracked'


@dataclasses.dataclass(kw_only=True)
class MatchReport:
    """The result of matching for every key of a file and every key of a network.

    Attributes:
        weights: key of the network -> weights from the file.
        matched: the keys that the file and the network share.
        renamed: key of the file -> key of the network.
        dropped: key of the file -> reason.
        resized: key of the network -> description of the change.
        fresh: key of the network that no file holds -> reason.
        missing: the keys of the network without weights. Each is a gap.
        unexpected: the keys of the file without a place in the network. Each is a gap.
        misshapen: key of the network -> sizes in the file and in the network. Each is a gap.
    """

    weights: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    matched: list[str] = dataclasses.field(default_factory=list)
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)
    dropped: dict[str, str] = dataclasses.field(default_factory=dict)
    resized: dict[str, str] = dataclasses.field(default_factory=dict)
    fresh: dict[str, str] = dataclasses.field(default_factory=dict)
    missing: list[str] = dataclasses.field(default_factory=list)
    unexpected: list[str] = dataclasses.field(default_factory=list)
    misshapen: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def gaps(self) -> int:
        """The number of gaps: missing, unexpected and misshapen keys."""
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)

    def summary(self) -> str:
        """Returns a few lines that account for every key."""
        lines = [f'{len(self.weights)} weights taken: {len(self.matched)} by name, {len(self.renamed)} renamed']
        if self.renamed:
            old, new = next(iter(self.renamed.items()))
            lines.append(f'  renamed such as {old} -> {new}')
        for kind, keys in (('dropped', self.dropped), ('not in the file', self.fresh)):
            for reason in dict.fromkeys(keys.values()):
                named = [key for key, why in keys.items() if why == reason]
                lines.append(f'  {kind} ({reason}): {listed(named)}')
        lines.extend(f'  resized: {key} {what}' for key, what in self.resized.items())
        return '\n'.join(lines)

    def require_complete(self, file: str, model: str) -> None:
        """Raises UserError if there are gaps; the message names their keys."""
        if not self.gaps:
            return
        problems = []
        if self.missing:
            problems.append(f'{len(self.missing)} missing in the file, {listed(self.missing)}')
        if self.unexpected:
            problems.append(f'{len(self.unexpected)} without a place in the network, {listed(self.unexpected)}')
        if self.misshapen:
            sizes = [f'{key} {what}' for key, what in self.misshapen.items()]
            problems.append(f'{len(self.misshapen)} of another size, {listed(sizes)}')
        raise UserError(
            f'the weights in {file} do not fit {model}: {"; ".join(problems)}; check the source and the architecture'
        )


def listed(keys: Sequence[str], most: int = 6) -> str:
    """Returns the keys as one text; if there are more than ``most``, the first ones and the number of the others.

    >>> listed(['a', 'b', 'c'], most=2)
    'a, b and 1 more'
    """
    more = f' and {len(keys) - most} more' if len(keys) > most else ''
    return ', '.join(keys[:most]) + more


def match(
    weights: Mapping[str, Tensor],
    map_key: Callable[[str], Mapped],
    shapes: Mapping[str, Sequence[int]],
    *,
    fresh: Mapping[str, str] | None = None,
    grid: tuple[int, int] | None = None,
) -> MatchReport:
    """Returns the report on matching a file's weights with a network's weights.

    Args:
        weights: the weights of the file.
        map_key: the family's key mapping.
        shapes: the shapes of the network's state dict.
        fresh: prefix of the network's keys that no file holds -> reason.
        grid: rows and columns of the network's position embedding; the file's embedding is resized to them.

    Raises:
        UserError: two keys of the file map to one of the network, or a position embedding cannot be resized.
    """
    report = MatchReport()
    origin: dict[str, str] = {}
    for old, value in weights.items():
        new = map_key(old)
        if isinstance(new, Dropped):
            report.dropped[old] = new.reason
            continue
        if isinstance(new, Changed):
            value, new = new.change(value), new.key
        if new not in shapes:
            report.unexpected.append(old)
            continue
        if new in origin:
            raise UserError(f'the keys {origin[new]} and {old} of the checkpoint both stand for {new}')
        origin[new] = old
        shape = tuple(shapes[new])
        if is_position_embedding(new) and grid is not None and value.ndim == 3 and value.shape[2] == shape[-1]:
            value, what = resize_position_embedding(value, grid)
            if what:
                report.resized[new] = what
        if tuple(value.shape) != shape:
            report.misshapen[new] = f'{tuple(value.shape)} in the file, {shape} in the network'
            continue
        report.weights[new] = value
        if new == old:
            report.matched.append(new)
        else:
            report.renamed[old] = new
    for key in shapes:
        if key in origin:
            continue
        reason = next((reason for prefix, reason in (fresh or {}).items() if key.startswith(prefix)), None)
        if key.rpartition('.')[2] == BATCH_COUNTER:
            reason = 'a counter that old files lack'
        if reason is None:
            report.missing.append(key)
        else:
            report.fresh[key] = reason
    return report


def is_position_embedding(key: Mapped) -> bool:
    """Returns whether a key is the position embedding of a vision transformer, alone or in a segmentor.

    >>> is_position_embedding('backbone.pos_embed')
    True
    """
    return key in (POSITION_EMBEDDING, f'backbone.{POSITION_EMBEDDING}')


def resize_position_embedding(embedding: Tensor, grid: tuple[int, int]) -> tuple[Tensor, str]:
    """Returns a position embedding resized to a grid, and a message about the change; '' if nothing changed.

    The resize is bicubic with antialiasing, as in timm. The embedding of the class token stays unchanged. The function
    assumes that the file's grid is square, as in every ImageNet classifier.

    Args:
        embedding: (1, 1 + n * n, C): the class token, then the patches row by row.
        grid: rows and columns.

    Raises:
        UserError: the patches make no square grid.
    """
    patches = embedding.shape[1] - 1
    side = math.isqrt(max(patches, 0))
    if side == 0 or side * side != patches:
        raise UserError(
            f'{POSITION_EMBEDDING} of the checkpoint has {embedding.shape[1]} entries, which are not a class token and '
            'a square grid; it cannot be resized'
        )
    if (side, side) == tuple(grid):
        return embedding, ''
    token, rest = embedding[:, :1], embedding[:, 1:]
    rest = rest.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    rest = F.interpolate(rest, size=tuple(grid), mode='bicubic', antialias=True)
    rest = rest.permute(0, 2, 3, 1).flatten(1, 2).to(embedding.dtype)
    return torch.cat([token, rest], dim=1), f'from {side}x{side} to {grid[0]}x{grid[1]} patches'
