"""Adapters that turn an mmseg segmentor into a callable from pixels in [0, 1] to class logits at label size.

``SegmentorAdapter`` follows the prediction path. ``TrainingAdapter`` follows a training step. Both adapters
normalise, reorder channels and pad inside, as mmseg's SegDataPreProcessor does. An attack therefore works on the
pixels that were loaded and never sees padding.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, cast

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.models.decode_heads import EMAHead, LightHamHead
from mmseg.models.segmentors import BaseSegmentor, DepthEstimator, EncoderDecoder, MultimodalEncoderDecoder
from mmseg.models.utils import resize
from mmseg.structures import SegDataSample
from mmseg.utils import stack_batch
from torch import Tensor, nn

from mmadv.errors import UserError
from mmadv.fields import IgnoreIndex, Positive, checked, checked_exactly
from mmadv.models import batches
from mmadv.models.activation_checkpointing import without_checkpointing
from mmadv.models.batches import stack_images, stack_labels
from mmadv.models.log_scores import check_outputs, gives_scores, head_name, log_scores
from mmadv.shapes import ANY_FLOATS, Shaped

__all__ = ['SegmentorAdapter', 'TrainingAdapter', 'caveats', 'geometry', 'stack_images', 'stack_labels', 'unwrap']

# The type does not check the range of pixels: attacks have checked it, and smoothing adds noise.
Pixels = Annotated[Tensor, Shaped('B C h w', ANY_FLOATS)]

# These classes share one ``predict``: inference, then the postprocessing of the logits.
SEGMENTORS = (EncoderDecoder, MultimodalEncoderDecoder)

# Heads that draw random numbers at every forward pass.
RANDOM_HEADS = (LightHamHead,)
# Notes to the user about heads whose gradient an attack gets only in part.
CAVEATS = {
    EMAHead: 'EMAHead computes its bases without gradient: the gradient is partial and attacks may miss errors; '
    'compare with the attack Square, which needs no gradient',
    LightHamHead: 'LightHamHead draws random bases at every forward pass; they are fixed here, to the same ones for '
    'every image, so that attack and score see one model; its gradient may be partial, compare with the attack Square',
}

# Preprocessors with the test mode of SegDataPreProcessor. PixelModel repeats that mode differentiably.
FAITHFUL_PREPROCESSORS: list[type[SegDataPreProcessor]] = [SegDataPreProcessor]


@checked
def unwrap(model: nn.Module) -> EncoderDecoder | MultimodalEncoderDecoder:
    """Returns the segmentor inside distributed, compiled and test-time-augmentation wrappers.

    Raises:
        UserError: the model is not an mmseg segmentor, or it is neither an EncoderDecoder nor a
            MultimodalEncoderDecoder.
    """
    while True:
        if is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = cast(nn.Module, model.module)
        elif hasattr(model, '_orig_mod'):
            model = cast(nn.Module, model._orig_mod)
        else:
            break
    if not isinstance(model, BaseSegmentor):
        raise UserError(f'the model must be a segmentor of mmseg; found {type(model).__name__}')
    if isinstance(model, DepthEstimator):
        raise UserError('a DepthEstimator estimates depth; mmadv takes models that segment')
    if not isinstance(model, SEGMENTORS):
        raise UserError(f'the segmentor must be an EncoderDecoder or a subclass of it; found {type(model).__name__}')
    return model


def last_head(segmentor: nn.Module) -> nn.Module:
    """Returns the decode head that predicts; in a cascade, this is the last one."""
    head: Any = segmentor.decode_head
    return head[-1] if isinstance(head, nn.ModuleList) else head


def head_ignore_index(segmentor: nn.Module) -> int:
    """Returns the label that the loss of a segmentor's last decode head ignores."""
    return int(getattr(last_head(segmentor), 'ignore_index', 255))


