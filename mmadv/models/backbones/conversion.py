"""Conversion of a public checkpoint to the keys of this project's backbones or of mmseg's segmentors."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmadv.checkpoints.contents import RECORD, convention_of, record_of, weights_of
from mmadv.checkpoints.conventions import convention
from mmadv.checkpoints.families import SOURCES, Source, source
from mmadv.checkpoints.loading import file_sha256, load_checkpoint_file
from mmadv.checkpoints.matching import MatchReport, is_position_embedding, match
from mmadv.checkpoints.trusted import load_trusted_file
from mmadv.errors import UserError, nearest
from mmadv.models.backbones.architectures import (
    ARCHITECTURES,
    CLASSES_AXIS,
    SEGMENTORS,
    build_backbone,
    build_parts,
    fresh_parameters,
    shapes_of,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion:
    """A converted checkpoint.

    Attributes:
        architecture: name in ARCHITECTURES or SEGMENTORS.
        input_convention: the normalisation with which the weights were trained; None if nothing states it.
        who: the source of the input convention, in words.
        report: the report on every key of the file.
        num_classes: the number of classes of a whole segmentor; None for a backbone.
    """

    architecture: str
    input_convention: str | None
    who: str
    report: MatchReport
    num_classes: int | None = None

    def summary(self) -> str:
        """Returns a few lines about the conversion."""
        inputs = (
            f"'{self.input_convention}', {self.who}" if self.input_convention else 'not known; state it in the backbone'
        )
        classes = '' if self.num_classes is None else f' with {self.num_classes} classes'
        return f'{self.architecture}{classes}: {self.report.summary()}\ninput convention: {inputs}'


def convert_file(
    path: str | Path,
    out: str | Path,
    *,
    source_name: str,
    architecture: str | None = None,
    image_size: tuple[int, int] | None = None,
    input_convention: str | None = None,
    trust: bool = False,
) -> Conversion:
    """Writes the weights of a public checkpoint under the network's keys, and returns the conversion.

    Args:
        path: the published file.
        out: the file to write; if the conversion fails, the file stays as it was.
        source_name: a key of ``mmadv.checkpoints.families.SOURCES``.
        architecture: a key of ARCHITECTURES or SEGMENTORS; by default the source's architecture that fits.
        image_size: the height and width for which to resize a ViT's position embedding.
        input_convention: overrules the mean and std that the file and the source state.
        trust: whether reading the file may run code that it holds, in a separate process.

    Raises:
        UserError: a file cannot be read or written, or the checkpoint does not fit.
    """
    family = source(source_name)
    stated = None if input_convention is None else convention(input_convention).name
    if architecture is not None and architecture not in (*ARCHITECTURES, *SEGMENTORS):
        raise UserError(f"unknown architecture '{architecture}'{nearest(architecture, [*ARCHITECTURES, *SEGMENTORS])}")
    path, out = Path(path), Path(out)
    if out.is_dir():
        raise UserError(f'the output {out} is a folder; give the file to write')
    if out.exists() and path.exists() and out.samefile(path):
        raise UserError(f'the output {out} is the input; give another file')
    if not out.parent.is_dir():
        raise UserError(f'the folder of the output {out} does not exist; create it')
    checkpoint = read(path, trust=trust)
    if record_of(checkpoint) is not None:
        raise UserError(f'{path} is a converted checkpoint already; use it as it is')
    conversion = convert(
        weights_of(checkpoint, str(path)), family, architecture=architecture, image_size=image_size, stated=stated,
        file=str(path),
    )  # fmt: skip
    record: dict[str, Any] = dict(
        source=family.name,
        architecture=conversion.architecture,
        input_convention=conversion.input_convention,
        sha256=file_sha256(path),
    )
    if conversion.num_classes is not None:
        record['num_classes'] = conversion.num_classes
    write({'state_dict': conversion.report.weights, 'meta': {RECORD: record}}, out)
    return conversion


def read(path: str | Path, *, trust: bool) -> dict[str, Any]:
    """Returns the content of a checkpoint.

    The function runs code of the checkpoint only if the user trusts the file and it cannot be read without its code.
    """
    try:
        return load_checkpoint_file(path)
    except UserError as error:
        if trust and os.path.isfile(path):
            return load_trusted_file(path)
        if 'holds code' not in str(error):
            raise
        raise UserError(
            f'{error}; if you trust its author, convert it by mmadv convert with --trust, which runs that code'
        ) from error


def convert(
    weights: Mapping[str, Tensor],
    family: Source,
    *,
    architecture: str | None = None,
    image_size: tuple[int, int] | None = None,
    stated: str | None = None,
    file: str = 'the checkpoint',
) -> Conversion:
    """Returns the conversion of a file's weights; the arguments are those of ``convert_file``.

    Raises:
        UserError: the weights fit no architecture of the source; the message lists the gaps to the nearest one.
    """
    name, who = convention_of(weights, family, stated, file)
    candidates = [architecture] if architecture is not None else family.architectures
    best, report = _best(weights, family, candidates, image_size)
    if report.gaps and architecture is None:
        _refuse_other_family(weights, family, image_size, file)
    if image_size is not None and 'vit' not in best.split('_'):
        raise UserError(f'an image size resizes the position embedding of a ViT, and {best} has none; leave it out')
    report.require_complete(file, best if architecture is not None else f'the nearest architecture, {best}')
    # Those are the segmentor's, and start anew.
    report.fresh = {key: why for key, why in report.fresh.items() if key.endswith('num_batches_tracked')}
    report.weights = {key: value.detach().clone() for key, value in report.weights.items()}
    return Conversion(
        architecture=best,
        input_convention=name,
        who=who,
        report=report,
        num_classes=_num_classes(weights, family) if best in SEGMENTORS else None,
    )


def _best(
    weights: Mapping[str, Tensor], family: Source, candidates: Iterable[str], image_size: tuple[int, int] | None
) -> tuple[str, MatchReport]:
    """Returns the candidate with the fewest gaps, and its match report."""
    return min(_reports(weights, family, candidates, image_size), key=lambda pair: pair[1].gaps)


def _refuse_other_family(
    weights: Mapping[str, Tensor], family: Source, image_size: tuple[int, int] | None, file: str
) -> None:
    """Raises UserError if a file fits another source without a gap; the message names that source."""
    fitting = []
    for other in SOURCES.values():
        with contextlib.suppress(UserError):  # two keys map to one: the file is not of that family
            if other != family and not _best(weights, other, other.architectures, image_size)[1].gaps:
                fitting.append(other.name)
    # The other families wrap the networks of timm and torchvision, so they accept bare networks too.
    likely = [name for name in fitting if name in ('timm', 'torchvision')] or fitting
    if likely:
        names = ' or '.join(f"'{name}'" for name in likely)
        raise UserError(
            f"{file} is not a file of the source '{family.name}': its keys and sizes are those of the source {names}; "
            'name that source'
        )


def _reports(
    weights: Mapping[str, Tensor], family: Source, candidates: Iterable[str], image_size: tuple[int, int] | None
) -> Iterator[tuple[str, MatchReport]]:
    """Yields each candidate with its match report, and stops after a candidate without gaps."""
    embedding = next((value for key, value in weights.items() if is_position_embedding(family.map_key(key))), None)
    num_classes = _num_classes(weights, family)
    for name in candidates:
        sized = image_size if 'vit' in name.split('_') else None
        layout = _layout(name, sized, num_classes if name in SEGMENTORS else None)
        shapes = dict(layout.shapes)
        position = next(filter(is_position_embedding, shapes), None)
        if sized is None and embedding is not None and embedding.ndim == 3 and position is not None:
            # Keeps the file's grid. RobustPretrained resizes it to the config's grid.
            shapes[position] = (1, embedding.shape[1], shapes[position][2])
        report = match(weights, family.map_key, shapes, fresh=layout.fresh, grid=layout.grid if sized else None)
        yield name, report
        if not report.gaps:
            return


def _num_classes(weights: Mapping[str, Tensor], family: Source) -> int:
    """Returns the number of classes of a segmentor's file; 3 if the file holds no head of a segmentor."""
    for key, value in weights.items():
        name = family.map_key(key)
        axis = CLASSES_AXIS.get(name) if isinstance(name, str) else None
        if axis is not None and value.ndim > axis:
            return value.shape[axis]
    return 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layout:
    """The sizes of an architecture's weights, and the grid of its position embedding."""

    shapes: Mapping[str, tuple[int, ...]]
    fresh: Mapping[str, str]
    grid: tuple[int, int] | None


