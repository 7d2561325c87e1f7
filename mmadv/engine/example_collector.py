"""The images of an evaluation that are drawn: their choice and their arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from mmengine.dist import all_gather_object
from torch import Tensor

from mmadv.engine.predictor import PredictedGroup
from mmadv.evaluation.extremes import Extremes, robustness, robustness_of_record
from mmadv.evaluation.image_record import ImageRecord
from mmadv.evaluation.result_store import ResultStore
from mmadv.report.pictures import Example

SAMPLE = 'sample'
# Smallest difference of channel means, in grey levels, that decides between the orders RGB and BGR.
CLEAR_DIFFERENCE = 2.0
COMPARED_IMAGES = 5


class ExampleCollector:
    """Arrays of the images that are drawn: a fixed sample, and the least and the most robust images.

    Args:
        sample: indexes of the images that are drawn in any case.
        extremes: number of the least robust images, and of the most robust images.
        rgb: True if images come as RGB, False if they come as BGR.
    """

    def __init__(self, sample: Iterable[int], extremes: int, *, rgb: bool) -> None:
        self.sample = set(sample)
        self.extremes = Extremes(extremes)
        self.rgb = rgb
        self.examples: dict[int, Example] = {}

    @property
    def kinds(self) -> dict[int, str]:
        """Returns index -> reason why the image is drawn, as far as known so far, in order of the index."""
        kinds = {**dict.fromkeys(self.sample, SAMPLE), **self.extremes.kinds()}
        return {index: kinds[index] for index in sorted(kinds)}

    def adopt(self, records: Mapping[int, ImageRecord], store: ResultStore) -> set[int]:
        """Takes the stored examples of finished images; returns the indexes of images whose arrays the store lacks.

        All processes must call this method together, each with its own view of the store.

        Args:
            records: index -> record, of all processes.
            store: store that holds the arrays.
        """
        for index, record in records.items():
            self.extremes.offer(index, robustness_of_record(record))
        wanted = [index for index in self.kinds if index in records]
        arrays = {index: store.load_arrays(_name(index)) for index in wanted}
        own = [(index, Example.from_arrays(saved)) for index, saved in arrays.items() if saved is not None]
        pairs = [pair for part in all_gather_object(own) for pair in part]
        # Arrays keep their old index; another image has this index if images were taken out of the data.
        self.examples = {index: example for index, example in pairs if example.name == records[index].image}
        return {index for index in wanted if index not in self.examples}

    def start(self, samples: Sequence[Any], predicted: PredictedGroup) -> dict[int, Example]:
        """Returns position -> example, for the images of a group that are kept; the attacks are added later."""
        right = [_correct(worst.worst, predicted) for worst in predicted.attacked.values()]
        right = right or [_correct(predicted.clean, predicted)]
        valid = (predicted.labels != predicted.ignore_index).flatten(1).sum(1).tolist()
        chosen = {}
        for i, sample in enumerate(samples):
            index = sample.metainfo['sample_idx']
            if self.extremes.offer(index, robustness((row[i] for row in right), valid[i])) or index in self.sample:
                chosen[i] = self.examples[index] = Example(
                    index=index,
                    name=sample.metainfo['image_name'],
                    image=displayed(predicted.images[i], self.rgb),
                    label=predicted.labels[i].numpy(),
                    clean=predicted.clean[i].numpy(),
                )
        return chosen

    def keep(self, indexes: Iterable[int], store: ResultStore | None) -> None:
        """Drops examples that are no longer extremes, and writes the examples of the given images to the store."""
        kinds = self.kinds
        self.examples = {index: example for index, example in self.examples.items() if index in kinds}
        if store is None:
            return
        for index in self.examples.keys() & set(indexes):
            store.save_arrays(_name(index), self.examples[index].to_arrays())

    def gather(self) -> list[Example]:
        """Returns the examples of all processes, in order of the index; afterwards ``kinds`` covers all processes."""
        for part in all_gather_object(self.extremes.values):
            for index, value in part.items():
                self.extremes.offer(index, value)
        kinds = self.kinds
        examples = {index: example for part in all_gather_object(self.examples) for index, example in part.items()}
        return [examples[index] for index in sorted(examples) if index in kinds]


def displayed(image: Tensor, rgb: bool) -> np.ndarray:
    """Returns an RGB or BGR image (C, h, w) as (h, w, 3) RGB; if C is not 3, the first channel is shown as grey."""
    pixels = image.detach().float().cpu().permute(1, 2, 0).numpy()
    if pixels.shape[2] != 3:
        return pixels[:, :, :1].repeat(3, axis=2)
    return pixels if rgb else pixels[:, :, ::-1].copy()


def loads_rgb(config: Any, dataset: Any) -> bool:
    """Returns whether the pipeline of a dataset gives RGB images; OpenMMLab's loaders give BGR.

    The function compares the first images with their files; the first image whose channels differ enough decides. If
    no image decides, the config's preprocessor does.
    """
    for index in range(min(len(dataset), COMPARED_IMAGES)):
        path = dataset.get_data_info(index).get('img_path') if hasattr(dataset, 'get_data_info') else None
        pixels = cv2.imread(path) if path is not None and os.path.isfile(path) else None
        if pixels is None:  # no readable file to compare with
            continue
        try:
            loaded = dataset[index]['inputs'].double().mean((1, 2)).numpy()
        except Exception:  # the error is raised when the image is attacked
            continue
        if len(loaded) != 3:
            continue
        bgr = pixels.reshape(-1, 3).mean(0)
        as_bgr, as_rgb = np.abs(loaded - bgr).sum(), np.abs(loaded - bgr[::-1]).sum()
        if abs(as_bgr - as_rgb) > CLEAR_DIFFERENCE:
            return bool(as_rgb < as_bgr)
    preprocessor = (config.get('model') or {}).get('data_preprocessor') or config.get('data_preprocessor') or {}
    return bool(isinstance(preprocessor, Mapping) and preprocessor.get('rgb_to_bgr'))


def _correct(predictions: Tensor, predicted: PredictedGroup) -> list[int]:
    valid = predicted.labels != predicted.ignore_index
    return ((predictions == predicted.labels) & valid).flatten(1).sum(1).tolist()


def _name(index: int) -> str:
    return f'example-{index:08d}'
