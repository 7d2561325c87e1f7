"""ConvNeXt as a backbone of mmseg, with timm's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from mmseg.registry import MODELS
from timm.layers import LayerNorm2d
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from mmadv.checkpoints.conventions import convention
from mmadv.errors import UserError
from mmadv.fields import Filled, Positive, PositiveNumber, Share, Stages, checked
from mmadv.models.backbones.conv_stem import ConvStem
from mmadv.models.backbones.staged import StagedBackbone


@MODELS.register_module()
@checked
class TimmConvNeXt(StagedBackbone):
    """The stem and the four stages of timm's ConvNeXt, with a LayerNorm on each output.

    Parameters of the stem and the stages have timm's names (``stem.0.weight``, ``stages.0.blocks.0.conv_dw.weight``,
    ...). Parameters of a ConvStem have the names of the public robust weights (``stem.stem.0.weight``, ...). The norms
    on the outputs are ``output_norms.0`` to ``3``. Every layer can be differentiated twice.

    Args:
        depths: blocks per stage.
        dims: channels per stage.
        patch_size: stride of the stem.
        stem_widths: channels of a ConvStem: (48, 96) in the tiny and small robust models, (64, 96, 128) in the base
            model. None takes the patch stem.
        drop_path_rate: the last block's rate of stochastic depth; the rate rises linearly over the blocks.
        layer_scale: initial value of the layer scale, ``None`` for no layer scale.
        out_indices: the stages whose features are returned.
        input_convention: the normalisation with which the weights were trained: 'unit', 'imagenet' or 'inception'.
            None states nothing.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: stem_widths do not end in the first stage's channels, or the convention is unknown.
    """

    fresh_parameters = {'output_norms.': 'norms of the outputs, which classifiers do not have'}

    def __init__(
        self,
        depths: tuple[Positive, Positive, Positive, Positive] = (3, 3, 9, 3),
        dims: tuple[Positive, Positive, Positive, Positive] = (96, 192, 384, 768),
        patch_size: Positive = 4,
        drop_path_rate: Share = 0.0,
        layer_scale: PositiveNumber | None = 1e-6,
        out_indices: Stages = (0, 1, 2, 3),
        init_cfg: dict | list[dict] | None = None,
        *,
        stem_widths: Annotated[Sequence[Positive], Filled()] | None = None,
        input_convention: str | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        convnext = ConvNeXt(
            num_classes=0,
            depths=tuple(depths),
            dims=tuple(dims),
            patch_size=patch_size,
            drop_path_rate=drop_path_rate,
            ls_init_value=layer_scale,
        )
        self.input_convention = None if input_convention is None else convention(input_convention).name
        self.out_indices = tuple(out_indices)
        if stem_widths is None:
            self.stem: nn.Module = convnext.stem
        else:
            if stem_widths[-1] != dims[0]:
                raise UserError(
                    f'stem_widths {tuple(stem_widths)} must end in {dims[0]}, the channels of the first stage'
                )
            self.stem = ConvStem(stem_widths, stride=patch_size)
        self.stages = convnext.stages
        self.output_norms = nn.ModuleDict({str(index): LayerNorm2d(dims[index]) for index in self.out_indices})

    def normalised(self, index: int, features: Tensor) -> Tensor:
        return self.output_norms[str(index)](features)
