"""AdvSegDataPreProcessor: adversarial training as a data preprocessor."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import MessageHub
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from mmadv.attacks import Attack, NonFinite, derive_seed
from mmadv.errors import UserError
from mmadv.fields import Positive, PositiveNumber, Share, checked
from mmadv.models.adapter import FAITHFUL_PREPROCESSORS, TrainingAdapter
from mmadv.models.batches import check_channels, check_labels, check_not_scaled, check_pixels, label_maps, sample_names
from mmadv.models.iteration_key import IterationKey
from mmadv.registry import ATTACKS, build


@MODELS.register_module()
@checked
class AdvSegDataPreProcessor(SegDataPreProcessor):
    """mmseg's SegDataPreProcessor that replaces samples of a training batch by adversarial examples.

    The attack sees raw pixels in [0, 1] and the model in eval mode, without autocast. Normalisation, channel
    order, padding and ``batch_augments`` then follow as in mmseg, on the adversarial pixels. The attack neither
    perturbs nor counts padding. In testing, and for samples that are not chosen, the result equals that of mmseg's
    own preprocessor bit for bit.

    The preprocessor finds the model by itself: it keeps a weak reference to the segmentor that takes it as
    ``data_preprocessor``. Checkpoints therefore stay those of the stock model.

    All random choices are a function of the run's seed, the training iteration and the sample's place in the whole
    batch, over all processes. A resumed run therefore draws the same noise as a run without interruption. n
    processes draw the same noise as one process with an n times larger batch.

    A segmentor that trains on clean and adversarial images at once (``trains_on_pairs``, as in TRADES) gets both. The
    inputs are then (2N, C, H, W), the clean images first, and the data samples are N.

    Args:
        attack: config of an attack, ``dict(type='PGD', threat=dict(type='Linf', radius='4/255'), ...)``, or
            the attack. It may be missing only if ``prob`` is 0.
        prob: the probability in [0, 1] that a sample becomes adversarial, drawn for each sample.
        mean, std, size, size_divisor, pad_val, seg_pad_val, bgr_to_rgb, rgb_to_bgr, batch_augments, test_cfg: as
            in SegDataPreProcessor.

    Raises:
        UserError: ``attack`` or ``prob`` is invalid, or arguments belong to another preprocessor.
    """

    def __init__(
        self,
        attack: Attack | Mapping[str, Any] | None = None,
        prob: Share = 1.0,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[PositiveNumber] | None = None,
        size: tuple[Positive, Positive] | None = None,
        size_divisor: Positive | None = None,
        pad_val: float = 0,
        seg_pad_val: float = 255,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
        batch_augments: Callable | None = None,
        test_cfg: dict | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise UserError(
                f'AdvSegDataPreProcessor has no argument {", ".join(sorted(unknown))}; it replaces a '
                'SegDataPreProcessor, and the data_preprocessor of this config is of another kind'
            )
        check_statistics(mean, std)
        if bgr_to_rgb and rgb_to_bgr:
            raise UserError('data_preprocessor.bgr_to_rgb and rgb_to_bgr are both True; set the one that is meant')
        if attack is None and prob > 0:
            raise UserError(f'data_preprocessor.prob is {prob} but there is no attack; give data_preprocessor.attack')
        super().__init__(
            mean=mean,
            std=std,
            size=size,
            size_divisor=size_divisor,
            pad_val=pad_val,
            seg_pad_val=seg_pad_val,
            bgr_to_rgb=bgr_to_rgb,
            rgb_to_bgr=rgb_to_bgr,
            batch_augments=batch_augments,
            test_cfg=test_cfg,
        )
        self.attack = None if attack is None else build(attack, ATTACKS)
        if not (self.attack is None or isinstance(self.attack, Attack)):
            raise UserError(f'data_preprocessor.attack must be an attack; found {self.attack!r}')
        if self.attack is not None and self.attack.targeted:
            raise UserError(
                'data_preprocessor.attack is targeted, which would move the images towards their own labels; '
                'adversarial training takes an untargeted attack'
            )
        self.prob = float(prob)
        self._segmentor: weakref.ref[BaseSegmentor] | None = None
        self._key = IterationKey()
        self._settings_checked = False

    def bind(self, segmentor: BaseSegmentor) -> None:
        """Makes ``segmentor`` the model under attack.

        A segmentor that is built with this preprocessor calls this method by itself.
        """
        self._segmentor = weakref.ref(segmentor)

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """Returns the batch as SegDataPreProcessor does, with adversarial samples when ``training``.

        Args:
            data: 'inputs', a list of (C, h, w) images in [0, 255], and 'data_samples' with their labels.
            training: whether this is a training step.

        Raises:
            UserError: pixels are outside [0, 255] or scaled to [0, 1]; labels are not classes, or a label map differs
                from its image in size; logits or gradients are NaN or infinite; or mmadv cannot attack the model.
        """
        self.check_settings()
        if not training or data.get('data_samples') is None:
            return super().forward(data, training)
        if not self._trains_on_pairs():
            return super().forward(self._attacked(data), True)
        if self.batch_augments is not None:
            raise UserError(
                'data_preprocessor.batch_augments would mix clean and adversarial images differently; drop it'
            )
        # Padding writes into the data samples.
        clean = super().forward({**data, 'data_samples': [sample.clone() for sample in data['data_samples']]}, True)
        paired = super().forward(self._attacked(data), True)
        return {**paired, 'inputs': torch.cat([clean['inputs'], paired['inputs']])}

    def check_settings(self) -> None:
        """Raises UserError if MMEngine has dropped the normalisation of a top-level ``data_preprocessor``.

        The commands of mmadv merge the top-level preprocessor with that of the model. MMEngine's own runner takes the
        model's preprocessor alone. This check reads the config's text, which the runner's hooks store in the message
        hub.
        """
        if self._settings_checked or self._enable_normalize:
            return
        text = MessageHub.get_current_instance().runtime_info.get('cfg')
        config = Config.fromstring(text, '.py') if text else {}
        own = (config.get('model') or {}).get('data_preprocessor') or {}
        outer = config.get('data_preprocessor') or {}
        if own.get('type') == type(self).__name__ and own.get('mean') is None and outer.get('mean') is not None:
            raise UserError(
                'model.data_preprocessor has no mean and std, and MMEngine drops those of the top-level '
                'data_preprocessor; give them under model too, or use the tools of mmadv, which merge the two'
            )
        self._settings_checked = True

    def _attacked(self, data: dict) -> dict:
        """Returns a training batch in which adversarial examples replace the chosen samples."""
        if self.attack is None or self.prob == 0:
            return data
        data, model, names = self._checked(data)
        key = self._key.next()
        for chosen in self._choose(data['inputs'], key):
            adversarial = self._attack_samples(model, data, chosen, names, key)
            for index, image in zip(chosen, adversarial, strict=True):
                data['inputs'][index] = image * 255
        return data

    def _checked(self, data: dict) -> tuple[dict, TrainingAdapter, list[str]]:
        """Returns a training batch on the model's device, the model under attack, and the samples' names.

        Raises:
            UserError: the pixels, the labels or the model do not suit training.
        """
        segmentor = self._bound_segmentor()
        # mmseg decides the size of the batch. The attack must see the network's input size.
        padded_size = self._padded_size([tuple(image.shape[-2:]) for image in data['inputs']])
        model = TrainingAdapter(segmentor, padded_size)
        names = sample_names(data['data_samples'])
        labels = label_maps(data['data_samples'])
        check_pixels(data['inputs'], names)
        check_channels(data['inputs'], names, self)
        check_not_scaled(data['inputs'], names)
        check_sizes(data['inputs'], labels, names)
        check_labels(labels, names, model.num_classes, model.ignore_index)
        data = dict(self.cast_data(data))
        data['inputs'] = list(data['inputs'])
        return data, model, names

    def _attack_samples(
        self, model: TrainingAdapter, data: dict, chosen: list[int], names: list[str], key: tuple
    ) -> Tensor:
        assert self.attack is not None  # without one, no sample is chosen
        images = torch.stack([data['inputs'][index].float() for index in chosen]) / 255
        labels = torch.stack(label_maps([data['data_samples'][index] for index in chosen]))
        seeds = self._seeds(chosen, key)
        # Low precision flips the sign of many input gradients, so the attack runs in float32 in any training.
        with torch.autocast(images.device.type, enabled=False):
            try:
                adversarial = self.attack.perturb(model, images, labels, seeds=seeds, ignore_index=model.ignore_index)
            except NonFinite as error:
                raise UserError(
                    f'{names[chosen[error.index]]}: {error.description} at iteration '
                    f'{error.iteration} of the attack in training iteration {key[1]}; lower the learning rate, '
                    'and check the weights and the normalisation'
                ) from error
        return adversarial

    def _choose(self, inputs: Sequence[Tensor], key: tuple) -> list[list[int]]:
        """Returns the positions of the samples to attack, in groups of equal image size."""
        seed, iteration, call = key
        generator = torch.Generator().manual_seed(derive_seed('choice', seed, 0, iteration, call))
        whole = torch.rand(len(inputs) * get_world_size(), generator=generator, dtype=torch.float64)
        selected = whole[[place_in_whole_batch(index) for index in range(len(inputs))]] < self.prob
        groups: dict[tuple[int, ...], list[int]] = {}
        for index in selected.nonzero().flatten().tolist():
            groups.setdefault(tuple(inputs[index].shape), []).append(index)
        return list(groups.values())

    def _seeds(self, chosen: Sequence[int], key: tuple) -> list[int]:
        """Returns one seed for each chosen position."""
        seed, iteration, call = key
        # The constant 0 gives the same noise as older versions gave in one process.
        return [derive_seed('noise', seed, 0, iteration, call, place_in_whole_batch(index)) for index in chosen]

    def _padded_size(self, sizes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
        """Returns the height and width of the batch after mmseg's padding in training."""
        height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
        if (self.size is None) == (self.size_divisor is None):
            raise UserError('data_preprocessor needs exactly one of size and size_divisor in training')
        if self.size is not None:
            return max(height, self.size[-2]), max(width, self.size[-1])
        divisor = max(self.size_divisor, 1)
        return math.ceil(height / divisor) * divisor, math.ceil(width / divisor) * divisor

    def _trains_on_pairs(self) -> bool:
        segmentor = None if self._segmentor is None else self._segmentor()
        return getattr(segmentor, 'trains_on_pairs', False)

    def _bound_segmentor(self) -> BaseSegmentor:
        segmentor = None if self._segmentor is None else self._segmentor()
        if segmentor is None:
            raise UserError(
                'AdvSegDataPreProcessor does not belong to a segmentor of mmseg: build the model with it as its '
                'data_preprocessor, or call bind(segmentor)'
            )
        check_not_sharded(segmentor)
        check_trainable(segmentor)
        return segmentor

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_segmentor': None}

    def __deepcopy__(self, memo: dict[int, Any]) -> AdvSegDataPreProcessor:
        """Returns a copy; if the segmentor is copied too, the new preprocessor is bound to the new segmentor."""
        duplicate = type(self).__new__(type(self))
        memo[id(self)] = duplicate
        duplicate.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        segmentor = None if self._segmentor is None else self._segmentor()
        if segmentor is not None and id(segmentor) in memo:
            duplicate.bind(memo[id(segmentor)])
        return duplicate


