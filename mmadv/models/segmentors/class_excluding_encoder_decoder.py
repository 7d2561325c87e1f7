"""A trained segmentor that predicts only some of its classes, as in appendix C.3 of SEA's paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmadv.errors import UserError
from mmadv.fields import Filled, NotNegative, checked


@MODELS.register_module()
@checked
class ClassExcludingEncoderDecoder(EncoderDecoder):
    """An EncoderDecoder that leaves out the scores of some classes when it predicts.

    The other classes keep their order and are numbered from 0. Attacks see the same logits as the score. The
    checkpoint is that of EncoderDecoder with all classes. The model only scores: it cannot be trained.

    Args:
        excluded_classes: numbers of the classes, in the numbering of the decode head.
        **segmentor: arguments of EncoderDecoder; ``num_classes`` of the heads counts all classes.

    Raises:
        UserError: an excluded class is not one of the decode head, fewer than two classes are left, or the decode head
            has one output channel.
    """

    def __init__(self, *, excluded_classes: Annotated[Sequence[NotNegative], Filled()], **segmentor: Any) -> None:
        super().__init__(**segmentor)
        head, excluded = self.decode_head, set(excluded_classes)
        classes = head.num_classes
        if head.out_channels != classes:
            raise UserError(f'excluded_classes needs one output channel for each class; found {head.out_channels}')
        if max(excluded) >= classes:
            raise UserError(f'excluded_classes must hold classes from 0 to {classes - 1}; found {sorted(excluded)}')
        self.remaining = [k for k in range(classes) if k not in excluded]
        if len(self.remaining) < 2:
            raise UserError(
                f'excluded_classes must leave at least two of the {classes} classes; found {sorted(excluded)}'
            )
        # The numbers that slide inference and adapters read.
        self.num_classes: int = len(self.remaining)
        self.out_channels: int = len(self.remaining)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Returns the logits of the remaining classes, (N, K - excluded, H, W)."""
        return super().encode_decode(inputs, batch_img_metas)[:, self.remaining]

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Raises UserError: the labels of the remaining classes do not fit the heads."""
        raise UserError('ClassExcludingEncoderDecoder only scores trained models; train an EncoderDecoder')
