"""Attacks on batches of a test or validation dataloader, through the model's own prediction path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmadv.attacks import Attack, NonFinite
from mmadv.attacks.freezing import frozen
from mmadv.errors import UserError
from mmadv.models.adapter import SegmentorAdapter, geometry, stack_images, stack_labels
from mmadv.models.batches import check_not_scaled, label_maps, sample_names


@dataclass
class Attacked:
    """The outcome of an attack on one image.

    Attributes:
        prediction: (H, W) int64, on the CPU.
        correct: number of valid pixels that are predicted as labelled.
        valid: number of pixels that count.
    """

    prediction: Tensor
    correct: int
    valid: int


def in_order(dataloader: dict[str, Any], *, round_up: bool) -> dict[str, Any]:
    """Returns a dataloader config that reads every sample in order.

    Args:
        dataloader: config of the dataloader, with its other settings.
        round_up: True repeats samples if the processes' shares would differ in length. Metrics of mmengine need equal
            shares, and drop the repeated samples again. False repeats none, for metrics that count every sample they
            get, and for shares that may be empty. The samples must then be a ``Selection``, which is dealt to the
            processes by cost.
    """
    dropped = ('batch_sampler', 'num_batch_per_epoch', 'shuffle', 'drop_last')
    settings = {key: value for key, value in dataloader.items() if key not in dropped}
    default = {'type': 'mmengine.DefaultSampler', 'shuffle': False, 'round_up': True}
    settings = without_idle_workers(settings)
    return {'batch_size': 1, **settings, 'sampler': default if round_up else {'type': 'mmengine.CostSampler'}}


def without_idle_workers(dataloader: dict[str, Any]) -> dict[str, Any]:
    """Returns a dataloader config without the settings that torch refuses if there are no worker processes."""
    if dataloader.get('num_workers', 0):
        return dataloader
    return {key: value for key, value in dataloader.items() if key not in ('persistent_workers', 'prefetch_factor')}


def groups_of_one_geometry(inputs: Sequence[Tensor], samples: Sequence[Any]) -> list[list[int]]:
    """Returns the positions of a batch's samples, in groups that fit one SegmentorAdapter each.

    Args:
        inputs: (C, h, w) images in [0, 255].
        samples: their data samples, with labels.

    Raises:
        UserError: a sample has no labels, or an image was scaled already.
    """
    check_not_scaled(inputs, sample_names(samples))
    groups: dict[tuple, list[int]] = {}
    for i, (image, label, sample) in enumerate(zip(inputs, label_maps(samples), samples, strict=True)):
        groups.setdefault((image.shape, label.shape, geometry(sample)), []).append(i)
    return list(groups.values())


@torch.no_grad()
def clean_classes(model: SegmentorAdapter, images: Tensor) -> Tensor:
    """Returns the classes that the deployed model predicts, (N, H, W) int64."""
    with frozen(model):
        return model(images).argmax(1)


def attack_batch(
    segmentor: nn.Module,
    attack: Attack,
    inputs: Sequence[Tensor],
    samples: Sequence[Any],
    seeds: Sequence[int],
    ignore_index: int | None = None,
) -> list[Attacked]:
    """Returns the outcomes of an attack on the images of a batch; image sizes may differ.

    No image is predicted better than its clean one if the attack keeps the strongest image; this costs one more pass.

    Args:
        segmentor: segmentor of mmseg, in any mode; it is attacked in eval mode.
        attack: an untargeted attack.
        inputs: (C, h, w) images in [0, 255].
        samples: their data samples, with labels.
        seeds: one per image.
        ignore_index: label of the pixels that are in no score; None for the ``ignore_index`` of the segmentor's head.

    Raises:
        UserError: the data do not fit the model, or logits or gradients are NaN or infinite.
    """
    parameter = next(segmentor.parameters())
    # Attacks compute in float32 at least, whatever the precision of the model.
    dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    attacked: dict[int, Attacked] = {}
    for group in groups_of_one_geometry(inputs, samples):
        mine = [samples[i] for i in group]
        model = SegmentorAdapter(segmentor, mine, ignore_index)
        images, labels = stack_images([inputs[i] for i in group], mine), model.attackable(stack_labels(mine))
        model.check_labels(labels, mine)
        images, labels = images.to(parameter.device, dtype), labels.to(parameter.device)
        clean = clean_classes(model, images) if attack.keeps_strongest else None
        try:
            result = attack(
                model,
                images,
                labels,
                seeds=[seeds[i] for i in group],
                ignore_index=model.ignore_index,
                clean_predictions=clean,
            )
        except NonFinite as error:
            raise UserError(
                f'{sample_names(mine)[error.index]}: {error.description} at iteration '
                f'{error.iteration} of {type(attack).__name__}; lower the learning rate, and check the weights'
            ) from error
        valid = labels != model.ignore_index
        correct = (result.predictions == labels) & valid
        counts = (part.flatten(1).sum(1).tolist() for part in (correct, valid))
        for i, prediction, *numbers in zip(group, result.predictions.cpu(), *counts, strict=True):
            attacked[i] = Attacked(prediction, *numbers)
    return [attacked[i] for i in range(len(inputs))]
