"""``mmadv prepare``: check, convert and count a downloaded dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mmadv.commands.command_line import Parser, naming
from mmadv.datasets.prepare import (
    prepare_acdc,
    prepare_ade20k,
    prepare_camvid,
    prepare_cityscapes,
    prepare_cityscapes_c,
    prepare_coco,
    prepare_voc,
)
from mmadv.datasets.prepare.files import need_folder
from mmadv.errors import UserError, nearest

# Datasets that can read their originals from a second folder.
WITH_SOURCE: dict[str, Callable[[Path, Path | None], list[str]]] = {
    'camvid': prepare_camvid,
    'cityscapes-c': prepare_cityscapes_c,
    'voc': prepare_voc,
}
ALONE: dict[str, Callable[[Path], list[str]]] = {
    'acdc': prepare_acdc,
    'ade20k': prepare_ade20k,
    'cityscapes': prepare_cityscapes,
    'coco': prepare_coco,
}


def parser() -> Parser:
    """Returns the parser of ``mmadv prepare``."""
    result = Parser(
        prog='mmadv prepare',
        description='Check, convert and count a downloaded dataset.',
        example='mmadv prepare voc data/VOCdevkit',
    )
    result.add_argument('name', metavar='NAME', help=', '.join(sorted({*WITH_SOURCE, *ALONE})))
    result.add_argument('root', metavar='ROOT', help='folder of the dataset; docs/datasets.md has the layouts')
    result.add_argument(
        '--source',
        metavar='FOLDER',
        help='second folder: SBD for voc, the original files for camvid, Cityscapes for cityscapes-c',
    )
    return result


def run_prepare(argv: Sequence[str]) -> None:
    """Prepares a dataset and prints what the folder holds.

    Args:
        argv: name of the dataset, its folder, and ``--source FOLDER`` for a second folder.

    Raises:
        UserError: the dataset is unknown, or data is missing or broken.
    """
    arguments = parser().parse_args(argv)
    name, root = arguments.name, Path(arguments.root)
    source = None if arguments.source is None else Path(arguments.source)
    if name not in WITH_SOURCE and name not in ALONE:
        raise UserError(f"unknown dataset '{name}'{nearest(name, [*WITH_SOURCE, *ALONE])}")
    if name in ALONE and source is not None:
        raise UserError(
            f'{name} takes no --source: its originals lie in ROOT; only {", ".join(sorted(WITH_SOURCE))} take it'
        )
    # The conversion of CamVid can create its folder. Every other folder must exist, since it holds the originals.
    if source is not None:
        with naming('--source'):
            need_folder(source, name)
    if name != 'camvid' or source is None:
        need_folder(root, name)
    lines = WITH_SOURCE[name](root, source) if name in WITH_SOURCE else ALONE[name](root)
    print('\n'.join(lines))
