"""Transforms that mmseg lacks."""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ScoreAtInputSize(BaseTransform):
    """Makes the current image size the size that predictions are scored at.

    mmseg resizes logits back to ``ori_shape``, the size of the file. After this transform that is the size of the
    network input, so that a pipeline which resizes image *and* label map scores at the small size. It belongs after
    ``Resize``.
    """

    def transform(self, results: dict) -> dict:
        """Returns ``results`` with ``ori_shape`` set to the image's height and width.

        Raises:
            ValueError: the label map, where there is one, has another size.
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
