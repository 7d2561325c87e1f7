"""Vision transformers as backbones of mmseg, with timm's blocks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mmadv.checkpoints.conventions import convention
from mmadv.errors import UserError
from mmadv.fields import Filled, NotNegative, Positive, PositiveNumber, Share, checked
from mmadv.models.backbones.conv_stem import ConvStem


@MODELS.register_module()
@checked
class TimmVisionTransformer(BaseModule):
    """timm's VisionTransformer without its classifier; the backbone returns maps of patch features.

    Parameters have timm's names (``cls_token``, ``pos_embed``, ``patch_embed.proj``, ``blocks.0.attn.qkv.weight``, ...,
    ``norm``). A ConvStem is ``patch_embed.proj.stem.*``. The position embedding is stored for ``img_size``, and
    resized to the input's grid if that differs.

    Args:
        img_size: height and width for which the position embedding is stored.
        patch_size: side of a patch; height and width of the input must be multiples of it.
        embed_dim: number of channels.
        depth: number of blocks.
        num_heads: number of attention heads.
        stem_widths: channels of a ConvStem's convolutions, (48, 96, 192, 384) in the robust models; None takes the
            linear patch embedding.
        drop_path_rate: the last block's rate of stochastic depth; the rate rises linearly over the blocks.
        out_indices: the blocks whose features are returned; the final norm applies only to the last block's features.
        second_order_gradients: whether losses may differentiate input gradients. True switches off fused attention,
            which is faster but can be differentiated only once.
        norm_eps: epsilon of the layer norms; timm uses 1e-6, the code of Segmenter 1e-5.
        input_convention: the normalisation with which the weights were trained: 'unit', 'imagenet' or 'inception'.
            None states nothing.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: ``img_size`` is not a multiple of ``patch_size``, ``out_indices`` holds an index that is not a block,
            or the convention is unknown.
    """

    def __init__(
        self,
        *,
        img_size: Positive | tuple[Positive, Positive] = 224,
        patch_size: Positive = 16,
        embed_dim: Positive = 384,
        depth: Positive = 12,
        num_heads: Positive = 6,
        stem_widths: Annotated[Sequence[Positive], Filled()] | None = None,
        drop_path_rate: Share = 0.0,
        out_indices: Annotated[Sequence[NotNegative], Filled()] = (11,),
        second_order_gradients: bool = False,
        norm_eps: PositiveNumber = 1e-6,
        input_convention: str | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        size = (img_size, img_size) if isinstance(img_size, int) else (img_size[0], img_size[1])
        if any(side < patch_size or side % patch_size for side in size):
            raise UserError(f'img_size {size} of the backbone must be multiples of its patch_size {patch_size}')
        if not all(0 <= index < depth for index in out_indices):
            raise UserError(f'out_indices {tuple(out_indices)} of the backbone must be from 0 to {depth - 1}')
        transformer = VisionTransformer(
            img_size=size,
            patch_size=patch_size,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            drop_path_rate=drop_path_rate,
            num_classes=0,
            global_pool='token',
            norm_layer=functools.partial(nn.LayerNorm, eps=norm_eps),
        )
        self.input_convention = None if input_convention is None else convention(input_convention).name
        self.out_indices = tuple(out_indices)
        self.patch_size = patch_size
        self.grid_size: tuple[int, int] = (size[0] // patch_size, size[1] // patch_size)
        self.patch_embed = transformer.patch_embed
        if stem_widths is not None:
            self.patch_embed.proj = ConvStem(stem_widths, stride=patch_size, projection=embed_dim)
        assert transformer.cls_token is not None  # it has one by default
        self.cls_token = transformer.cls_token
        self.pos_embed = transformer.pos_embed
        self.blocks = transformer.blocks
        self.norm = transformer.norm
        if second_order_gradients:
            for block in self.blocks:
                attention: Any = block.attn
                attention.fused_attn = False

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns features (N, embed_dim, H / patch_size, W / patch_size) of the blocks in ``out_indices``.

        Raises:
            UserError: the height or width of the input is not a multiple of the patch size.
        """
        if inputs.shape[2] % self.patch_size or inputs.shape[3] % self.patch_size:
            raise UserError(
                f'the network got an input of {inputs.shape[2]}x{inputs.shape[3]}, which is not a multiple of its '
                f'patch size {self.patch_size}; pad it with data_preprocessor.size_divisor={self.patch_size} in '
                f'training and data_preprocessor.test_cfg=dict(size_divisor={self.patch_size}) in testing'
            )
        patches = self.patch_embed.proj(inputs)
        count, _, height, width = patches.shape
        tokens = torch.cat([self.cls_token.expand(count, -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        tokens = tokens + resample_abs_pos_embed(
            self.pos_embed, new_size=[height, width], old_size=list(self.grid_size)
        )
        outputs = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.out_indices:
                features = self.norm(tokens) if index == len(self.blocks) - 1 else tokens
                outputs.append(features[:, 1:].transpose(1, 2).reshape(count, -1, height, width))
        return tuple(outputs)
