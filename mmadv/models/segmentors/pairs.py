"""Common functions of the segmentors that train on clean and adversarial images at once."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import Tensor

from mmadv.errors import UserError
from mmadv.models.adv_data_preprocessor import AdvSegDataPreProcessor


def check_trains_on_pairs(segmentor: EncoderDecoder, method: str) -> None:
    """Checks that a segmentor gets pairs of images, and that its decode head scores logits.

    Args:
        segmentor: a segmentor with ``trains_on_pairs``.
        method: the training method's name in messages.

    Raises:
        UserError: the preprocessor is not an AdvSegDataPreProcessor, or the decode head has one output channel,
            or does not compute its loss as BaseDecodeHead does.
    """
    if not isinstance(segmentor.data_preprocessor, AdvSegDataPreProcessor):
        raise UserError(
            f'{type(segmentor).__name__} needs a data_preprocessor of type AdvSegDataPreProcessor; '
            f'found {type(segmentor.data_preprocessor).__name__}'
        )
    kind = type(segmentor.decode_head)
    stock = kind.loss is BaseDecodeHead.loss and kind.loss_by_feat is BaseDecodeHead.loss_by_feat
    if not stock or segmentor.out_channels == 1:
        raise UserError(
            f'{method} needs a decode head that scores logits of at least 2 channels by loss_decode; '
            f'{kind.__name__} with {segmentor.out_channels} computes its loss in another way'
        )


def split_pairs(inputs: Tensor, data_samples: Sequence[SegDataSample], method: str) -> tuple[Tensor, Tensor]:
    """Returns the clean and the adversarial images of a batch, (N, C, H, W) each.

    Args:
        inputs: (2N, C, H, W), first the clean images, then the adversarial images.
        data_samples: N data samples.
        method: the training method's name in messages.

    Raises:
        UserError: the inputs are not pairs.
    """
    if len(inputs) != 2 * len(data_samples):
        raise UserError(
            f'{method} trains on {2 * len(data_samples)} images for {len(data_samples)} label maps; found '
            f'{len(inputs)}; build the model with its AdvSegDataPreProcessor'
        )
    clean, adversarial = inputs.chunk(2)
    return clean, adversarial
