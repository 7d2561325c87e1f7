"""Makes digit scenes whose classes are split by place, for any number of classes without other data.

    python benchmarks/cell_classes.py

trains the models of benchmarks/configs/, a PSPNet with 21 and one with 151 classes, for docs/annealed_margin.md. The
class of a digit's pixel is its digit together with the image cell that contains it. With the background, 2 cells make
21 classes, and 15 cells make 151.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import DATASETS, TRANSFORMS

from mmadv.commands.training import run_train
from mmadv.datasets.digit_scenes import DigitScenesDataset

ROOT = Path(__file__).resolve().parents[1]
MODELS = ('pspnet_21_classes', 'pspnet_151_classes')
DIGITS = 10


@DATASETS.register_module(force=True)  # configs import what a script has run already
class SplitDigitScenesDataset(DigitScenesDataset):
    """Digit scenes whose digits are split by cell.

    Args:
        cells: (rows, columns).
        kwargs: of ``DigitScenesDataset``, but for the classes and the pipeline.
    """

    METAINFO: dict = {}

    def __init__(self, cells: Sequence[int], **kwargs: Any) -> None:
        rows, columns = cells
        digits = (f'digit {digit} in cell {cell}' for cell in range(rows * columns) for digit in range(DIGITS))
        classes = ('background', *digits)
        palette = [[index, index, index] for index in range(len(classes))]
        split = {'type': 'SplitDigitsByCell', 'cells': cells}
        kwargs['pipeline'] = [{'type': 'LoadDigitScene'}, split, {'type': 'PackSegInputs'}]
        super().__init__(metainfo={'classes': classes, 'palette': palette}, **kwargs)


@TRANSFORMS.register_module(force=True)
class SplitDigitsByCell(BaseTransform):
    """Splits every class but the background by the cell of the label map that the pixel lies in.

    Class c of cell k becomes c + 10 k; cells count row by row.

    Args:
        cells: (rows, columns).
    """

    def __init__(self, cells: Sequence[int]) -> None:
        self.rows, self.columns = cells

    def transform(self, results: dict) -> dict:
        """Changes ``gt_seg_map``, (H, W) uint8."""
        labels = results['gt_seg_map']
        height, width = labels.shape
        row = np.arange(height)[:, None] * self.rows // height
        column = np.arange(width)[None] * self.columns // width
        cell = row * self.columns + column
        results['gt_seg_map'] = np.where(labels == 0, 0, labels + DIGITS * cell).astype(np.uint8)
        return results


def main() -> None:
    """Trains the models that are not trained yet."""
    for name in MODELS:
        folder = ROOT / 'work_dirs/cell_classes' / name
        if not (folder / 'iter_600.pth').is_file():
            run_train([str(ROOT / f'benchmarks/configs/{name}.py'), '--work-dir', str(folder)])


if __name__ == '__main__':
    main()
