"""Small segmentors that classify masks: mmseg's own ``predict`` of such heads above tiny networks."""

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.registry import DefaultScope
from mmseg.models.decode_heads import Mask2FormerHead, MaskFormerHead, SideAdapterCLIPHead
from mmseg.registry import MODELS
from torch import nn

QUERIES = 7
PREPROCESSOR = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    size_divisor=1,
)


@MODELS.register_module()
class TinyEncoder(BaseModule):
    """One convolution of stride 4."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 12, 5, stride=4, padding=2)

    def forward(self, images):
        return (self.convolution(images).tanh(),)


@MODELS.register_module()
class TinyTextEncoder(BaseModule):
    """Embeddings of 5 classes and of 'no object'."""

    def __init__(self):
        super().__init__()
        self.embeddings = nn.Parameter(torch.randn(6, 12))

    def forward(self):
        return self.embeddings


class TinyMasks:
    """Queries: classes by a linear layer over the pooled features, masks by their product with the features."""

    def __init__(self, num_classes=5, ignore_index=255):
        BaseModule.__init__(self)
        self.num_classes = self.out_channels = num_classes
        self.ignore_index, self.align_corners = ignore_index, False
        self.queries = nn.Parameter(torch.randn(QUERIES, 12))
        self.classes = nn.Linear(12, num_classes + 1)

    def masks(self, features):
        queries = self.queries + features.mean((2, 3))[:, None]
        return queries, torch.einsum('nqc,nchw->nqhw', queries, features)

    def forward(self, features, data_samples):
        queries, masks = self.masks(features[-1])
        return [self.classes(queries)], [masks]

    def loss(self, features, data_samples, train_cfg):
        size = data_samples[0].gt_sem_seg.shape
        metas = [dict(img_shape=size, pad_shape=size) for _ in data_samples]
        scores = self.predict(features, metas, None)
        labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data_samples])
        return dict(loss=nn.functional.nll_loss((scores / scores.sum(1, keepdim=True)).log(), labels))


@MODELS.register_module()
class TinyMask2FormerHead(TinyMasks, Mask2FormerHead):
    """Mask2FormerHead.predict above tiny queries."""


@MODELS.register_module()
class TinyMaskFormerHead(TinyMasks, MaskFormerHead):
    """MaskFormerHead.predict above tiny queries."""


@MODELS.register_module()
class TinySANHead(TinyMasks, SideAdapterCLIPHead):
    """SideAdapterCLIPHead.predict above tiny queries."""

    def forward(self, inputs, deep_supervision_idxs):
        _, features, embeddings = inputs
        queries, masks = self.masks(features[-1])
        return [masks], [torch.einsum('nqc,kc->nqk', queries, embeddings)]


HEADS = {'mask2former': 'TinyMask2FormerHead', 'maskformer': 'TinyMaskFormerHead', 'san': 'TinySANHead'}


def mask_model(name, preprocessor=None, **test_cfg):
    """Returns a segmentor with one of ``HEADS`` and random weights."""
    torch.manual_seed(0)
    head = dict(type=HEADS[name])
    common = dict(
        decode_head=head,
        data_preprocessor={**PREPROCESSOR, **(preprocessor or {})},
        train_cfg=dict(),
        test_cfg={'mode': 'whole', **test_cfg},
    )
    if name == 'san':
        parts = dict(image_encoder=dict(type='TinyEncoder'), text_encoder=dict(type='TinyTextEncoder'))
        config = dict(type='MultimodalEncoderDecoder', asymetric_input=False, **parts, **common)
    else:
        config = dict(type='EncoderDecoder', backbone=dict(type='TinyEncoder'), **common)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(ConfigDict(config))
    # Scores of several orders of magnitude, as of trained queries.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.eval()
