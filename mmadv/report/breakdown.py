"""The table of a run's images."""

from __future__ import annotations

from collections.abc import Sequence

from mmadv.report.evaluation import ImageResult
from mmadv.report.table import Cell, Table


def images_table(images: Sequence[ImageResult]) -> Table:
    """Returns one row for each image: its accuracies (clean, then by radius and attack) and the attack's passes."""
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
