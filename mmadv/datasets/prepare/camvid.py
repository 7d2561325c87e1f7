"""Prepares CamVid from any of its three forms: the layout of the configs, SegNet's form, or the original 32 colours.

The grouping into 11 classes and the split come from Badrinarayanan, Kendall, Cipolla, "SegNet", 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from mmadv.datasets.camvid import CamVidDataset
from mmadv.datasets.prepare.files import (
    VOID,
    Count,
    Job,
    files_with_suffix,
    need_folder,
    prepare_label_maps,
    read_colours,
    read_label_map,
    write_whole,
)
from mmadv.errors import UserError

CLASSES = len(CamVidDataset.METAINFO['classes'])
PALETTE = CamVidDataset.METAINFO['palette']
SPLITS = {'train': 367, 'val': 101, 'test': 233}
SEGNET_VOID = 11
RAW, LABELLED = '701_StillsRaw_full', 'LabeledApproved_full'
MOST_STRAY = 0.01

# Class among the 11 -> the original classes that belong to it, with their RGB colours. The original has 32 classes.
COLOURS = {
    'sky': {'Sky': (128, 128, 128)},
    'building': {
        'Archway': (192, 0, 128),
        'Bridge': (0, 128, 64),
        'Building': (128, 0, 0),
        'Tunnel': (64, 0, 64),
        'Wall': (64, 192, 0),
    },
    'pole': {'Column_Pole': (192, 192, 128), 'TrafficCone': (0, 0, 64)},
    'road': {'LaneMkgsDriv': (128, 0, 192), 'LaneMkgsNonDriv': (192, 0, 64), 'Road': (128, 64, 128)},
    'pavement': {'ParkingBlock': (64, 192, 128), 'RoadShoulder': (128, 128, 192), 'Sidewalk': (0, 0, 192)},
    'tree': {'Tree': (128, 128, 0), 'VegetationMisc': (192, 192, 0)},
    'signsymbol': {'Misc_Text': (128, 128, 64), 'SignSymbol': (192, 128, 128), 'TrafficLight': (0, 64, 64)},
    'fence': {'Fence': (64, 64, 128)},
    'car': {
        'Car': (64, 0, 128),
        'OtherMoving': (128, 64, 64),
        'SUVPickupTruck': (64, 128, 192),
        'Train': (192, 64, 128),
        'Truck_Bus': (192, 128, 192),
    },
    'pedestrian': {
        'Animal': (64, 128, 64),
        'CartLuggagePram': (64, 0, 192),
        'Child': (192, 128, 64),
        'Pedestrian': (64, 64, 0),
    },
    'bicyclist': {'Bicyclist': (0, 128, 192), 'MotorcycleScooter': (192, 0, 192)},
}
VOID_COLOUR = (0, 0, 0)


def prepare_camvid(root: Path, source: Path | None = None) -> list[str]:
    """Converts CamVid into the layout of the configs if needed, checks it, and returns lines that report the result.

    Args:
        root: the folder that holds, or will hold, ``images/{train,val}`` and ``annotations/{train,val}``.
        source: the folder of SegNet's form (``train``, ``trainannot``, ...) or of the original
            (``701_StillsRaw_full``, ``LabeledApproved_full``); the root by default.

    Raises:
        UserError: no form is found, or an image or label map is missing or broken.
    """
    origin = root if source is None else source
    strays: dict[str, int] = {}
    if (origin / 'trainannot').is_dir():
        frames = list(segnet_frames(origin))
    elif (origin / LABELLED).is_dir():
        frames = list(original_frames(origin, strays))
    elif source is None and (root / 'images').is_dir():
        frames = list(layout_frames(root))
    else:
        raise UserError(
            f"'{origin}' holds no CamVid: neither images/train, nor SegNet's trainannot, nor {LABELLED}; unpack it "
            'there, or name its folder as the source'
        )
    report = []
    for split, expected in SPLITS.items():
        jobs = [place(root, split, *frame) for kind, *frame in frames if kind == split]
        if jobs:
            report.append(prepare_label_maps(jobs, Count(split, CLASSES, expected), PALETTE).describe())
    if strays:
        report.append(f'{sum(strays.values())} pixels of {len(strays)} files have no colour of CamVid and are void')
    suffixes = sorted({image.suffix for _, image, *_ in frames} - {'.jpg'})
    if suffixes:
        keys = ' '.join(f'{which}_dataloader.dataset.img_suffix={suffixes[0]}' for which in ('train', 'val', 'test'))
        report.append(f'the images are {suffixes[0]}; set {keys} in the config')
    return report


def layout_frames(root: Path) -> Iterator[tuple]:
    """Yields (split, image, name, make, original) for the layout of the configs; make and original are None."""
    for split in SPLITS:
        folder = root / 'images' / split
        if split == 'test' and not folder.is_dir():  # the configs do not use it
            continue
        need_folder(folder, 'CamVid')
        need_folder(root / 'annotations' / split, 'CamVid')
        images = sorted(path for path in folder.iterdir() if path.suffix in ('.jpg', '.png'))
        if not images:
            raise UserError(f"the folder '{folder}' holds no .jpg or .png; put the frames there")
        for image in images:
            yield split, image, image.stem, None, None


def segnet_frames(origin: Path) -> Iterator[tuple]:
    """Yields (split, image, name, make, original) for SegNet's form."""
    for split in SPLITS:
        if split == 'test' and not (origin / split).is_dir():
            continue
        need_folder(origin / f'{split}annot', "SegNet's CamVid")
        for image in files_with_suffix(origin / split, '.png', "SegNet's CamVid"):
            original = origin / f'{split}annot' / image.name
            yield split, image, image.stem, partial(from_segnet, original), original


