"""Miniature datasets in the formats of the originals."""

import json

import numpy as np
from mmseg.datasets import PascalVOCDataset
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.io import savemat
from scipy.sparse import csc_matrix

VOC_NAMES = {
    'train': ['2007_000032', '2007_000039'],
    'val': ['2007_000033', '2007_000042', '2007_000061'],
    # SBD's training set holds an image that VOC trains with, one that VOC validates with, and one that VOC lacks.
    'sbd_train': ['2007_000032', '2007_000042', '2008_000008'],
    'sbd_val': ['2007_000061', '2008_000015'],
}
SIZE = (24, 36)  # height, width


def save_image(path, size=SIZE, colour=(200, 100, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), colour, np.uint8)).save(path)


def save_labels(path, labels, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    if palette is not None:
        image.putpalette(np.array(palette, np.uint8).tobytes())
    image.save(path)


def halves(left, right, size=SIZE):
    labels = np.full(size, left, np.uint8)
    labels[:, size[1] // 2 :] = right
    return labels


def voc_labels():
    """Returns VOC's own kind of label map: an aeroplane with a void border on background."""
    labels = np.zeros(SIZE, np.uint8)
    labels[4:20, 6:30] = 255
    labels[6:18, 8:28] = 1
    return labels


def sbd_struct(labels):
    """Returns the struct GTcls as SBD's MATLAB files hold it: Boundaries, Segmentation, CategoriesPresent."""
    boundaries = np.empty((20, 1), object)
    for index in range(20):
        boundaries[index, 0] = csc_matrix(labels.shape, dtype=bool)
    categories = np.array([[value] for value in np.unique(labels) if value], np.uint8)
    return {'GTcls': {'Boundaries': boundaries, 'Segmentation': labels, 'CategoriesPresent': categories}}


def write_voc(devkit):
    """Writes VOC2012 and VOCaug/dataset below ``devkit``: 7 images; SBD's are half background, half class n + 1."""
    voc, sbd = devkit / 'VOC2012', devkit / 'VOCaug' / 'dataset'
    for name in sorted({name for names in VOC_NAMES.values() for name in names}):
        save_image(voc / 'JPEGImages' / f'{name}.jpg')
    palette = np.zeros((256, 3), np.uint8)
    palette[:21] = PascalVOCDataset.METAINFO['palette']
    for split in ('train', 'val'):
        write_names(voc / 'ImageSets' / 'Segmentation' / f'{split}.txt', VOC_NAMES[split])
        for name in VOC_NAMES[split]:
            save_labels(voc / 'SegmentationClass' / f'{name}.png', voc_labels(), palette)
    (sbd / 'cls').mkdir(parents=True)
    for split in ('train', 'val'):
        write_names(sbd / f'{split}.txt', VOC_NAMES[f'sbd_{split}'])
    for number, name in enumerate(VOC_NAMES['sbd_train'] + VOC_NAMES['sbd_val']):
        savemat(sbd / 'cls' / f'{name}.mat', sbd_struct(halves(0, number + 1)), do_compression=True)
    return devkit


def write_names(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{name}\n' for name in names))


def write_ade20k(root):
    """Writes three training pairs and one validation pair: background and class 150 in halves."""
    for split, count in (('training', 3), ('validation', 1)):
        kind = {'training': 'train', 'validation': 'val'}[split]
        for number in range(1, count + 1):
            name = f'ADE_{kind}_{number:08d}'
            save_image(root / 'images' / split / f'{name}.jpg')
            save_labels(root / 'annotations' / split / f'{name}.png', halves(0, 150))
    return root


def cityscapes_ids():
    """Returns a row of all label ids, 0 to 33, two pixels high."""
    return np.repeat(np.arange(34, dtype=np.uint8)[None], 2, axis=0)


def write_cityscapes(root):
    """Writes two training images of one city and one validation image, annotated by all 34 label ids."""
    for split, city, frames in (('train', 'aachen', (0, 1)), ('val', 'munster', (0,))):
        for frame in frames:
            stem = f'{city}_{frame:06d}_000019'
            save_image(root / 'leftImg8bit' / split / city / f'{stem}_leftImg8bit.png', size=(2, 34))
            folder = root / 'gtFine' / split / city
            save_labels(folder / f'{stem}_gtFine_labelIds.png', cityscapes_ids())
            save_labels(folder / f'{stem}_gtFine_instanceIds.png', np.zeros((2, 34), np.uint8))
    return root


def write_acdc(root):
    """Writes two training images and one validation image of each condition, annotated by all 34 label ids."""
    table = np.full(34, 255, np.uint8)
    table[[7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]] = np.arange(19)
    for condition in ('fog', 'night', 'rain', 'snow'):
        for split, frames in (('train', (37, 88)), ('val', (124,))):
            for frame in frames:
                stem = f'GOPR0475_frame_{frame:06d}'
                place = f'{condition}/{split}/GOPR0475/{stem}'
                save_image(root / 'rgb_anon' / f'{place}_rgb_anon.png', size=(2, 34))
                save_labels(root / 'gt' / f'{place}_gt_labelIds.png', cityscapes_ids())
                save_labels(root / 'gt' / f'{place}_gt_labelTrainIds.png', table[cityscapes_ids()])
                save_labels(root / 'gt' / f'{place}_gt_invIds.png', np.zeros((2, 34), np.uint8))
    return root


def write_cityscapes_c(root, conditions=('fog-3', 'gaussian_noise-1')):
    """Writes the validation image of ``write_cityscapes`` under some conditions, without any label map."""
    for condition in conditions:
        folder = root / condition / 'leftImg8bit' / 'val' / 'munster'
        save_image(folder / 'munster_000000_000019_leftImg8bit.png', size=(2, 34))
    return root


COCO_CATEGORIES = {
    1: 'person', 2: 'bicycle', 3: 'car', 4: 'motorcycle', 5: 'airplane', 6: 'bus', 7: 'train', 8: 'truck', 9: 'boat',
    16: 'bird', 17: 'cat', 18: 'dog', 19: 'horse', 20: 'sheep', 21: 'cow', 44: 'bottle', 62: 'chair', 63: 'couch',
    64: 'potted plant', 67: 'dining table', 72: 'tv',
}  # fmt: skip
COCO_SIZE = (40, 60)


def rectangle(top, left, bottom, right):
    """Returns a polygon in COCO's form around the pixels [top, bottom) x [left, right)."""
    return [float(value) for value in (left, top, right, top, right, bottom, left, bottom)]


def runs(top, left, bottom, right):
    """Returns run lengths of a rectangle as COCO lists them: column by column, beginning with background."""
    covered = np.zeros(COCO_SIZE, np.uint8)
    covered[top:bottom, left:right] = 1
    flat = covered.ravel(order='F')
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, flat.size]).tolist()
    return {'size': list(COCO_SIZE), 'counts': [0, *counts] if flat[0] else counts}


def packed_runs(*corners):
    """Returns run lengths packed into a string, as result files hold them."""
    packed = coco_mask.frPyObjects(runs(*corners), *COCO_SIZE)
    return {'size': packed['size'], 'counts': packed['counts'].decode()}


def coco_object(number, image, category, segmentation, area, crowd=0):
    return {
        'id': number, 'image_id': image, 'category_id': category, 'segmentation': segmentation, 'area': area,
        'iscrowd': crowd, 'bbox': [0, 0, 1, 1],
    }  # fmt: skip


def write_coco(root):
    """Writes two training images and one validation image.

    Training image 9: a crowd of persons (run lengths) over the left 30 columns, a couch (polygon) on rows 10 to 30, a
    cat (packed run lengths) on it and, listed before the couch, a truck, which VOC lacks. Training image 25: a bird of
    16 pixels. Validation: two polygons of one bottle.
    """
    train = [
        coco_object(1, 9, 17, packed_runs(15, 20, 20, 30), 50),
        coco_object(2, 9, 63, [rectangle(10, 10, 30, 50)], 800),
        coco_object(3, 9, 1, runs(0, 0, 40, 30), 1200, crowd=1),
        coco_object(4, 9, 8, [rectangle(0, 0, 40, 60)], 2400),
        coco_object(5, 25, 16, [rectangle(0, 0, 4, 4)], 16),
    ]
    val = [coco_object(6, 139, 44, [rectangle(0, 0, 10, 10), rectangle(20, 20, 30, 30)], 200)]
    for split, images, objects in (('train2017', (25, 9), train), ('val2017', (139,), val)):
        for image in images:
            save_image(root / split / f'{image:012d}.jpg', COCO_SIZE)
        content = {
            'info': {},
            'licenses': [],
            'images': [
                {'id': image, 'file_name': f'{image:012d}.jpg', 'height': COCO_SIZE[0], 'width': COCO_SIZE[1]}
                for image in images
            ],
            'annotations': objects,
            'categories': [
                {'id': number, 'name': name, 'supercategory': 'x'} for number, name in COCO_CATEGORIES.items()
            ],
        }
        path = root / 'annotations' / f'instances_{split}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return root


def write_segnet_camvid(root):
    """Writes SegNet's form: 2 training, 1 validation and 1 test frame with labels 0 to 11."""
    frames = {'train': ('0001TP_006690', '0016E5_00390'), 'val': ('0016E5_07959',), 'test': ('Seq05VD_f00000',)}
    for split, names in frames.items():
        for name in names:
            save_image(root / split / f'{name}.png', (3, 24))
            labels = np.repeat(np.arange(12, dtype=np.uint8), 2)[None].repeat(3, axis=0)
            save_labels(root / f'{split}annot' / f'{name}.png', labels)
    return root


def write_original_camvid(root, colours, names=('0001TP_006690', '0016E5_08159', 'Seq05VD_f02610')):
    """Writes the original form: frames whose columns have the given RGB colours."""
    for name in names:
        save_image(root / '701_StillsRaw_full' / f'{name}.png', (2, len(colours)))
        labels = np.array([colours, colours], np.uint8)
        path = root / 'LabeledApproved_full' / f'{name}_L.png'
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(labels).save(path)
    return root
