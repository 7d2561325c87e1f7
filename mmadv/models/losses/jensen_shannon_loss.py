"""The Jensen-Shannon divergence as a loss of a decode head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmadv.attacks.objectives import jensen_shannon
from mmadv.errors import UserError
from mmadv.fields import Filled, LossName, NotNegativeNumber, checked
from mmadv.models.losses.reduction import valid_mean


@MODELS.register_module()
@checked
class JensenShannonLoss(nn.Module):
    """Jensen-Shannon divergence of the softmax from the one-hot label, in [0, log 2]: a bounded ``loss_decode``.

    With p = p_y, the loss is log 2 + (p log p - (1 + p) log(1 + p)) / 2 (SEA, section 2.2.2, there as an attack's
    loss). The loss of a pixel is at most log 2, even if the pixel's label is wrong. The mean is taken over the pixels
    that are not ignored, unlike the mean of mmseg's cross-entropy.

    Args:
        class_weight: factor of the pixels of each class, one factor per class; None means 1 for all.
        loss_weight: factor of the whole loss.
        loss_name: the name of the loss in logs. The name must begin with 'loss_', because MMSeg trains only on losses
            with such a name.
    """

    def __init__(
        self,
        class_weight: Annotated[Sequence[NotNegativeNumber], Filled()] | None = None,
        loss_weight: NotNegativeNumber = 1.0,
        loss_name: LossName = 'loss_js',
    ) -> None:
        super().__init__()
        self.class_weight = None if class_weight is None else [float(weight) for weight in class_weight]
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self, cls_score: Tensor, label: Tensor, weight: Tensor | None = None, ignore_index: int = 255
    ) -> Tensor:
        """Returns the loss, a scalar of at least float32.

        Args:
            cls_score: (N, K, H, W) logits.
            label: (N, H, W) int64, in [0, K) or ``ignore_index``.
            weight: (N, H, W) factor of each pixel, as a head's sampler returns it.
            ignore_index: label of the pixels that do not count.

        Raises:
            UserError: the logits have one channel, or the number of class weights differs from the number of classes.
        """
        classes = cls_score.shape[1]
        if classes == 1:
            raise UserError('JensenShannonLoss compares with a softmax and takes at least 2 output channels; found 1')
        if self.class_weight is not None and len(self.class_weight) != classes:
            raise UserError(
                f'JensenShannonLoss: class_weight must hold {classes} numbers; found {len(self.class_weight)}'
            )
        valid = label != ignore_index
        index = torch.where(valid, label, 0)
        log_p = F.log_softmax(cls_score.float() if cls_score.itemsize < 4 else cls_score, dim=1)
        loss = jensen_shannon(log_p.gather(1, index.unsqueeze(1)).squeeze(1))
        if self.class_weight is not None:
            loss = loss * loss.new_tensor(self.class_weight)[index]
        if weight is not None:
            loss = loss * weight
        return self.loss_weight * valid_mean(loss, valid)