def original_frames(origin: Path, strays: dict[str, int]) -> Iterator[tuple]:
    """Yields (split, image, name, make, original) for the original form, with SegNet's split.

    Args:
        origin: the folder of the original form.
        strays: gets file name -> number of pixels of unknown colour, for each file that has such pixels.
    """
    for image in files_with_suffix(origin / RAW, '.png', f'{RAW}.zip'):
        original = origin / LABELLED / f'{image.stem}_L.png'
        yield segnet_split(image), image, image.stem, partial(from_colours, original, strays), original


def segnet_split(image: Path) -> str:
    """Returns SegNet's split of an original frame: 'train', 'val' or 'test'.

    The drive and the frame number decide. The validation set is the day drive 0016E5 from frame 7959 to 8159. The test
    set is Seq05VD and the frames of 0001TP after frame 8520. All other frames are the training set.

    >>> segnet_split(Path('0016E5_07961.png')), segnet_split(Path('0006R0_f00930.png'))
    ('val', 'train')
    """
    drive, _, frame = image.stem.partition('_')
    number = int(frame.removeprefix('f')) if frame.removeprefix('f').isdigit() else None
    if drive not in ('0001TP', '0006R0', '0016E5', 'Seq05VD') or number is None:
        raise UserError(f"'{image}' is not a frame of CamVid's four drives; take it out of the folder")
    if drive == 'Seq05VD' or (drive == '0001TP' and number > 8520):
        return 'test'
    return 'val' if drive == '0016E5' and 7959 <= number <= 8159 else 'train'


def place(
    root: Path, split: str, image: Path, name: str, make: Callable[[], np.ndarray] | None, original: Path | None
) -> Job:
    """Copies a frame's image unchanged into the layout of the configs if needed, and returns the frame's job."""
    if make is None:
        return Job(image, root / 'annotations' / split / f'{name}.png')
    output = root / 'images' / split / image.name
    other = output.with_suffix('.jpg')
    if other != output and other.exists():
        raise UserError(f"'{other}' is there already and '{image}' is the same frame; remove it or choose another root")
    if not output.exists():
        write_whole(output, image.read_bytes())
    return Job(output, root / 'annotations' / split / f'{name}.png', make, original)


def from_segnet(path: Path) -> np.ndarray:
    """Returns the (H, W) uint8 classes of SegNet's label map, in which void is 11."""
    labels = read_label_map(path)
    return np.where(labels == SEGNET_VOID, np.uint8(VOID), labels)


def from_colours(path: Path, strays: dict[str, int]) -> np.ndarray:
    """Returns the (H, W) uint8 classes of an original label map in 32 colours.

    Args:
        path: the path of the label map.
        strays: gets file name -> number of pixels of unknown colour, if there are any. These pixels become void.

    Raises:
        UserError: more than one pixel in a hundred has an unknown colour.
    """
    colours = read_colours(path).astype(np.int64) @ (65536, 256, 1)
    known, classes = _colour_table()
    index = np.searchsorted(known, colours).clip(max=len(known) - 1)
    labels, stray = classes[index], known[index] != colours
    if stray.mean() > MOST_STRAY:
        value = int(colours[stray][0])
        raise UserError(
            f"the label map '{path}' holds the colour {(value >> 16, value >> 8 & 255, value & 255)}, which is none of "
            "CamVid's 32; fetch it again"
        )
    if stray.any():
        strays[path.name] = int(stray.sum())
    return np.where(stray, np.uint8(VOID), labels)


def _colour_table() -> tuple[np.ndarray, np.ndarray]:
    """Returns the 32 colours as red * 65536 + green * 256 + blue, ascending, and the class of each."""
    table = {VOID_COLOUR: VOID}
    for name, members in COLOURS.items():
        table.update(dict.fromkeys(members.values(), CamVidDataset.METAINFO['classes'].index(name)))
    codes = sorted((red << 16 | green << 8 | blue, value) for (red, green, blue), value in table.items())
    return np.array([code for code, _ in codes]), np.array([value for _, value in codes], np.uint8)
