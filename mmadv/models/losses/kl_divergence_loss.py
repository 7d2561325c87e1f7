"""The Kullback-Leibler divergence between the predictions for clean and adversarial images."""

from __future__ import annotations

from mmseg.registry import MODELS
from torch import Tensor, nn

from mmadv.attacks.objectives import kl_divergence
from mmadv.fields import LossName, NotNegativeNumber, checked
from mmadv.models.losses.reduction import valid_mean


@MODELS.register_module()
@checked
class KLDivergenceLoss(nn.Module):
    """KL(p ‖ q), p the softmax of the clean image and q that of the adversarial one: the second term of TRADES.

    The mean is over the pixels that are not ignored; the gradient flows into both predictions, as in the authors'
    code. (mmseg's KLDivLoss is another function: it takes no logarithm of its first argument.)

    Args:
        loss_weight: factor of the loss, the beta of TRADES.
        loss_name: under which it is logged; it must begin with 'loss_', since MMSeg trains on nothing else.
    """

    def __init__(self, loss_weight: NotNegativeNumber = 1.0, loss_name: LossName = 'loss_kl') -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(self, logits: Tensor, clean_logits: Tensor, label: Tensor, ignore_index: int = 255) -> Tensor:
        """Returns the loss, a scalar of at least float32.

        Args:
            logits: (N, K, H, W) of the adversarial images.
            clean_logits: (N, K, H, W) of the clean images.
            label: (N, H, W) int64, of which only ``ignore_index`` matters.
            ignore_index: label of the pixels that do not count.
        """
        return self.loss_weight * valid_mean(kl_divergence(clean_logits, logits), label != ignore_index)
