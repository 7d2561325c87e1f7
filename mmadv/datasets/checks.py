"""Checks that all files of a dataset exist, before the first file is read."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mmadv.errors import UserError

if TYPE_CHECKING:  # the next class in the list of bases
    from mmseg.datasets import BaseSegDataset as _Dataset
else:
    _Dataset = object


class CheckedFiles(_Dataset):
    """Makes a ``BaseSegDataset`` say in one sentence which folder, list, image or label map is missing.

    Put this class before the dataset in the list of bases.

    Raises:
        UserError: a folder or the list of images is missing or empty, or an image or its label map is missing.
    """

    def load_data_list(self) -> list[dict]:
        """Checks the files and returns the dataset's list, with one dict per image."""
        name = type(self).__name__
        if not self.data_prefix.get('img_path'):
            raise UserError(f"{name}: data_prefix has no 'img_path'; give the folder of the images")
        for key in ('img_path', 'seg_map_path'):
            folder = self.data_prefix.get(key)
            if folder is not None and not osp.isdir(folder):
                raise UserError(
                    f"{name}: the folder '{folder}' does not exist; put the data there or set data_root in the config"
                )
        if self.ann_file and not osp.exists(self.ann_file):
            raise UserError(
                f"{name}: the list of images '{self.ann_file}' does not exist; write it with mmadv prepare or "
                'set ann_file in the config'
            )
        data_list = super().load_data_list()
        if not data_list and self.ann_file:
            raise UserError(f"{name}: the list of images '{self.ann_file}' is empty; write it again")
        if not data_list:
            raise UserError(
                f"{name}: the folder '{self.data_prefix['img_path']}' holds no {self.img_suffix} image; put the data "
                'there or set data_root in the config'
            )
        check_pairs((item['img_path'], item.get('seg_map_path')) for item in data_list)
        return data_list


def check_pairs(pairs: Iterable[tuple[str, str | None]]) -> None:
    """Raises UserError at the first image that is missing or has no label map.

    The check lists every folder once, so it takes only seconds even for COCO's 118 287 images.

    Args:
        pairs: the path of the image, and the path of its label map, or None if the image needs no label map.
    """
    folders = _Folders()
    for image, label_map in pairs:
        if image not in folders:
            raise UserError(f"the image '{image}' does not exist; complete the data or take it out of the list")
        if label_map is not None and label_map not in folders:
            raise UserError(f"the image '{image}' has no label map; expected it at '{label_map}'")


class _Folders:
    """Tells whether paths exist; lists each folder once, when the first path in it is looked up."""

    def __init__(self) -> None:
        self._files: dict[str, frozenset[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, name = osp.split(path)
        if folder not in self._files:
            self._files[folder] = frozenset(os.listdir(folder or '.')) if osp.isdir(folder or '.') else frozenset()
        return name in self._files[folder]
