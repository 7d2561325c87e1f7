"""Checks Cityscapes-C: Cityscapes' validation images, one folder for each corruption and severity."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from mmadv.datasets.prepare.cityscapes import CLASSES, IMAGE_SUFFIX, PALETTE, SPLITS, train_ids
from mmadv.datasets.prepare.files import Count, Job, files_with_suffix, image_size, prepare_label_maps
from mmadv.errors import UserError

# The name of a folder, such as fog-3.
CONDITION = re.compile(r'[a-z][a-z_]*-[1-5]')
IMAGES = 'leftImg8bit/val'


def prepare_cityscapes_c(root: Path, source: Path | None = None) -> list[str]:
    """Writes the missing label maps, which all conditions share, and returns lines that report the result.

    Args:
        root: the folder with ``CORRUPTION-SEVERITY/leftImg8bit/val``, and ``gtFine/val`` unless ``source`` has it.
        source: the folder of Cityscapes, with ``gtFine/val``; None for ``root``.

    Raises:
        UserError: there is no condition, the conditions have different images, or a file is missing or broken.
    """
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and CONDITION.fullmatch(path.name))
    if not names:
        raise UserError(
            f"the folder '{root}' has no folder such as fog-3, the name of a corruption and a severity from 1 to 5; "
            'put the images of each there, below leftImg8bit/val'
        )
    first, *others = names
    images = {name: _images(root / name / IMAGES) for name in names}
    jobs = []
    for place, image in images[first].items():
        stem = str(place).removesuffix(IMAGE_SUFFIX)
        ids = (source or root) / 'gtFine' / 'val' / f'{stem}_gtFine_labelIds.png'
        output = root / 'gtFine' / 'val' / f'{stem}_gtFine_labelTrainIds.png'
        jobs.append(Job(image, output, partial(train_ids, ids), ids))
    count = prepare_label_maps(jobs, Count(first, CLASSES, SPLITS['val']), PALETTE)
    sizes = {place: image_size(image) for place, image in images[first].items()}
    for name in others:
        _check_same(images[name], sizes, f"'{root / name}'", f"'{root / first}'")
    return [count.describe(), *(f'{name}: the same images' for name in others)]


def _images(folder: Path) -> dict[Path, Path]:
    """Returns the path below a folder -> path, for each image of Cityscapes in it."""
    return {path.relative_to(folder): path for path in files_with_suffix(folder, IMAGE_SUFFIX, 'the corrupted images')}


def _check_same(images: dict[Path, Path], sizes: dict[Path, tuple[int, int]], name: str, first: str) -> None:
    missing, more = sorted(sizes.keys() - images.keys()), sorted(images.keys() - sizes.keys())
    if missing or more:
        owner, place = (name, missing[0]) if missing else (first, more[0])
        raise UserError(f'{owner} lacks the image {place}, which {first if missing else name} has; add or remove it')
    for place, size in sizes.items():
        if image_size(images[place]) != size:
            raise UserError(f"the image '{images[place]}' has another size than in {first}; corrupt it again")
