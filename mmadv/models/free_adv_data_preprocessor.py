"""FreeAdvSegDataPreProcessor: the perturbation of "free" adversarial training."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.registry import MODELS
from torch import Tensor

from mmadv.attacks.checks import checked_step_size
from mmadv.attacks.threat import Linf
from mmadv.errors import UserError
from mmadv.fields import Positive, PositiveNumber, Radius, checked
from mmadv.models.adapter import FAITHFUL_PREPROCESSORS
from mmadv.models.adv_data_preprocessor import AdvSegDataPreProcessor

NOT_REPLAYED = "FreeAdvSegDataPreProcessor needs batches that are replayed; set train_cfg.type='FreeTrainLoop'"


@MODELS.register_module()
@checked
class FreeAdvSegDataPreProcessor(AdvSegDataPreProcessor):
    """mmseg's SegDataPreProcessor, which adds a perturbation that learns from the weights' own backward pass.

    "Free" adversarial training (Shafahi et al., 2019, algorithm 1): ``FreeTrainLoop`` hands every batch over several
    times in a row; each time the model trains on clip(x + δ) and, from the same backward pass,
    δ <- clip(δ + step_size · sign(∇δ), -radius, radius). δ stays from batch to batch. It costs no pass of its own; the
    price is that a training of as many iterations sees fewer images.

    δ begins at zero, and again where a batch has another shape. Checkpoints hold it, beside the weights and not among
    them: a resumed run goes on with it. Of a run of several processes they hold that of the first one, with which all
    go on.

    Args:
        radius: bound of δ, as '4/255'.
        step_size: as a radius is written; by default the radius, as in the paper.
        mean, std, size, size_divisor, pad_val, seg_pad_val, bgr_to_rgb, rgb_to_bgr, test_cfg: as in
            SegDataPreProcessor.

    Attributes:
        slot: which of the perturbations the next batch gets; FreeTrainLoop sets it.
        perturbations: slot -> δ, (N, C, H, W) at the padded size.
    """

    def __init__(
        self,
        radius: Radius,
        step_size: Radius | None = None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[PositiveNumber] | None = None,
        size: tuple[Positive, Positive] | None = None,
        size_divisor: Positive | None = None,
        pad_val: float = 0,
        seg_pad_val: float = 255,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
        test_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            prob=0,
            mean=mean,
            std=std,
            size=size,
            size_divisor=size_divisor,
            pad_val=pad_val,
            seg_pad_val=seg_pad_val,
            bgr_to_rgb=bgr_to_rgb,
            rgb_to_bgr=rgb_to_bgr,
            test_cfg=test_cfg,
        )
        self.radius = Linf(radius=radius).radius
        self.step_size = self.radius
        if step_size is not None:
            self.step_size = checked_step_size(step_size, Linf(radius=self.radius), 'data_preprocessor')
        self.slot: int | None = None
        self.perturbations: dict[int, Tensor] = {}

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """Returns the batch as SegDataPreProcessor does, perturbed when ``training``.

        Args:
            data: 'inputs', a list of (C, h, w) images in [0, 255], and 'data_samples' with their labels.
            training: whether this is a training step.

        Raises:
            UserError: pixels or labels out of range, or a train loop that does not replay its batches.
        """
        self.check_settings()
        if training and data.get('data_samples') is not None:
            if self.slot is None:
                raise UserError(NOT_REPLAYED)
            data, model, _ = self._checked(data)
            data['inputs'] = self._perturbed(data['inputs'], model.padded_size)
        return SegDataPreProcessor.forward(self, data, training)

    @torch.compiler.disable
    def _perturbed(self, inputs: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Returns images in [0, 255] with the perturbation added, which the backward pass will then move."""
        assert self.slot is not None
        shape = (len(inputs), inputs[0].shape[0], *size)
        stored = self.perturbations.get(self.slot)
        if stored is None or stored.shape != shape:
            stored = torch.zeros(shape)
        perturbation = stored.to(inputs[0].device, copy=True).requires_grad_()
        perturbation.register_post_accumulate_grad_hook(functools.partial(self._move, self.slot))
        return [
            (image.float() / 255 + one[:, : image.shape[1], : image.shape[2]]).clamp(0, 1) * 255
            for image, one in zip(inputs, perturbation, strict=True)
        ]

    def _move(self, slot: int, perturbation: Tensor) -> None:
        """Moves a perturbation along its gradient, as soon as the backward pass has it."""
        assert perturbation.grad is not None
        # In mixed precision a gradient may overflow; the optimiser skips such a step too.
        direction = perturbation.grad.sign().nan_to_num(0.0)
        moved = perturbation.detach() + self.step_size * direction
        self.perturbations[slot] = moved.clamp_(-self.radius, self.radius)
        perturbation.grad = None


FAITHFUL_PREPROCESSORS.append(FreeAdvSegDataPreProcessor)
