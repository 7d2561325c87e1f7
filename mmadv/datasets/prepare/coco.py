"""COCO 2017 reduced to the 21 classes of PASCAL VOC: label maps drawn from the instances.

The rule for a pixel is as follows. A pixel gets the class of the smallest object of VOC's classes that covers it,
since a small object is rarely behind a large one. If only a crowd region (``iscrowd``, a rough outline of many objects)
covers a pixel, the pixel is void (255). All other pixels are background, including objects of COCO's other 60 classes.

The rule differs from torchvision's reference training, which makes a pixel void if two objects cover it. The paper
"Adversarially robust segmentation models learn perceptually-aligned gradients" starts from that training. mmadv
keeps torchvision's list of training images: images whose objects of VOC's classes have more than 1000 pixels together.
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
from mmseg.datasets import PascalVOCDataset

from mmadv.datasets.prepare.files import VOID, Count, Job, need_folder, prepare_label_maps, write_list
from mmadv.errors import UserError

CLASSES = len(PascalVOCDataset.METAINFO['classes'])
PALETTE = PascalVOCDataset.METAINFO['palette']
SPLITS = {'train2017': 118287, 'val2017': 5000}
# COCO's names of VOC's classes 1 to 20.
NAMES = (
    'airplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'dining table', 'dog',
    'horse', 'motorcycle', 'person', 'potted plant', 'sheep', 'couch', 'train', 'tv',
)  # fmt: skip
LEAST_AREA = 1000


def prepare_coco(root: Path) -> list[str]:
    """Draws the label maps into ``annotations/voc21``, writes the lists, and returns lines that report the result.

    Args:
        root: the folder with ``train2017``, ``val2017`` and ``annotations/instances_*.json``.

    Raises:
        UserError: pycocotools is not installed, or a folder, image or annotation is missing or broken.
    """
    import_masks()
    output = root / 'annotations' / 'voc21'
    report = []
    for split, expected in SPLITS.items():
        need_folder(root / split, f'{split}.zip')
        path = root / 'annotations' / f'instances_{split}.json'
        images, objects = read_instances(path)
        jobs = [
            Job(
                root / split / image['file_name'],
                output / split / f'{Path(image["file_name"]).stem}.png',
                partial(draw_objects, objects[image['id']], image['height'], image['width'], path),
            )
            for image in images
        ]
        report.append(prepare_label_maps(jobs, Count(split, CLASSES, expected), PALETTE).describe())
        chosen = [
            Path(image['file_name']).stem
            for image in images
            if split != 'train2017' or sum(item['area'] for item in objects[image['id']]) > LEAST_AREA
        ]
        report.append(write_list(output / f'{split}.txt', chosen))
    return report


def import_masks() -> ModuleType:
    """Returns the module of pycocotools that draws polygons and run lengths as COCO does."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError("COCO needs pycocotools, which is not installed; pip install 'mmadv[coco]'") from error
    return mask


def read_instances(path: Path) -> tuple[list[dict], dict[int, list[dict]]]:
    """Returns COCO's images, sorted by id, and image id -> its objects of VOC's classes.

    Every object gets the key ``class``, its VOC class.

    Raises:
        UserError: the file is missing, cut short, or lacks one of VOC's classes.
    """
    try:
        content = json.loads(path.read_bytes())
        categories = {item['name']: item['id'] for item in content['categories']}
        images, annotations = content['images'], content['annotations']
    except FileNotFoundError as error:
        raise UserError(f"'{path}' does not exist; unpack annotations_trainval2017.zip there") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is not COCO's file of instances ({error}); fetch it again") from error
    missing = [name for name in NAMES if name not in categories]
    if missing:
        raise UserError(f"'{path}' has no category '{missing[0]}'; name COCO 2017's own file of instances")
    classes = {categories[name]: index for index, name in enumerate(NAMES, 1)}
    objects = defaultdict(list)
    for item in annotations:
        if item['category_id'] in classes:
            objects[item['image_id']].append({**item, 'class': classes[item['category_id']]})
    return sorted(images, key=lambda image: image['id']), objects


def draw_objects(objects: list[dict], height: int, width: int, path: Path) -> np.ndarray:
    """Returns the (height, width) uint8 classes of an image, by the rule in the module's docstring.

    Args:
        objects: COCO's annotations with the key ``class``.
        height: the height of the image.
        width: the width of the image.
        path: the file of instances, for the error message.

    Raises:
        UserError: an outline cannot be drawn.
    """
    labels = np.zeros((height, width), np.uint8)
    for item in sorted(objects, key=lambda item: (-item['iscrowd'], -item['area'], item['id'])):
        try:
            covered = draw_outline(item['segmentation'], height, width)
        except Exception as error:  # pycocotools raises plain Exception
            raise UserError(
                f"'{path}': the outline of annotation {item['id']} cannot be drawn ({error}); fetch the file again"
            ) from error
        labels[covered] = VOID if item['iscrowd'] else item['class']
    return labels


def draw_outline(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """Returns the (height, width) bool pixels of a COCO segmentation.

    Args:
        segmentation: polygons, run lengths as a list, or run lengths packed into a string.
        height: the height of the image.
        width: the width of the image.
    """
    mask = import_masks()
    if isinstance(segmentation, list):
        runs = mask.merge(mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation['counts'], list):
        runs = mask.frPyObjects(segmentation, height, width)
    else:
        runs = segmentation
    covered = mask.decode(runs).astype(bool)
    if covered.shape != (height, width):
        raise ValueError(f'it is drawn for {covered.shape[1]}x{covered.shape[0]}, the image is {width}x{height}')
    return covered
