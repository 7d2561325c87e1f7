"""TRADES (Zhang et al., 2019): the loss on clean images plus the divergence of adversarial from clean predictions."""

from __future__ import annotations

from typing import Annotated, Any

from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor

from mmadv.fields import Filled, NotNegativeNumber, checked
from mmadv.models.batches import stack_labels
from mmadv.models.losses import KLDivergenceLoss
from mmadv.models.segmentors.pairs import check_trains_on_pairs, split_pairs


@MODELS.register_module()
@checked
class TRADESEncoderDecoder(EncoderDecoder):
    """An EncoderDecoder that trains on loss(f(x), y) + beta · KL(f(x) ‖ f(x')), the multi-class form of TRADES.

    x' is the adversarial image that the preprocessor's attack finds. The attack should maximise the same divergence
    (``objective=dict(type='KullbackLeibler')``). As in the authors' code, both terms are computed in train mode. The
    clean images and the adversarial images have separate forward passes, so each pass has its own batch statistics.
    The auxiliary head learns only on clean images. The keys of the checkpoint are those of EncoderDecoder.

    Args:
        beta: weight of the divergence; the paper writes 1/λ and uses the values 1 and 6.
        backbone, decode_head, neck, auxiliary_head, train_cfg, test_cfg, data_preprocessor, pretrained, init_cfg: as
            in EncoderDecoder.

    Raises:
        UserError: beta is negative, or the preprocessor is not an AdvSegDataPreProcessor. Or the decode head has one
            output channel, or does not compute its loss as BaseDecodeHead does.
    """

    # Asks the preprocessor for both the clean and the adversarial images.
    trains_on_pairs = True

    def __init__(
        self,
        *,
        backbone: dict,
        decode_head: dict,
        beta: NotNegativeNumber = 6.0,
        neck: dict | None = None,
        auxiliary_head: dict | Annotated[list[dict], Filled()] | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: Any = None,
        pretrained: str | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            backbone=backbone,
            decode_head=decode_head,
            neck=neck,
            auxiliary_head=auxiliary_head,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            data_preprocessor=data_preprocessor,
            pretrained=pretrained,
            init_cfg=init_cfg,
        )
        check_trains_on_pairs(self, 'TRADES')
        self.divergence = KLDivergenceLoss(loss_weight=float(beta))

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Returns the losses by name.

        Args:
            inputs: (2N, C, H, W), first the clean images, then the adversarial images.
            data_samples: N data samples with labels.
        """
        clean, adversarial = split_pairs(inputs, data_samples, 'TRADES')
        features = self.extract_feat(clean)
        logits = self.decode_head.forward(features)
        losses = add_prefix(self.decode_head.loss_by_feat(logits, data_samples), 'decode')
        if self.with_auxiliary_head:
            losses.update(self._auxiliary_head_forward_train(features, data_samples))
        adversarial_logits = self.decode_head.forward(self.extract_feat(adversarial))
        labels = stack_labels(data_samples)
        clean_at_labels, adversarial_at_labels = (
            resize(part, size=labels.shape[1:], mode='bilinear', align_corners=self.align_corners)
            for part in (logits, adversarial_logits)
        )
        losses['decode.loss_kl'] = self.divergence(
            adversarial_at_labels, clean_at_labels, labels, ignore_index=self.decode_head.ignore_index
        )
        return losses
