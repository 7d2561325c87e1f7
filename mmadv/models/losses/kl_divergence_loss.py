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
    """KL(p ‖ q), the second term of TRADES: p is the softmax for the clean image, q for the adversarial image.

    The mean is taken over the pixels that are not ignored. The gradient flows into both predictions, as in the
    authors' code. (mmseg's KLDivLoss is another function: it takes no logarithm of its first argument.)

    Args:
        loss_weight: factor of the loss, the beta of TRADES.
        loss_name: the name of the loss in logs. The name must begin with 'loss_', because MMSeg trains only on losses
            with such a name.
    """

    def __init__(self, loss_weight: NotNegativeNumber = 1.0, loss_name: LossName = 'loss_kl') -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(self, logits: Tensor, clean_logits: Tensor, label: Tensor, ignore_index: int = 255) -> Tensor:
        """Returns the loss, a scalar of at least float32.

        Args:
            logits: (N, K, H, W), the logits of the adversarial images.
            clean_logits: (N, K, H, W), the logits of the clean images.
            label: (N, H, W) int64; the loss only needs to know which labels are ``ignore_index``.
            ignore_index: label of the pixels that do not count.
        """
        return self.loss_weight * valid_mean(kl_divergence(clean_logits, logits), label != ignore_index)