def caveats(segmentor: nn.Module) -> list[str]:
    """Returns one sentence for each part of a segmentor that limits or changes what an attack sees."""
    kinds = {type(module) for module in segmentor.modules()}
    sentences = [text for kind, text in CAVEATS.items() if any(issubclass(present, kind) for present in kinds)]
    head = last_head(segmentor)
    if gives_scores(head):
        sentences.append(
            f'{head_name(head)} returns class scores, not logits: attacks take their logarithms (log-scores), '
            'which have the same arg max and, after a softmax, the same ratios'
        )
    return sentences


@checked
def geometry(data_sample: SegDataSample) -> Hashable:
    """Returns the sizes and the flip that map a sample's input to its label map.

    All samples of one adapter have the same geometry.
    """
    meta = data_sample.metainfo
    flip = meta.get('flip_direction') if meta.get('flip') else None
    keys = ('ori_shape', 'img_shape', 'pad_shape', 'network_size')
    sizes = [tuple(meta[key]) if meta.get(key) is not None else None for key in keys]
    return (*sizes, flip)


class PixelModel(nn.Module):
    """The base class of both adapters: a segmentor that takes pixels in [0, 1].

    Args:
        model: a segmentor of mmseg, wrapped or not. The segmentor becomes a submodule, so an attack that freezes
            the adapter also freezes the segmentor.

    Attributes:
        num_classes: K, the number of classes in the logits; 2 for a model with one output channel.
        ignore_index: the label that the segmentor's head ignores, unless the caller gave another label.
        gives_up_logits: True: only the caller keeps the logits, so an attack may overwrite them with their gradient.

    Raises:
        UserError: the segmentor or the data preprocessor is of a kind that mmadv cannot attack.
    """

    gives_up_logits = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        segmentor = unwrap(model)
        preprocessor = segmentor.data_preprocessor
        if type(preprocessor).forward not in {kind.forward for kind in FAITHFUL_PREPROCESSORS}:
            raise UserError(
                f'the data preprocessor must be a SegDataPreProcessor; found {type(preprocessor).__name__}, '
                'which mmadv cannot replace'
            )
        if hasattr(preprocessor, 'check_settings'):
            preprocessor.check_settings()
        self.segmentor = segmentor
        self._head = (last_head(segmentor),)  # a tuple: not a second submodule
        self._gives_scores = gives_scores(self._head[0])
        self._outputs_checked = False
        # The name of an image in messages.
        self.name = 'an image of the batch'
        self.num_classes = 2 if segmentor.out_channels == 1 else segmentor.num_classes
        self.ignore_index = head_ignore_index(segmentor)

    def check_labels(self, labels: Tensor, data_samples: Sequence[SegDataSample]) -> None:
        """Raises UserError that names the first image with a label that is not a class of the model."""
        batches.check_labels(list(labels), batches.sample_names(data_samples), self.num_classes, self.ignore_index)

    def normalised(self, images: Tensor) -> Tensor:
        """Returns the network's input for images (N, C, h, w) in [0, 1]: channels reordered, values normalised."""
        preprocessor = self.segmentor.data_preprocessor
        batches.check_channels(list(images[:1]), [self.name], preprocessor)
        pixels = images * 255
        if preprocessor._channel_conversion and pixels.size(1) == 3:
            pixels = pixels[:, [2, 1, 0]]
        if preprocessor._enable_normalize:
            pixels = (pixels - preprocessor.mean) / preprocessor.std
        return pixels

    def padded(self, pixels: Tensor, size: Sequence[int] | None, size_divisor: int | None) -> tuple[Tensor, dict]:
        """Returns normalised pixels padded as mmseg pads them, and the metadata of the padding."""
        preprocessor = self.segmentor.data_preprocessor
        inputs, infos = stack_batch(list(pixels), size=size, size_divisor=size_divisor, pad_val=preprocessor.pad_val)
        return inputs, infos[0]

    def checked(self, outputs: Tensor) -> Tensor:
        """Returns the segmentor's outputs, and checks the first outputs that the adapter sees.

        Raises:
            UserError: the outputs are neither logits nor class scores, or they do not have one channel for each class.
        """
        if not self._outputs_checked:
            name, channels = head_name(self._head[0]), self.segmentor.out_channels
            check_outputs(outputs, scores=self._gives_scores, channels=channels, name=name)
            self._outputs_checked = True
        return outputs

    def class_logits(self, logits: Tensor) -> Tensor:
        """Returns logits with one channel per class, whose arg max is the segmentor's prediction.

        A model with one output channel z predicts class 1 if sigmoid(z) > threshold, that is, if
        z > logit(threshold). Its logits are (0, z - logit(threshold)). If the outputs are class scores, the method
        returns their log-scores.
        """
        if self._gives_scores:
            return log_scores(logits)
        if logits.shape[1] > 1:
            return logits
        threshold: Any = self._head[0].threshold
        if threshold is None or not 0 < threshold < 1:
            raise UserError(f'decode_head.threshold must lie between 0 and 1; found {threshold}')
        return torch.cat([torch.zeros_like(logits), logits - math.log(threshold / (1 - threshold))], dim=1)


