"""Checked conversion of mmseg's batches (lists of tensors and data samples) to images and labels for an attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.structures import SegDataSample
from torch import Tensor

from mmadv.errors import UserError
from mmadv.fields import Filled, checked
from mmadv.shapes import NUMBERS, Shaped

LoadedImage = Annotated[Tensor, Shaped('C H W', NUMBERS)]


@checked
def sample_names(data_samples: Sequence[SegDataSample]) -> list[str]:
    """Returns the name of each sample for messages: its image file, or its position in the batch."""
    return [
        str(sample.metainfo.get('img_path') or f'image {index} of the batch')
        for index, sample in enumerate(data_samples)
    ]


def check_pixels(inputs: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raises UserError that names the first image with a value outside [0, 255] or a NaN."""
    for image, name in zip(inputs, names, strict=True):
        if image.dtype == torch.uint8:
            continue
        lowest, highest = (float(bound) for bound in torch.aminmax(image.double()))
        if not (lowest >= 0 and highest <= 255):
            advice = 'take normalisation out of the pipeline, the data preprocessor does it'
            if not image.is_floating_point():
                advice = f'convert the {str(image.dtype).removeprefix("torch.")} image to 8 bits'
            raise UserError(
                f'{name}: pixels must be in [0, 255]; found values from {lowest:g} to {highest:g}; {advice}'
            )


def check_channels(inputs: Sequence[Tensor], names: Sequence[str], preprocessor: SegDataPreProcessor) -> None:
    """Raises UserError that names the first image with other channels than the data preprocessor normalises.

    An image of one channel passes, because mmseg repeats its channel once for each mean.
    """
    channels = preprocessor.mean.numel() if preprocessor._enable_normalize else 1
    for image, name in zip(inputs, names, strict=True):
        if channels > 1 and image.shape[0] not in (1, channels):
            raise UserError(
                f'{name}: the image has {image.shape[0]} channels, and the data_preprocessor has mean and std for '
                f"{channels}; set color_type='color' in LoadImageFromFile, or take the alpha channel out of the file"
            )


def check_not_scaled(inputs: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raises UserError that names the first float image that was already divided by 255.

    The radius of an attack would be wrong by the factor 255 on such an image.

    Args:
        inputs: (C, h, w) tensors from the pipeline.
        names: the names of the images in messages.
    """
    for image, name in zip(inputs, names, strict=True):
        if image.is_floating_point() and image.max() <= 1 and bool((image != image.round()).any()):
            raise UserError(
                f'{name}: pixels must be in [0, 255]; found values from {float(image.min()):g} to '
                f'{float(image.max()):g}; take scaling and normalisation out of the pipeline'
            )


def check_labels(labels: Sequence[Tensor], names: Sequence[str], num_classes: int, ignore_index: int) -> None:
    """Raises UserError that names the first image with a label that is neither a class nor ``ignore_index``."""
    for label, name in zip(labels, names, strict=True):
        wrong = (label != ignore_index) & ((label < 0) | (label >= num_classes))
        if bool(wrong.any()):
            values = torch.unique(label[wrong]).tolist()
            listed = ', '.join(map(str, values[:5])) + (', ...' if len(values) > 5 else '')
            raise UserError(
                f'{name}: labels must be below {num_classes}, the number of classes, or {ignore_index}, which is '
                f'ignored; found {listed}; check num_classes, reduce_zero_label and the label files'
            )


def label_maps(data_samples: Sequence[SegDataSample]) -> list[Tensor]:
    """Returns each sample's label map, (H, W) int64.

    Raises:
        UserError: a sample has no label map, or its label map has more than one channel.
    """
    maps = []
    for sample, name in zip(data_samples, sample_names(data_samples), strict=True):
        if 'gt_sem_seg' not in sample:
            raise UserError(f'{name}: there are no labels to attack; add LoadAnnotations to the pipeline')
        data = sample.gt_sem_seg.data
        if data.ndim != 3 or len(data) != 1:
            raise UserError(f'{name}: labels must be of shape (1, H, W); found {tuple(data.shape)}')
        maps.append(data[0].long())
    return maps


@checked
def stack_labels(data_samples: Annotated[Sequence[SegDataSample], Filled()]) -> Tensor:
    """Returns the label maps of a batch as (N, H, W) int64.

    Raises:
        UserError: a sample has no labels, or the label maps differ in size.
    """
    maps = label_maps(data_samples)
    _check_equal_sizes(maps, sample_names(data_samples), 'label maps')
    return torch.stack(maps)


@checked
def stack_images(
    inputs: Annotated[Sequence[LoadedImage], Filled()], data_samples: Sequence[SegDataSample] | None = None
) -> Tensor:
    """Returns a batch's images as (N, C, H, W) in [0, 1], in the channel order and on the device of the inputs.

    Dividing by 255 and multiplying by 255 gives all 256 byte values back exactly.

    Args:
        inputs: (C, H, W) tensors, uint8 or float, in [0, 255], before normalisation.
        data_samples: the data samples of the batch; only messages use their names.

    Raises:
        UserError: a value is outside [0, 255], or the images differ in size.
    """
    names = (
        [f'image {i} of the batch' for i in range(len(inputs))] if data_samples is None else sample_names(data_samples)
    )
    if len(names) != len(inputs):
        raise UserError(f'stack_images: {len(inputs)} inputs need as many data_samples; found {len(names)}')
    check_pixels(inputs, names)
    _check_equal_sizes(inputs, names, 'images')
    return torch.stack([image.float() for image in inputs]) / 255


def unpadded(inputs: Tensor, data_samples: Sequence[SegDataSample]) -> Tensor:
    """Returns a mask (N, 1, H, W) bool of a training batch: True at image pixels, False at padding."""
    mask = torch.zeros((len(inputs), 1, *inputs.shape[2:]), dtype=torch.bool, device=inputs.device)
    height, width = inputs.shape[2:]
    for row, sample in zip(mask, data_samples, strict=True):
        left, right, top, bottom = sample.metainfo.get('padding_size', (0, 0, 0, 0))
        row[:, top : height - bottom, left : width - right] = True
    return mask


def _check_equal_sizes(tensors: Sequence[Tensor], names: Sequence[str], what: str) -> None:
    for tensor, name in zip(tensors, names, strict=True):
        if tensor.shape != tensors[0].shape:
            raise UserError(
                f'the {what} of a batch must have one size; found {tuple(tensors[0].shape)} for {names[0]} and '
                f'{tuple(tensor.shape)} for {name}; use a batch size of 1 or group images of equal size'
            )