def check_statistics(mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Raises UserError unless mean and std have one value for each of 1 or 3 channels, or are both missing."""
    if mean is None and std is None:
        return
    if mean is None or std is None or len(mean) not in (1, 3) or len(mean) != len(std):
        raise UserError(
            f'data_preprocessor.mean and std must both have 1 or 3 values, or both be missing; found {mean} and {std}'
        )


def place_in_whole_batch(index: int) -> int:
    """Returns the place of this process's sample in the whole batch, as mmengine's samplers distribute samples."""
    return index * get_world_size() + get_rank()


def check_not_sharded(segmentor: nn.Module) -> None:
    """Raises UserError if FSDP has sharded the model's parameters."""
    if any(getattr(module, '_is_fsdp_managed_module', False) for module in segmentor.modules()):
        raise UserError(
            'adversarial training does not work with FSDP, whose sharded modules cannot be called on their own; '
            'use MMDistributedDataParallel'
        )


def check_trainable(segmentor: nn.Module) -> None:
    """Raises UserError if no parameter of the model is trainable."""
    if not any(parameter.requires_grad for parameter in segmentor.parameters()):
        raise UserError(
            'every parameter of the model is frozen, so there is nothing to train; unfreeze a head, '
            'and check frozen_stages'
        )


def check_sizes(inputs: Sequence[Tensor], labels: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raises UserError that names the first image whose label map has another size."""
    for image, label, name in zip(inputs, labels, names, strict=True):
        if image.shape[-2:] != label.shape:
            raise UserError(
                f'{name}: the image is {image.shape[-2]}x{image.shape[-1]} and its label map '
                f'{label.shape[0]}x{label.shape[1]} (height x width); they must be of one size'
            )


def _bind_to_segmentor(module: nn.Module, name: str, submodule: nn.Module | None) -> None:
    if isinstance(submodule, AdvSegDataPreProcessor) and isinstance(module, BaseSegmentor):
        submodule.bind(module)


FAITHFUL_PREPROCESSORS.append(AdvSegDataPreProcessor)
# This hook binds the model at construction, wherever it is built. A hook in the config would not do: a config's
# custom_hooks replace those of the user.
register_module_module_registration_hook(_bind_to_segmentor)