@checked_exactly
class SegmentorAdapter(PixelModel):
    """A segmentor's prediction path: pixels in [0, 1] at network input size -> class logits at label size.

    The segmentor and the samples define whole or slide inference, test-time padding, flips and the resize to
    ``ori_shape``. The arg max of the logits is the ``pred_sem_seg`` of ``segmentor.predict``. If samples have a
    ``network_size``, their images have the size of the image files. The adapter first resizes such images to that
    height and width. A head that draws random numbers gets the same numbers for every image and every pass.

    Args:
        model: a segmentor of mmseg, wrapped or not.
        data_samples: samples of one geometry. The adapter then takes any number of images of that geometry.
        ignore_index: the label of the pixels that no score counts; None takes the label of the segmentor's head.

    Attributes:
        void: the labels among 255 and the head's ``ignore_index`` that are neither a class nor the adapter's
            ``ignore_index``. As in a test of mmseg, predictions on such pixels count against the IoU.

    Raises:
        UserError: the samples differ in geometry, or mmadv cannot attack the model.
    """

    def __init__(
        self, model: nn.Module, data_samples: Sequence[SegDataSample], ignore_index: IgnoreIndex | None = None
    ) -> None:
        super().__init__(model)
        marked = {255, self.ignore_index}
        self.ignore_index = self.ignore_index if ignore_index is None else ignore_index
        self.void = tuple(sorted(marked - {self.ignore_index} - set(range(self.num_classes))))
        kind = type(self.segmentor)
        if (
            kind.predict not in [segmentor.predict for segmentor in SEGMENTORS]
            or kind.postprocess_result is not BaseSegmentor.postprocess_result
        ):
            raise UserError(
                f'{kind.__name__} predicts in a way of its own (predict or postprocess_result) and cannot be attacked'
            )
        geometries = {geometry(sample) for sample in data_samples}
        if len(geometries) != 1:
            raise UserError(
                f'an adapter takes samples of one geometry; found {len(geometries)}; group the samples by size and flip'
            )
        self._meta = dict(data_samples[0].metainfo)
        self.name = batches.sample_names(data_samples)[0]
        if 'ori_shape' not in self._meta:
            raise UserError("the samples have no 'ori_shape'; keep it in the meta_keys of PackSegInputs")
        direction = self._meta.get('flip_direction') if self._meta.get('flip') else None
        if direction not in (None, 'horizontal', 'vertical'):
            raise UserError(f"flip_direction must be 'horizontal' or 'vertical'; found {direction!r}")
        self._flip = {None: None, 'horizontal': 3, 'vertical': 2}[direction]
        self._random = any(isinstance(module, RANDOM_HEADS) for module in self.segmentor.modules())

    @property
    def label_size(self) -> tuple[int, int]:
        """The height and width of the logits."""
        height, width = self._meta['ori_shape'][:2]
        return int(height), int(width)

    def attackable(self, labels: Tensor) -> Tensor:
        """Returns labels (N, H, W) in which ``ignore_index`` replaces every void label."""
        if not self.void:
            return labels
        return torch.where(torch.isin(labels, labels.new_tensor(self.void)), self.ignore_index, labels)

    def check_labels(self, labels: Tensor, data_samples: Sequence[SegDataSample]) -> None:
        """Raises UserError if labels (N, H, W) differ from the logits in size, or are not classes of the model."""
        if tuple(labels.shape[1:]) != self.label_size:
            name = batches.sample_names(data_samples)[0]
            raise UserError(
                f'{name}: the label map is {labels.shape[1]}x{labels.shape[2]} and the image '
                f'{self.label_size[0]}x{self.label_size[1]} (height x width); check the files, and load the '
                'annotations after every resizing step of the test pipeline'
            )
        super().check_labels(labels, data_samples)

    @checked
    def forward(self, images: Pixels) -> Tensor:
        """Returns class logits (N, K, H, W) at label size for images (N, C, h, w) in [0, 1]."""
        if not self._random:
            return self._logits(images)
        parts = []
        for image in images.split(1):
            with _same_draws(image.dtype):
                parts.append(self._logits(image))
        return torch.cat(parts)

    def _logits(self, images: Tensor) -> Tensor:
        meta = dict(self._meta)
        size = meta.get('network_size')
        if size is not None:
            images = resize(images, size=tuple(size), mode='bilinear', align_corners=False, warning=False)
            meta['img_shape'] = meta['pad_shape'] = tuple(size)
        inputs = self.normalised(images)
        test_cfg = self.segmentor.data_preprocessor.test_cfg
        if test_cfg:
            inputs, padding = self.padded(inputs, test_cfg.get('size'), test_cfg.get('size_divisor'))
            meta.update(padding)
        # Slide inference writes into the metadata, so every forward pass gets its own copy.
        metas = [dict(meta) for _ in range(len(images))]
        with without_checkpointing(self.segmentor):
            logits = self.checked(self.segmentor.inference(inputs, metas))
        left, right, top, bottom = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
        logits = logits[:, :, top : logits.shape[2] - bottom, left : logits.shape[3] - right]
        if self._flip is not None:
            logits = logits.flip(dims=(self._flip,))
        if tuple(logits.shape[2:]) != self.label_size:  # mmseg resizes in any case, to the same numbers
            logits = resize(
                logits, size=self.label_size, mode='bilinear', align_corners=self.segmentor.align_corners, warning=False
            )
        return self.class_logits(logits)


