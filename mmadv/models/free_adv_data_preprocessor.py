"""FreeAdvSegDataPreProcessor, which adds the perturbation of "free" adversarial training."""

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
    """mmseg's SegDataPreProcessor with a perturbation δ that learns from the same backward pass as the weights.

    This is "free" adversarial training (Shafahi et al., 2019, algorithm 1). ``FreeTrainLoop`` passes every batch
    several times in a row. Each time, the model trains on clip(x + δ), and the same backward pass gives
    δ <- clip(δ + step_size · sign(∇δ), -radius, radius). δ is kept from batch to batch. δ needs no pass of its own,
    but a training with the same number of iterations sees fewer images.

    δ starts at zero. It starts at zero again if a batch has another shape. Checkpoints hold δ beside the weights, not
    among them, and a resumed run continues with it. If a run has several processes, its checkpoints hold the δ of the
    first process. All processes of a resumed run continue with that δ.

    Args:
        radius: the bound of δ, such as '4/255'.
        step_size: the step of δ, written as a radius is; the default is the radius, as in the paper.
        mean, std, size, size_divisor, pad_val, seg_pad_val, bgr_to_rgb, rgb_to_bgr, test_cfg: as in
            SegDataPreProcessor.

    Attributes:
        slot: key of the perturbation that the next batch gets; FreeTrainLoop sets the key.
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
            UserError: pixels or labels are out of range, or the train loop does not replay its batches.
        """
        self.check_settings()
        if training and data.get('data_samples') is not None:
            if self.slot is None:
                raise UserError(NOT_REPLAYED)
            data, model, _ = self._checked(data)
            data['inputs'] = self._perturbed(data['inputs'], model.padded_size)
        own = dict(self._buffers)
        # The backward pass needs mean and std, and DDP with broadcast_buffers writes over its own before that.
        self._buffers.update({name: buffer if buffer is None else buffer.clone() for name, buffer in own.items()})
        try:
            return SegDataPreProcessor.forward(self, data, training)
        finally:
            self._buffers.update(own)

    @torch.compiler.disable
    def _perturbed(self, inputs: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Returns images in [0, 255] plus the perturbation; the backward pass later updates the perturbation."""
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
        """Moves a perturbation along its gradient, as soon as the backward pass has computed the gradient."""
        assert perturbation.grad is not None
        # In mixed precision a gradient may overflow; the optimiser skips such a step too.
        direction = perturbation.grad.sign().nan_to_num(0.0)
        moved = perturbation.detach() + self.step_size * direction
        self.perturbations[slot] = moved.clamp_(-self.radius, self.radius)
        perturbation.grad = None


FAITHFUL_PREPROCESSORS.append(FreeAdvSegDataPreProcessor)
