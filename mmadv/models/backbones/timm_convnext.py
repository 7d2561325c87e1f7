"""ConvNeXt as a backbone of mmseg, on timm's blocks."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmseg.registry import MODELS
from timm.layers import LayerNorm2d
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn


@MODELS.register_module()
class TimmConvNeXt(BaseModule):
    """The stem and the four stages of timm's ConvNeXt, with a LayerNorm on each output.

    Parameters of the stem and the stages have the names that timm gives them (``stem.0.weight``,
    ``stages.0.blocks.0.conv_dw.weight``, ...); the norms on the outputs are ``output_norms.0`` to ``3``.

    Args:
        depths: blocks per stage.
        dims: channels per stage.
        patch_size: stride of the stem.
        drop_path_rate: the last block's rate of stochastic depth; it rises linearly to this.
        layer_scale: initial value of the layer scale, ``None`` for no layer scale.
        out_indices: the stages whose features are returned.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        depths: Sequence[int] = (3, 3, 9, 3),
        dims: Sequence[int] = (96, 192, 384, 768),
        patch_size: int = 4,
        drop_path_rate: float = 0.0,
        layer_scale: float | None = 1e-6,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        init_cfg: dict | list[dict] | None = None,
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
        self.out_indices = tuple(out_indices)
        self.stem = convnext.stem
        self.stages = convnext.stages
        self.output_norms = nn.ModuleDict({str(index): LayerNorm2d(dims[index]) for index in self.out_indices})

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns the normalised features of the stages in ``out_indices``, (N, dims[i], h, w) each."""
        features = self.stem(inputs)
        outputs = []
        for index, stage in enumerate(self.stages):
            features = stage(features)
            if index in self.out_indices:
                outputs.append(self.output_norms[str(index)](features))
        return tuple(outputs)
