"""Segmentors of mmseg that are trained for perceptually aligned gradients, by a change of ``type``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import torch
from mmseg.models.segmentors import CascadeEncoderDecoder, EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmadv.attacks import derive_seed
from mmadv.errors import UserError, nearest
from mmadv.fields import NotNegative, NotRequired, Positive, PositiveNumber, checked
from mmadv.models.adapter import TrainingAdapter
from mmadv.models.batches import check_not_scaled, check_pixels, label_maps, sample_names, unpadded
from mmadv.models.frozen_norms import check_statistics, eval_mode, freeze_norms
from mmadv.models.iteration_key import IterationKey
from mmadv.robustness import GradientTarget, PAGLoss, class_scores, high_frequency_share

if TYPE_CHECKING:  # what stands behind the mixin in the list of bases
    from mmseg.models.segmentors import EncoderDecoder as _Segmentor
else:
    _Segmentor = object


class PAGSettings(TypedDict):
    """Settings of the PAG loss, as ``PAGMixin`` describes them."""

    weight: PositiveNumber
    classes_per_step: NotRequired[Positive]
    over: NotRequired[Literal['valid', 'class']]
    exclude: NotRequired[Sequence[NotNegative]]


class PAGMixin(_Segmentor):
    """Adds the PAG loss to an mmseg segmentor's own losses; the weights stay those of the stock segmentor.

    The score of a class is the mean of its logit over pixels, and its gradient is that with respect to pixels
    in [0, 1], without padding. Every class of a step costs a backward pass and one through it.

    The gradient is that of the deployed network: a second forward pass computes it in eval mode and without autocast.
    Batch norms are frozen for the cross-entropy too: in training they use their running statistics, which do not
    change. With batch statistics the network would have another input gradient than in eval mode. Training therefore
    starts from a trained segmentor, or has norms without batch statistics.

    The targets come from ``PAGTargetHook``, which the config needs among its ``custom_hooks``.

    Args:
        pag: a dict of
            ``weight``: λ of the loss, summed over all classes;
            ``classes_per_step``: how many random classes the images of a step are aligned for, 2 by default. Their
            sum is multiplied by K / classes_per_step, an unbiased estimate of that over all K classes;
            ``over``: 'valid' (default) takes the score over all valid pixels, 'class' over those of the class where
            the image has any;
            ``exclude``: classes that are never a target, such as those that hardly any image holds.
        **segmentor: arguments of the segmentor.

    Raises:
        UserError: a setting that makes no sense, or a segmentor with one output channel.
    """

    def __init__(self, *, pag: PAGSettings, **segmentor: Any) -> None:
        super().__init__(**segmentor)
        settings: dict[str, Any] = dict(pag)
        known = PAGSettings.__annotations__
        for key in settings:
            if key not in known:
                raise UserError(f"model.pag has no setting '{key}'{nearest(str(key), known)}")
        if self.out_channels == 1:
            raise UserError('aligned gradients need one output channel for each class; set out_channels to num_classes')
        classes = self.num_classes
        excluded = set(settings.get('exclude', ()))
        if not excluded <= set(range(classes)):
            raise UserError(f'model.pag.exclude must hold classes from 0 to {classes - 1}; found {sorted(excluded)}')
        self.pag_classes = [k for k in range(classes) if k not in excluded]
        self.pag_classes_per_step = settings.get('classes_per_step', 2)
        self.pag_over = settings.get('over', 'valid')
        if self.pag_classes_per_step > len(self.pag_classes):
            raise UserError(
                f'model.pag.classes_per_step must be from 1 to {len(self.pag_classes)}; '
                f'found {self.pag_classes_per_step}'
            )
        self._pag_loss = PAGLoss(weight=settings['weight'], num_classes=len(self.pag_classes))
        self._pag_key = IterationKey()
        self._pag_units_checked = False
        self._pag_target: tuple[GradientTarget, ...] = ()
        freeze_norms(self)

    def train(self, mode: bool = True) -> PAGMixin:
        """Sets the mode of every module, but leaves norms with running statistics in eval mode."""
        super().train(mode)
        freeze_norms(self)
        return self

    def check_norms(self) -> None:
        """Puts the model into training mode, and checks that its frozen norms hold a trained network's statistics.

        Call it once weights are loaded.

        Raises:
            UserError: a norm still has the statistics it was made with.
        """
        super().train()
        check_statistics(self, freeze_norms(self))

    def set_pag_target(self, target: GradientTarget) -> None:
        """Makes ``target`` give the directions g(x, t), for pixels in [0, 1] in the order the dataset loads them.

        It does not become a submodule: its tensors are in no checkpoint and its weights are not trained.

        Raises:
            UserError: it knows another number of classes.
        """
        classes = self.num_classes
        if target.num_classes != classes:
            raise UserError(f'the target of the gradients has {target.num_classes} classes, the model {classes}')
        self._pag_target = (target,)

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Returns the segmentor's losses, ``loss_pag``, and two measures of the gradients that are only logged.

        ``pag_cosine`` is the mean cosine between the gradients of the network in eval mode and their targets,
        ``pag_high_frequency`` the mean share of the gradients' energy above a quarter of a cycle per pixel.

        Raises:
            UserError: no target was set, it is of another image size, or the first batch holds no images in [0, 255].
        """
        if not self._pag_target:
            raise UserError(
                "the PAG loss has no targets: add dict(type='PAGTargetHook', target=dict(type=...)) to custom_hooks"
            )
        labels = torch.stack(label_maps(data_samples))
        losses = super().loss(inputs, data_samples)
        # Low precision would decide the direction of many input gradients. Fused attention has no second derivative.
        with torch.autocast(inputs.device.type, enabled=False), eval_mode(self), sdpa_kernel(SDPBackend.MATH):
            dtype = next(self.parameters()).dtype
            losses.update(self._pag_losses(inputs.detach().to(dtype), labels, data_samples))
        return losses

    def _pag_losses(self, inputs: Tensor, labels: Tensor, data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        model = TrainingAdapter(self, (inputs.shape[2], inputs.shape[3]))
        pixels = self._pixels(inputs)
        if not self._pag_units_checked:
            check_units(pixels, data_samples)
            self._pag_units_checked = True
        pixels.requires_grad_()
        classes = self._draw_classes(len(inputs)).to(inputs.device)
        scores = class_scores(model(pixels), classes, labels, over=self.pag_over, ignore_index=model.ignore_index)
        (target,) = self._pag_target
        try:
            directions = target.to(inputs.device)(pixels.detach(), classes, labels)
        except ValueError as error:
            raise UserError(f'{error} (size of PAGTargetHook)') from error
        alignment = self._pag_loss(scores, pixels, directions, unpadded(inputs, data_samples))
        labelled = (labels != model.ignore_index).flatten(1).any(1)
        count = labelled.sum().clamp_min(1)
        sharpness = high_frequency_share(alignment.gradients)
        return {
            'loss_pag': (alignment.loss * labelled).sum() / count,
            'pag_cosine': (alignment.cosines.mean(1) * labelled).sum() / count,
            'pag_high_frequency': (sharpness.mean(1) * labelled).sum() / count,
        }

    def _draw_classes(self, images: int) -> Tensor:
        """Returns the target classes of each image of a step, (N, T), without repetition."""
        generator = torch.Generator().manual_seed(derive_seed('pag classes', *self._pag_key.next()))
        order = torch.rand(images, len(self.pag_classes), generator=generator).argsort(1)
        return torch.tensor(self.pag_classes)[order[:, : self.pag_classes_per_step]]

    def _pixels(self, inputs: Tensor) -> Tensor:
        """Returns the network's input as the pixels in [0, 1] that it was made of."""
        preprocessor = self.data_preprocessor
        if preprocessor._enable_normalize:
            inputs = inputs * preprocessor.std + preprocessor.mean
        if preprocessor._channel_conversion and inputs.shape[1] == 3:
            inputs = inputs[:, [2, 1, 0]]
        return (inputs / 255).detach()


def check_units(pixels: Tensor, data_samples: Sequence[SegDataSample]) -> None:
    """Raises UserError naming the first image that was no image in [0, 255] before the data preprocessor.

    Args:
        pixels: (N, C, H, W) of a training batch, divided by 255, with its padding.
        data_samples: of the batch.
    """
    inside = unpadded(pixels, data_samples)
    # Normalising and back rounds.
    raw = (pixels * 255).round(decimals=2)
    images = [image[:, mask[0]][:, :, None] for image, mask in zip(raw, inside, strict=True)]
    names = sample_names(data_samples)
    check_pixels(images, names)
    check_not_scaled(images, names)


@MODELS.register_module()
@checked
class PAGEncoderDecoder(PAGMixin, EncoderDecoder):
    """mmseg's EncoderDecoder with the PAG loss; see ``PAGMixin``."""


@MODELS.register_module()
@checked
class PAGCascadeEncoderDecoder(PAGMixin, CascadeEncoderDecoder):
    """mmseg's CascadeEncoderDecoder with the PAG loss; see ``PAGMixin``."""
