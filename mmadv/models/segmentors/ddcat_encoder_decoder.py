"""DDC-AT (Xu, Zhao and Jia, 2021): a second classifier for the pixels whose prediction an attack changes."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.models.decode_heads import ASPPHead, DepthwiseSeparableASPPHead, PSPHead, UPerHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor, nn

from mmadv.errors import UserError
from mmadv.fields import checked
from mmadv.models.batches import stack_labels, unpadded
from mmadv.models.frozen_norms import eval_mode
from mmadv.models.losses.reduction import valid_mean
from mmadv.models.segmentors.pairs import check_trains_on_pairs, split_pairs
from mmadv.models.training_only import TrainingOnly

# Decode head -> its last convolutions before conv_seg. All layers before them are the trunk that the branches share.
LAST_BLOCKS = {
    PSPHead: 'bottleneck',
    ASPPHead: 'bottleneck',
    DepthwiseSeparableASPPHead: 'sep_bottleneck',
    UPerHead: 'fpn_bottleneck',
}


class Branch(BaseModule):
    """An additional classifier of a decode head: the head's layers after the trunk, with weights of its own.

    Args:
        head: the decode head.
        out_channels: the number of channels of the logits.
    """

    def __init__(self, head: BaseDecodeHead, out_channels: int) -> None:
        super().__init__(init_cfg=dict(type='Normal', std=0.01, override=dict(name='conv_seg')))
        self.block = copy.deepcopy(last_block(head))
        for module in self.block.modules():
            reset = getattr(module, 'reset_parameters', None)
            if callable(reset):
                reset()
        self.dropout = nn.Dropout2d(head.dropout_ratio)
        self.conv_seg = nn.Conv2d(head.channels, out_channels, kernel_size=1)

    def forward(self, trunk: Tensor) -> Tensor:
        """Returns logits (N, out_channels, h, w) for the trunk's features."""
        return self.conv_seg(self.dropout(self.block(trunk)))


def last_block(head: BaseDecodeHead) -> nn.Module:
    """Returns the last convolutions of a decode head before its classifier.

    Raises:
        UserError: DDC-AT does not support the kind of head.
    """
    name = LAST_BLOCKS.get(type(head))
    if name is None:
        known = ', '.join(kind.__name__ for kind in LAST_BLOCKS)
        raise UserError(f'DDC-AT needs a decode head of type {known}; found {type(head).__name__}')
    return getattr(head, name)


def divided(main: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Returns the second classifier's logits at pixels that the mask head predicts as 1, else the main classifier's.

    No gradient flows through the choice.

    Args:
        main: (N, K, H, W), the logits of the main classifier.
        second: (N, K, H, W), the logits of the second classifier.
        mask: (N, 2, H, W), the logits of the mask head; equal logits predict 0.
    """
    return torch.where(mask.argmax(dim=1, keepdim=True) == 1, second, main)


@MODELS.register_module()
@checked
class DDCATEncoderDecoder(EncoderDecoder):
    """An EncoderDecoder that trains by divide and conquer (DDC-AT), as the authors' code does.

    The trunk is the network up to the decode head's last block but one. Three branches follow it: the head's own
    classifier, a second classifier, and a mask head of two classes. The first N // 2 images of a batch of N images
    stay clean. The others become adversarial, by an attack on the head's own classifier. A pixel has the boundary
    property if its divided prediction (see ``divided``) changes under the attack. The mask head learns this property
    on clean images, and learns 'no' on adversarial images. The decode head's losses score the divided logits. The
    auxiliary head has its own loss:

        L = L(divided, y) + CE(mask, boundary) + L_auxiliary

    Predictions, attacks and checkpoints use only the head's own classifier, so they are those of EncoderDecoder.

    Args:
        **segmentor: arguments of EncoderDecoder.

    Raises:
        UserError: the preprocessor is not an AdvSegDataPreProcessor, or DDC-AT does not support the decode head.
    """

    # Asks the preprocessor for both the clean and the adversarial images.
    trains_on_pairs = True

    def __init__(self, **segmentor: Any) -> None:
        super().__init__(**segmentor)
        check_trains_on_pairs(self, 'DDC-AT')
        branches = {'second': Branch(self.decode_head, self.out_channels), 'mask': Branch(self.decode_head, 2)}
        self.branches = TrainingOnly(branches, key='ddcat_branches')

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Returns the losses by name, and two shares of pixels that are only logged.

        ``mask.boundary`` is the share of clean pixels with the boundary property. ``mask.second`` is the share of all
        pixels that the mask head gives to the second classifier.

        Args:
            inputs: (2N, C, H, W), first the clean images, then the adversarial images.
            data_samples: N data samples with labels; N is at least 2.

        Raises:
            UserError: the inputs are not pairs, or the batch has a single sample.
        """
        clean, adversarial = split_pairs(inputs, data_samples, 'DDC-AT')
        half = len(data_samples) // 2
        if half == 0:
            raise UserError(
                'DDC-AT trains on clean and on adversarial images, and needs batches of at least 2 on every process; '
                'set train_dataloader.batch_size, and drop_last=True'
            )
        self.branches.keep()
        boundary = self.boundary(clean[:half], adversarial[:half])
        features = self.extract_feat(torch.cat([clean[:half], adversarial[half:]]))
        main, second, mask = self._logits(features, stack_labels(data_samples).shape[1:])
        losses = add_prefix(self.decode_head.loss_by_feat(divided(main, second, mask), data_samples), 'decode')
        if self.with_auxiliary_head:
            losses.update(self._auxiliary_head_forward_train(features, data_samples))
        target = torch.cat([boundary, boundary.new_zeros((len(data_samples) - half, *boundary.shape[1:]))])
        inside = unpadded(adversarial, data_samples)[:, 0]
        mask = mask.float() if mask.itemsize < 4 else mask
        losses['mask.loss_ce'] = valid_mean(F.cross_entropy(mask, target.long(), reduction='none'), inside)
        losses['mask.boundary'] = valid_mean(boundary.float(), inside[:half])
        losses['mask.second'] = valid_mean((mask.detach().argmax(dim=1) == 1).float(), inside)
        return losses

    @torch.no_grad()
    def boundary(self, clean: Tensor, adversarial: Tensor) -> Tensor:
        """Returns a mask (N, H, W) bool of the pixels whose divided prediction changes under the attack.

        The method uses the model in eval mode and in single precision, as the attack does.

        Args:
            clean: (N, C, H, W), the normalised clean images.
            adversarial: (N, C, H, W), the normalised adversarial images.
        """
        with torch.autocast(clean.device.type, enabled=False), eval_mode(self):
            before, after = (
                divided(*self._logits(self.extract_feat(images), images.shape[2:])).argmax(dim=1)
                for images in (clean, adversarial)
            )
        return before != after

    def _logits(self, features: Any, size: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the logits of the head's own classifier, the second classifier and the mask head, at ``size``."""
        trunk: list[Tensor] = []
        hook = last_block(self.decode_head).register_forward_pre_hook(lambda _, inputs: trunk.append(inputs[0]))
        try:
            main = self.decode_head(features)
        finally:
            hook.remove()
        second, mask = self.branches['second'](trunk[0]), self.branches['mask'](trunk[0])
        main, second, mask = (
            resize(logits, size=size, mode='bilinear', align_corners=self.align_corners, warning=False)
            for logits in (main, second, mask)
        )
        return main, second, mask
