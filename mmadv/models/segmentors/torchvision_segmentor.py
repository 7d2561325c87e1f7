"""TorchvisionSegmentor, which makes torchvision's segmentation models segmentors of mmseg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from mmseg.registry import MODELS
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import get_model, get_model_weights, list_models, segmentation
from torchvision.transforms.v2.functional import InterpolationMode

from mmadv.checkpoints.loading import load_weights
from mmadv.errors import UserError, nearest
from mmadv.fields import Positive, checked
from mmadv.models.segmentors.imported_segmentor import ImportedSegmentor

# Mean and std of ImageNet for pixels in [0, 1], as torchvision's presets of all segmentation models state them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Weight of the auxiliary head in the loss of torchvision's reference training.
AUXILIARY_WEIGHT = 0.5


@MODELS.register_module()
@checked
class TorchvisionSegmentor(ImportedSegmentor):
    """FCN, DeepLabv3 or LR-ASPP of torchvision, with the preset that belongs to its weights.

    The model resizes images as the preset does: the shorter side to ``size``, with antialiasing. The model resizes the
    outputs back to the size of the image. torchvision's own reference evaluation resizes the labels instead.

    Args:
        model: name of a model in ``torchvision.models.segmentation``, such as 'deeplabv3_resnet50'.
        weights: name of torchvision's weights, which are downloaded ('DEFAULT' for the best); a file of weights with
            torchvision's keys; or None for random weights.
        num_classes: the number of classes, if the weights are not torchvision's; those have the 21 classes of VOC.
        names: the names of the classes, if the weights are not torchvision's; None numbers the classes.
        size: the length of the shorter side in pixels; None takes that of the preset, 520.
        classes, resize, data_preprocessor, train_cfg, test_cfg: as in HuggingFaceSegmentor.

    Raises:
        UserError: there is no such model, there are no such weights, or the numbers of classes and names disagree.
    """

    def __init__(
        self,
        model: str,
        weights: str | None = 'DEFAULT',
        *,
        num_classes: Positive | None = None,
        names: Sequence[str] | None = None,
        size: Positive | None = None,
        classes: Sequence[str] | None = None,
        resize: bool = True,
        data_preprocessor: Mapping[str, Any] | None = None,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        known = list_models(module=segmentation)
        if model not in known:
            raise UserError(f"torchvision has no segmentation model '{model}'{nearest(model, known)}")
        stated = published_weights(model, weights)
        own_names = stated.meta['categories'] if stated is not None else names
        count = len(own_names) if own_names is not None else (num_classes or 21)
        if num_classes is not None and count != num_classes:
            raise UserError(
                f'model.num_classes is {num_classes}, but there are names of {count} classes; leave one out'
            )
        state = None if stated is None else state_dict_of(stated)
        auxiliary = {} if model.startswith('lraspp') else {'aux_loss': True}
        network = get_model(model, weights=None, weights_backbone=None, num_classes=count, **auxiliary)
        if state is not None:
            network.load_state_dict(state)
        elif weights is not None:
            load_weights(network, weights)
        preset = stated.transforms() if stated is not None else None
        self._size = size or (preset.resize_size[0] if preset is not None else 520)
        super().__init__(
            network,
            names=list(own_names) if own_names is not None else [str(k) for k in range(count)],
            mean=[255 * value for value in (preset.mean if preset is not None else MEAN)],
            std=[255 * value for value in (preset.std if preset is not None else STD)],
            rgb=True,
            gives_scores=False,
            interpolation=InterpolationMode.BILINEAR,
            classes=classes,
            resize=resize,
            data_preprocessor=data_preprocessor,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
        )

    @staticmethod
    def weight_files(model: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
        """Returns the name and the file of ``weights`` in a model's config; None for random weights."""
        name = model.get('weights', 'DEFAULT')
        if name is None:
            return None
        stated = published_weights(model['model'], name)
        if stated is None:
            return name, [Path(name)]
        state_dict_of(stated)
        file = Path(torch.hub.get_dir()) / 'checkpoints' / stated.url.rpartition('/')[2]
        return f'torchvision {stated}', [file]

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the image's size after the shorter side is resized to ``size``, rounded as in torchvision."""
        short, long = min(height, width), max(height, width)
        other = int(self._size * long / short)
        return (self._size, other) if height <= width else (other, self._size)

    def outputs(self, inputs: Tensor) -> Tensor:
        """Returns logits (N, K, h, w)."""
        return self.network(inputs)['out']

    def network_losses(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Returns the mean cross-entropy of the labelled pixels, and half the cross-entropy of the auxiliary head."""
        outputs = self.network(inputs)
        losses = {'loss_network': F.cross_entropy(outputs['out'], labels, ignore_index=255)}
        if 'aux' in outputs:
            auxiliary = F.cross_entropy(outputs['aux'], labels, ignore_index=255)
            losses['loss_auxiliary'] = AUXILIARY_WEIGHT * auxiliary
        return losses


def published_weights(model: str, name: str | None) -> Any:
    """Returns torchvision's weights of the given name; None if the name is None or names a file.

    Raises:
        UserError: the name is neither that of weights nor that of a file.
    """
    if name is None or Path(name).is_file():
        return None
    known = get_model_weights(model)
    if name not in known.__members__:
        raise UserError(
            f"there is no file '{name}', and torchvision has no such weights of {model}"
            f'{nearest(name, ["DEFAULT", *known.__members__])}'
        )
    return known[name]


def state_dict_of(weights: Any) -> Mapping[str, Tensor]:
    """Returns the tensors of torchvision's weights, downloaded once.

    Raises:
        UserError: the weights cannot be downloaded.
    """
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(f'cannot download {weights} from {weights.url}: {error}') from error
