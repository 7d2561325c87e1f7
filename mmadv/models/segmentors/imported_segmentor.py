"""ImportedSegmentor, the base class that makes networks of other libraries segmentors of mmseg."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmseg.models.segmentors import BaseSegmentor, EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from mmadv.errors import UserError, nearest
from mmadv.models.batches import stack_labels


class OutputHead(nn.Module):
    """A substitute for mmseg's decode head, with the attributes that mmseg and the adapter read.

    Args:
        network_name: the network's name in messages.
        num_classes: the number of classes in the outputs.
        gives_scores: whether the outputs are class scores instead of logits.
    """

    ignore_index = 255
    align_corners = False
    threshold = None

    def __init__(self, network_name: str, num_classes: int, gives_scores: bool) -> None:
        super().__init__()
        self.network_name = network_name
        self.num_classes = self.out_channels = num_classes
        self.gives_scores = gives_scores


class ImportedSegmentor(EncoderDecoder):
    """A network of another library as a segmentor of mmseg.

    The segmentor takes images of any size, in the size of their files. It resizes images as the network's own
    preprocessing does, and resizes the outputs back. A test pipeline therefore needs no resizing step. The resizing
    is part of the model: attacks change the pixels of the file, and gradients pass through the resizing. The resizing
    computes in floating point, while the library's own preprocessing rounds to 8 bits.

    The data preprocessor is mmseg's, with the network's own mean and std. The network brings its weights; a
    checkpoint of mmadv replaces them.

    Args:
        network: the network of the other library.
        names: the names of the network's classes.
        mean: the mean of each channel, for pixels in [0, 255].
        std: the standard deviation of each channel, for pixels in [0, 255].
        rgb: whether the network takes the red channel first.
        gives_scores: whether the network's outputs are class scores instead of logits.
        interpolation: the interpolation that resizes images.
        classes: the names of the data set's classes, in the data set's order. They select and order the outputs. None
            takes the network's own classes.
        resize: False leaves the size of the images to the pipeline.
        data_preprocessor: settings that replace those of the data preprocessor, such as its ``type``.
        train_cfg, test_cfg: as in EncoderDecoder.

    Attributes:
        class_names: the names of the outputs' classes.
        reduces_labels: whether the network was trained on labels minus 1, with the label 0 as void.
    """

    reduces_labels = False

    def __init__(
        self,
        network: nn.Module,
        *,
        names: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        rgb: bool,
        gives_scores: bool,
        interpolation: transforms.InterpolationMode,
        classes: Sequence[str] | None = None,
        resize: bool = True,
        data_preprocessor: Mapping[str, Any] | None = None,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        if len(names) < 2:
            raise UserError(f'{type(network).__name__} has {len(names)} class; a segmentor needs at least 2')
        settings = {
            'type': 'SegDataPreProcessor',
            'mean': list(mean),
            'std': list(std),
            'bgr_to_rgb': rgb,
            'size_divisor': 1,
            **(data_preprocessor or {}),
        }
        if settings.get('size') is not None and 'size_divisor' not in (data_preprocessor or {}):
            del settings['size_divisor']
        with DefaultScope.overwrite_default_scope('mmseg'):
            BaseSegmentor.__init__(self, data_preprocessor=MODELS.build(ConfigDict(settings)))
        self.network = network.eval()
        self.channels = None if classes is None else channels_of(classes, names, type(network).__name__)
        self.class_names = tuple(names if classes is None else classes)
        self.num_classes = self.out_channels = len(self.class_names)
        self.decode_head = OutputHead(type(network).__name__, self.num_classes, gives_scores)
        self.align_corners = False
        self.interpolation = interpolation
        self.resize = resize
        self.train_cfg = ConfigDict(train_cfg or {})
        self.test_cfg = ConfigDict({'mode': 'whole', **(test_cfg or {})})

    @abstractmethod
    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the size at which the network sees an image of the given size."""

    @abstractmethod
    def outputs(self, inputs: Tensor) -> Tensor:
        """Returns the network's logits or class scores (N, K, h, w), of any size, for inputs at the network's size."""

    @abstractmethod
    def network_losses(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Returns the training losses of the network.

        Args:
            inputs: (N, C, h, w), normalised images.
            labels: (N, h, w) int64, classes of the network or 255.
        """

    def init_weights(self) -> None:
        """Keeps the weights, which came with the network; the network's own method would draw new weights."""

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict] | None) -> Tensor:
        """Returns logits or class scores (N, K, H, W) for normalised images (N, C, H, W).

        Raises:
            UserError: the network returns another number of classes than it has names.
        """
        outputs = self.outputs(self.resized(inputs))
        if self.channels is not None:
            outputs = outputs[:, self.channels]
        return F.interpolate(outputs, size=inputs.shape[2:], mode='bilinear', align_corners=False)

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Returns the result of ``encode_decode``, because the network has no separate backbone and head here."""
        return self.encode_decode(inputs, None)

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> Tensor:
        return self.encode_decode(inputs, None)

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Returns the losses with which the network's library trains it, at the size that the network sees."""
        resized = self.resized(inputs)
        labels = self.network_labels(stack_labels(data_samples).to(inputs.device))
        labels = F.interpolate(labels[:, None].double(), size=resized.shape[2:], mode='nearest-exact')[:, 0].long()
        return self.network_losses(resized, labels)

    def network_labels(self, labels: Tensor) -> Tensor:
        """Returns labels in the network's classes for labels in the data set's classes; 255 stays 255."""
        if self.channels is None:
            return labels
        table = torch.full((256,), OutputHead.ignore_index, device=labels.device)
        table[: len(self.channels)] = torch.tensor(self.channels, device=labels.device)
        return table[labels]

    def resized(self, inputs: Tensor) -> Tensor:
        """Returns normalised images at the network's size, antialiased, with pixels between black and white."""
        given = (inputs.shape[2], inputs.shape[3])
        size = self.network_size(*given) if self.resize else given
        if size == given:
            return inputs
        # On 8 bits, libraries resize first the width, then the height. After each step they clip values that overshoot.
        wide = self._in_range(self._resized(inputs, (inputs.shape[2], size[1])))
        return self._in_range(self._resized(wide, size))

    def _resized(self, inputs: Tensor, size: tuple[int, int]) -> Tensor:
        return transforms.resize(inputs, list(size), interpolation=self.interpolation, antialias=True)

    def _in_range(self, inputs: Tensor) -> Tensor:
        """Returns normalised images with pixels clipped to the range from black to white.

        Only bicubic resizing leaves that range.
        """
        preprocessor = self.data_preprocessor
        if self.interpolation != transforms.InterpolationMode.BICUBIC or not preprocessor._enable_normalize:
            return inputs
        black, white = ((value - preprocessor.mean) / preprocessor.std for value in (0, 255))
        return torch.minimum(torch.maximum(inputs, black), white)


