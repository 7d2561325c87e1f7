"""mmseg segmentors that train for perceptually aligned gradients (PAG); a config selects them by ``type``."""

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
from mmadv.models.pag_regions import RegionExemplars, region_scores
from mmadv.robustness import Alignment, GradientTarget, PAGLoss, class_scores, high_frequency_share

if TYPE_CHECKING:  # the class that follows the mixin in the list of bases
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

    The target decides the form of the loss. With a region target (``RegionExemplars``, ``RegionDistillation``) some
    regions of each image are repainted as other classes. The score is what the repainting changes, and its gradient
    should be the repainting: ``mmadv.models.pag_regions`` defines both. A step has one score, so it costs one backward
    pass, and one backward pass through that pass.

    Any other target is the published form for classifiers. The score of a class is the mean of the class's logit over
    pixels of the image, and its gradient should point to another image. Every class of a step costs two such passes.

    Gradients are those with respect to pixels in [0, 1], without padding.

    The gradient is that of the deployed network: a second forward pass computes it in eval mode and without autocast.
    Batch norms are frozen for the cross-entropy too: in training they use their running statistics, which do not
    change. With batch statistics, the network would have another input gradient than in eval mode. Training therefore
    starts from a trained segmentor, or the norms have no batch statistics.

    ``PAGTargetHook`` provides the targets. The config needs this hook among its ``custom_hooks``.

    Args:
        pag: a dict of
            ``weight``: λ of the loss, which is summed over all classes in the published form;
            ``exclude``: classes that are never a target, such as classes that hardly any image holds;
            ``classes_per_step``, in the published form alone: the number of random classes per image whose gradients
            a step aligns, 2 by default. The loss multiplies the sum over these classes by K / classes_per_step. This
            is an unbiased estimate of the sum over all K classes;
            ``over``, in the published form alone: 'valid' (default) takes the score over all valid pixels, 'class'
            over the pixels of the class if the image has any.
        **segmentor: arguments of the segmentor.

    Raises:
        UserError: a setting is invalid, or the segmentor has one output channel.
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
        self._pag_published_settings = [key for key in ('classes_per_step', 'over') if key in settings]
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
        self._pag_region_loss = PAGLoss(weight=settings['weight'])
        self._pag_target: tuple[GradientTarget | RegionExemplars, ...] = ()
        freeze_norms(self)

    def train(self, mode: bool = True) -> PAGMixin:
        """Sets the mode of every module, but keeps norms with running statistics in eval mode."""
        super().train(mode)
        freeze_norms(self)
        return self

    def check_norms(self) -> None:
        """Puts the model into training mode, and checks that its frozen norms hold a trained network's statistics.

        Call this method after the weights are loaded.

        Raises:
            UserError: a norm still has its initial statistics.
        """
        super().train()
        check_statistics(self, freeze_norms(self))

    def set_pag_target(self, target: GradientTarget | RegionExemplars) -> None:
        """Makes ``target`` give the directions g(x, t), for pixels in [0, 1] in the order the dataset loads them.

        A region target makes the loss that of regions.

        The target does not become a submodule: no checkpoint holds its tensors, and training leaves its weights alone.

        Raises:
            UserError: the target has another number of classes than the model, or a setting has no effect with it.
        """
        classes = self.num_classes
        if target.num_classes != classes:
            raise UserError(f'the target of the gradients has {target.num_classes} classes, the model {classes}')
        if isinstance(target, RegionExemplars) and self._pag_published_settings:
            raise UserError(
                f'model.pag.{self._pag_published_settings[0]} has no effect with the target {type(target).__name__}; '
                'remove it'
            )
        self._pag_target = (target,)

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Returns the segmentor's losses, ``loss_pag``, and two measures of the gradients that are only logged.

        ``pag_cosine`` is the mean cosine between the gradients of the network in eval mode and their targets.
        ``pag_high_frequency`` is the mean share of the gradients' energy above a quarter of a cycle per pixel.

        Raises:
            UserError: no target was set, the target has another image size, or the images of the first batch are not
                in [0, 255].
        """
        if not self._pag_target:
            raise UserError(
                "the PAG loss has no targets: add dict(type='PAGTargetHook', target=dict(type=...)) to custom_hooks"
            )
        labels = torch.stack(label_maps(data_samples))
        losses = super().loss(inputs, data_samples)
        # Rounding in low precision would change the direction of many input gradients, hence no autocast.
        # Fused attention has no second derivative, hence the MATH backend.
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
        (target,) = self._pag_target
        mask = unpadded(inputs, data_samples)
        if isinstance(target, RegionExemplars):
            alignment, counted = self._align_regions(model, target.to(inputs.device), pixels, labels, mask)
        else:
            alignment = self._align_classes(model, target.to(inputs.device), pixels, labels, mask)
            counted = (labels != model.ignore_index).flatten(1).any(1)
        count = counted.sum().clamp_min(1)
        sharpness = high_frequency_share(alignment.gradients)
        return {
            'loss_pag': (alignment.loss * counted).sum() / count,
            'pag_cosine': (alignment.cosines.mean(1) * counted).sum() / count,
            'pag_high_frequency': (sharpness.mean(1) * counted).sum() / count,
        }

    def _align_regions(
        self, model: TrainingAdapter, target: RegionExemplars, pixels: Tensor, labels: Tensor, mask: Tensor
    ) -> tuple[Alignment, Tensor]:
        """Returns the alignment of the gradients of ``region_scores``, and which images have a region."""
        generator = torch.Generator().manual_seed(derive_seed('pag regions', *self._pag_key.next()))
        repainted = target.repaint(pixels.detach(), labels, generator)
        scores = region_scores(model(pixels), labels, repainted)
        directions = target.directions(pixels.detach(), labels, repainted)
        alignment = self._pag_region_loss(scores[:, None], pixels, directions[:, None], mask)
        return alignment, (repainted.labels != labels).flatten(1).any(1)

    def _align_classes(
        self, model: TrainingAdapter, target: GradientTarget, pixels: Tensor, labels: Tensor, mask: Tensor
    ) -> Alignment:
        """Returns the alignment of the gradients of the scores of random classes."""
        classes = self._draw_classes(len(pixels)).to(pixels.device)
        scores = class_scores(model(pixels), classes, labels, over=self.pag_over, ignore_index=model.ignore_index)
        try:
            directions = target(pixels.detach(), classes, labels)
        except ValueError as error:
            raise UserError(f'{error} (size of PAGTargetHook)') from error
        return self._pag_loss(scores, pixels, directions, mask)

    def _draw_classes(self, images: int) -> Tensor:
        """Returns the target classes of each image of a step, (N, T), without repetition."""
        generator = torch.Generator().manual_seed(derive_seed('pag classes', *self._pag_key.next()))
        order = torch.rand(images, len(self.pag_classes), generator=generator).argsort(1)
        return torch.tensor(self.pag_classes)[order[:, : self.pag_classes_per_step]]

    def _pixels(self, inputs: Tensor) -> Tensor:
        """Returns the pixels in [0, 1] from which the network's input was made."""
        preprocessor = self.data_preprocessor
        if preprocessor._enable_normalize:
            inputs = inputs * preprocessor.std + preprocessor.mean
        if preprocessor._channel_conversion and inputs.shape[1] == 3:
            inputs = inputs[:, [2, 1, 0]]
        return (inputs / 255).detach()


def check_units(pixels: Tensor, data_samples: Sequence[SegDataSample]) -> None:
    """Raises UserError that names the first image that was not in [0, 255] before the data preprocessor.

    Args:
        pixels: (N, C, H, W), the pixels of a training batch, divided by 255, with the padding.
        data_samples: the data samples of the batch.
    """
    inside = unpadded(pixels, data_samples)
    # Normalising the pixels and undoing it leaves rounding errors.
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