@contextmanager
def _same_draws(dtype: torch.dtype) -> Iterator[None]:
    """Makes torch draw the same numbers, of the given dtype, in every block; then restores the state of torch."""
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


@checked_exactly
class TrainingAdapter(PixelModel):
    """A segmentor on part of a training batch: unpadded pixels in [0, 1] -> class logits of the same size.

    The network sees the images at the padded size of the training batch. The adapter adds the padding inside and
    cuts off the logits of the padding. An attack therefore neither perturbs nor counts the padding.

    Args:
        model: a segmentor of mmseg, wrapped or not.
        padded_size: height and width of the padded training batch.
    """

    def __init__(self, model: nn.Module, padded_size: tuple[Positive, Positive]) -> None:
        super().__init__(model)
        self.padded_size = padded_size

    @checked
    def forward(self, images: Pixels) -> Tensor:
        """Returns class logits (N, K, h, w) for images (N, C, h, w) in [0, 1]."""
        inputs, _ = self.padded(self.normalised(images), self.padded_size, None)
        # img_shape must be the padded size: in training metadata it is the size before padding, and heads would
        # resize their logits to that.
        size = inputs.shape[2:]
        metas = [
            {'ori_shape': size, 'img_shape': size, 'pad_shape': size, 'padding_size': [0, 0, 0, 0]}
            for _ in range(len(images))
        ]
        with without_checkpointing(self.segmentor):
            logits = self.checked(self.segmentor.encode_decode(inputs, metas))
        if logits.shape[2:] != size:
            raise UserError(
                f'{type(self.segmentor).__name__} returned logits of {tuple(logits.shape[2:])} for inputs of '
                f'{tuple(size)}; such a model cannot be attacked in training'
            )
        return self.class_logits(logits[:, :, : images.shape[2], : images.shape[3]])
