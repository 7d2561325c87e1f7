"""The base class of backbones that consist of a stem and stages."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn


class StagedBackbone(BaseModule):
    """A stem and stages; the backbone returns the features of some stages.

    Attributes:
        stem: images -> features.
        stages: features -> features, in order.
        out_indices: the stages whose features are returned.
    """

    stem: nn.Module
    stages: nn.Sequential | nn.ModuleList
    out_indices: tuple[int, ...]

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns the features of the stages in ``out_indices``, (N, channels of the stage, h, w) each."""
        features = self.stem(inputs)
        outputs = []
        for index, stage in enumerate(self.stages):
            features = stage(features)
            if index in self.out_indices:
                outputs.append(self.normalised(index, features))
        return tuple(outputs)

    def normalised(self, index: int, features: Tensor) -> Tensor:
        """Returns the features of a stage in the form that the backbone returns, such as after a norm."""
        raise NotImplementedError