@functools.cache
def _layout(name: str, image_size: tuple[int, int] | None, num_classes: int | None) -> _Layout:
    changes = dict(img_size=image_size) if image_size else {}
    if num_classes is not None:
        parts = build_parts(name, num_classes, **changes)
        shapes = {f'{part}.{key}': shape for part, module in parts.items() for key, shape in shapes_of(module).items()}
        return _Layout(shapes=shapes, fresh={}, grid=getattr(parts['backbone'], 'grid_size', None))
    if name not in ARCHITECTURES:
        raise UserError(f"unknown architecture '{name}'{nearest(name, [*ARCHITECTURES, *SEGMENTORS])}")
    with torch.device('meta'):
        backbone = build_backbone(name, **changes)
    grid = getattr(backbone, 'grid_size', None)
    return _Layout(shapes=shapes_of(backbone), fresh=fresh_parameters(backbone), grid=grid)


def write(content: dict[str, Any], out: Path) -> None:
    """Saves a checkpoint atomically: if saving fails, ``out`` stays as it was.

    Raises:
        UserError: the checkpoint cannot be written.
    """
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=out.parent, prefix=f'.{out.name}.')
        with os.fdopen(descriptor, 'wb') as file:
            torch.save(content, file)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, out)
    except (OSError, RuntimeError) as error:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        raise UserError(f'cannot write {out}: {getattr(error, "strerror", None) or error}') from error
