"""Tables that take the numbers apart: by class, by the size of the labelled objects, and by image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from mmadv.report.evaluation import Evaluation, ImageResult
from mmadv.report.table import Cell, Table, classes_table, percent


def size_names(edges: Sequence[float]) -> list[str]:
    """Returns the names of the object sizes, as shares of the image.

    >>> size_names([0.001, 0.01])
    ['below 0.1 %', '0.1 to 1 %', '1 % and more']
    """
    texts = [f'{100 * edge:g}' for edge in edges]
    between = [f'{low} to {high} %' for low, high in pairwise(texts)]
    return [f'below {texts[0]} %', *between, f'{texts[-1]} % and more']


def object_size_table(evaluation: Evaluation) -> Table | None:
    """Returns accuracy by object size in percent, None where it is not known.

    Two columns for each radius: the share of the pixels of such objects that is correct, and the mean over the objects
    of their own share.
    """
    sizes = evaluation.object_sizes
    if sizes is None:
        return None
    header = ['object size', 'number']
    columns = []
    for radius, accuracies in sizes.columns.items():
        header += [f'pixels {radius}', f'objects {radius}']
        columns += [accuracies.pixels, accuracies.objects]
    rows = tuple(
        (name, str(sizes.objects[n]), *(percent(column[n]) for column in columns))
        for n, name in enumerate(size_names(sizes.edges))
    )
    caption = 'accuracy by size of the labelled region, as a share of the image; %'
    return Table(tuple(header), rows, text_columns=1, caption=caption)


def write_breakdowns(folder: Path, evaluation: Evaluation) -> None:
    """Writes ``per_class.csv`` and, where it is known, ``object_sizes.csv``: fractions, empty where undefined."""
    classes_table(evaluation, fractions=True).write_csv(folder / 'per_class.csv')
    sizes = evaluation.object_sizes
    if sizes is None:
        return
    header = ['object size', 'objects', 'pixels']
    columns = []
    for radius, accuracies in sizes.columns.items():
        header += [f'aAcc {radius}', f'object_mean {radius}']
        columns += [accuracies.pixels, accuracies.objects]
    rows = tuple(
        (name, sizes.objects[n], sizes.pixels[n], *(column[n] for column in columns))
        for n, name in enumerate(size_names(sizes.edges))
    )
    Table(tuple(header), rows, text_columns=1).write_csv(folder / 'object_sizes.csv')


def images_table(images: Sequence[ImageResult]) -> Table:
    """Returns one row for each image: its accuracies, clean and by radius and attack, and the passes they took."""
    header = ['index', 'image', 'valid_pixels', 'clean']
    for radius, result in images[0].attacked.items() if images else ():
        members = result.members if len(result.members) > 1 else ()
        columns = (*members, 'worst_case', 'worst_member', 'forward_passes', 'backward_passes')
        header += [f'{radius} {name}' for name in columns]
    return Table(tuple(header), tuple(map(_image_row, images)), text_columns=2)


def _image_row(image: ImageResult) -> tuple[Cell, ...]:
    row: list[Cell] = [image.index, image.image, image.valid_pixels, image.clean]
    for result in image.attacked.values():
        row += result.members.values() if len(result.members) > 1 else ()
        row += [result.worst_case, result.worst_member, result.forward_passes, result.backward_passes]
    return tuple(row)