def channels_of(classes: Sequence[str], names: Sequence[str], network: str) -> list[int]:
    """Returns the index of each class in the names of a network's classes; only the first synonym of a name counts.

    >>> channels_of(['sky', 'Wall'], ['wall', 'building;edifice', 'sky'], 'SegFormer')
    [2, 0]

    Raises:
        UserError: the network does not have one of the classes.
    """
    places = {plain(name): place for place, name in reversed(list(enumerate(names)))}
    for name in classes:
        if plain(name) not in places:
            raise UserError(f"model.classes: {network} has no class '{name}'{nearest(plain(name), places)}")
    return [places[plain(name)] for name in classes]


def plain(name: str) -> str:
    """Returns a class name in the form for comparison: its first synonym, in lower case, with spaces for - and _.

    >>> plain('__background__'), plain('Traffic_Light'), plain('door;double door')
    ('background', 'traffic light', 'door')
    """
    return ' '.join(name.replace(';', ',').split(',')[0].lower().replace('_', ' ').replace('-', ' ').split())


def own_weights(model: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    """Returns the name and the files of the weights that a model's config names; None if the config names none.

    Args:
        model: the ``model`` of a config.
    """
    kind = MODELS.get(model['type']) if isinstance(model.get('type'), str) else model.get('type')
    if not (isinstance(kind, type) and issubclass(kind, ImportedSegmentor)):
        return None
    return kind.weight_files(model)
