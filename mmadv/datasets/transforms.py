"""Transforms that mmseg lacks."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmadv.errors import UserError
from mmadv.fields import Label, Positive, checked


@TRANSFORMS.register_module()
@checked
class ScoreAtInputSize(BaseTransform):
    """Makes mmseg score predictions at the current image size.

    mmseg resizes logits back to ``ori_shape``, the size of the file. After this transform, ``ori_shape`` is the size of
    the network input. So a pipeline that resizes image *and* label map scores at the small size. Put this transform
    after ``Resize``.
    """

    def transform(self, results: dict) -> dict:
        """Returns ``results`` with ``ori_shape`` set to the image's height and width.

        Raises:
            ValueError: there is a label map, and its size is not the image's.
        """
        shape = results['img'].shape[:2]
        label_map = results.get('gt_seg_map')
        if label_map is not None and label_map.shape[:2] != shape:
            raise ValueError(
                f'ScoreAtInputSize needs a label map resized with the image; the image is {shape}, the label map '
                f'{label_map.shape[:2]}: load annotations before Resize'
            )
        results['ori_shape'] = shape
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
@checked
class ResizeShortSide(BaseTransform):
    """Resizes the image and the label maps so that the short side has a given length.

    The image is resized with PIL's bilinear filter, label maps with nearest neighbour. PIL's filter is antialiased when
    it shrinks an image. OpenCV's filter, which mmseg's ``Resize`` uses by default, is not. The long side is rounded
    down. Many torchvision-style code bases publish their evaluation with this resize, SEA's among them.

    Args:
        size: the length of the short side in pixels.

    Raises:
        UserError: the size is not a positive integer.
    """

    def __init__(self, size: Positive) -> None:
        self.size = size

    def transform(self, results: dict) -> dict:
        """Returns ``results`` with ``img`` and every label map resized.

        Raises:
            UserError: the image is not 8-bit.
        """
        image = results['img']
        if image.dtype != np.uint8:
            raise UserError(f'ResizeShortSide needs images of type uint8, found {image.dtype}; put it after loading')
        height, width = image.shape[:2]
        shorter = min(height, width)
        shape = (height * self.size // shorter, width * self.size // shorter)
        results['img'] = _resized(image, shape, Image.Resampling.BILINEAR)
        for key in results.get('seg_fields', []):
            results[key] = _resized(results[key], shape, Image.Resampling.NEAREST)
        results['img_shape'] = shape
        results['scale'] = shape[::-1]
        results['scale_factor'] = (shape[1] / width, shape[0] / height)
        results['keep_ratio'] = True
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size})'


def _resized(array: np.ndarray, shape: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    return np.array(Image.fromarray(array).resize(shape[::-1], resample))


@TRANSFORMS.register_module()
@checked
class VoidToClass(BaseTransform):
    """Gives the void pixels of a label map a class, so that they are scored.

    Some published numbers count VOC's object borders as background. Put this transform after ``LoadAnnotations``.

    Args:
        label: the class that void pixels get.
        void: the value of void pixels in the label map.

    Raises:
        UserError: a value is not an 8-bit label, or the two values are equal.
    """

    def __init__(self, label: Label = 0, void: Label = 255) -> None:
        if label == void:
            raise UserError(f'VoidToClass: label and void are both {label}, which changes nothing; give another label')
        self.label = label
        self.void = void

    def transform(self, results: dict) -> dict:
        """Returns ``results`` with the label map's void pixels replaced."""
        labels = results['gt_seg_map']
        results['gt_seg_map'] = np.where(labels == self.void, labels.dtype.type(self.label), labels)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(label={self.label}, void={self.void})'
