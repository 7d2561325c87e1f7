"""HuggingFaceSegmentor: segmentation models of Hugging Face's transformers as segmentors of mmseg."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.transforms.v2.functional import InterpolationMode

from mmadv.errors import UserError
from mmadv.fields import checked
from mmadv.models.segmentors.imported_segmentor import ImportedSegmentor

# Interpolations by their numbers in PIL. torchvision has no Lanczos on tensors (1); like the processors of
# transformers, this table takes bicubic instead.
INTERPOLATIONS = {
    0: InterpolationMode.NEAREST_EXACT,
    1: InterpolationMode.BICUBIC,
    2: InterpolationMode.BILINEAR,
    3: InterpolationMode.BICUBIC,
}
# Models whose outputs are class and mask logits of queries, besides those whose names end in
# ForUniversalSegmentation.
MASK_CLASSIFIERS = ('MaskFormerForInstanceSegmentation',)
# Mask2Former's processor scales masks to this size before it adds them up, for images of any size.
MASK2FORMER_SIZE = (384, 384)
# Steps of a processor that change more than the size and the range of an image.
OTHER_STEPS = ('do_center_crop', 'do_pad', 'do_split_image')


@MODELS.register_module()
@checked
class HuggingFaceSegmentor(ImportedSegmentor):
    """A semantic or universal segmentation model of transformers, with the settings of its image processor.

    The processor defines mean, std, rescaling, channel order, size and interpolation. The model's ``id2label`` defines
    the names of the classes. The prediction is that of the processor's ``post_process_semantic_segmentation`` at the
    size of the image. Models that classify masks (MaskFormer, Mask2Former, OneFormer, EoMT) return class scores, and
    attacks take their logarithms. The segmentor omits a processor's centre crop, which would cut off image parts that
    need a prediction.

    The segmentor reads only safetensors files. It runs no code of a repository.

    Args:
        pretrained: name on Hugging Face's hub, a folder with ``config.json``, ``preprocessor_config.json`` and
            ``model.safetensors``, or a model.
        processor: the model's processor; None reads the processor that is stored with the model.
        classes: names of the data set's classes, in the data set's order, if the model has another order. None takes
            the model's classes.
        resize: False leaves the size of the images to the pipeline, as sliding windows need.
        data_preprocessor: settings that replace the processor's, such as ``dict(type='AdvSegDataPreProcessor',
            attack=...)`` for adversarial training, or ``mean`` and ``std`` in [0, 255].
        train_cfg, test_cfg: as in EncoderDecoder.

    Raises:
        UserError: transformers is missing, the model is not a segmentor, the model's file lacks weights, or the
            processor does not define the normalisation.
    """

    def __init__(
        self,
        pretrained: str | nn.Module,
        processor: Any = None,
        *,
        classes: Sequence[str] | None = None,
        resize: bool = True,
        data_preprocessor: Mapping[str, Any] | None = None,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        transformers = import_transformers()
        network: Any = load_network(pretrained, transformers) if isinstance(pretrained, str) else pretrained
        check_segments(type(network).__name__, str(getattr(network, 'name_or_path', '') or 'the model'))
        if processor is None:
            processor = load_processor(pretrained, network, transformers)
        self._processor = getattr(processor, 'image_processor', processor)
        given = data_preprocessor or {}
        statistics = (given['mean'], given['std']) if {'mean', 'std'} <= set(given) else None
        mean, std = statistics or normalisation(self._processor, pretrained)
        labels = network.config.id2label
        self._classifies_masks = classifies_masks(type(network).__name__)
        if getattr(self._processor, 'do_pad', False) and network.config.model_type.startswith('eomt'):
            raise UserError(
                f'the processor of {_shown(pretrained)} pads images, as for panoptic segmentation; '
                'take a checkpoint for semantic segmentation, whose processor has do_split_image'
            )
        self._sizes = functools.lru_cache(maxsize=256)(functools.partial(processed_size, self._processor))
        super().__init__(
            network,
            names=[str(labels[key]) for key in sorted(labels)],
            mean=mean,
            std=std,
            rgb=not getattr(self._processor, 'do_flip_channel_order', False),
            gives_scores=self._classifies_masks,
            interpolation=INTERPOLATIONS[int(getattr(self._processor, 'resample', None) or 2)],
            classes=classes,
            resize=resize and bool(getattr(self._processor, 'do_resize', False)),
            data_preprocessor=data_preprocessor,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
        )
        self.reduces_labels = bool(getattr(self._processor, 'do_reduce_labels', False))
        if network.config.model_type == 'oneformer':
            self.register_buffer('task', task_tokens(processor, network), persistent=False)

    @staticmethod
    def weight_files(model: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
        """Returns the name and the safetensors files of ``pretrained`` in a model's config."""
        pretrained = model.get('pretrained')
        return (pretrained, safetensors_files(pretrained)) if isinstance(pretrained, str) else None

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the size to which the processor resizes an image of the given size."""
        return self._sizes(height, width)

    def outputs(self, inputs: Tensor) -> Tensor:
        """Returns logits (N, K, h, w), or class scores if the model classifies masks."""
        # EoMT's attention masks are float32. torch's fused attention misreads them if the inputs are float64.
        with sdpa_kernel(SDPBackend.MATH) if inputs.dtype == torch.float64 else nullcontext():
            return self._outputs(inputs)

    def _outputs(self, inputs: Tensor) -> Tensor:
        if not self._classifies_masks:
            return self.network(pixel_values=inputs).logits
        if not getattr(self._processor, 'do_split_image', False):
            return self._scores(inputs)
        return self._scores_of_windows(inputs)

    def network_losses(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Returns the model's own loss: on masks if the model classifies masks, else on pixels."""
        if not self._classifies_masks:
            return {'loss_network': self.network(pixel_values=inputs, labels=labels).loss}
        if hasattr(self, 'task'):
            raise UserError('OneFormer is trained on texts of what an image holds, which are not made here')
        present = [sorted(set(one.unique().tolist()) - {255}) for one in labels]
        masks = [
            torch.stack([one == k for k in some]).to(inputs) if some else inputs.new_zeros((0, *one.shape))
            for one, some in zip(labels, present, strict=True)
        ]
        targets = [torch.tensor(some, dtype=torch.int64, device=inputs.device) for some in present]
        return {'loss_network': self.network(pixel_values=inputs, mask_labels=masks, class_labels=targets).loss}

    def _scores(self, inputs: Tensor) -> Tensor:
        """Returns Σ_q p(class | q) p(mask | q), at the size at which the processor adds up masks."""
        task = {'task_inputs': self.task.expand(len(inputs), -1)} if hasattr(self, 'task') else {}
        output = self.network(pixel_values=inputs, **task)
        masks = output.masks_queries_logits
        config: Any = self.network.config
        kind = config.model_type
        if kind == 'mask2former':
            masks = F.interpolate(masks, size=MASK2FORMER_SIZE, mode='bilinear', align_corners=False)
        elif kind.startswith('eomt'):
            masks = F.interpolate(masks, size=inputs.shape[2:], mode='bilinear', align_corners=False)
        classes = output.class_queries_logits.softmax(-1)[..., :-1]
        return torch.einsum('bqc,bqhw->bchw', classes, masks.sigmoid())

    def _scores_of_windows(self, inputs: Tensor) -> Tensor:
        """Returns the mean scores over square windows along the longer side, as EoMT's processor cuts them."""
        axis = 2 if inputs.shape[2] > inputs.shape[3] else 3
        side, length = min(inputs.shape[2:]), inputs.shape[axis]
        number = math.ceil(length / side)
        overlap = (number * side - length) / (number - 1) if number > 1 else 0
        total: Any = 0
        counts: Any = 0
        for n in range(number):
            start = int(n * (side - overlap))
            scores = self._scores(inputs.narrow(axis, start, side))
            rest = (start, length - start - side)
            padding = (0, 0, *rest) if axis == 2 else rest
            total = total + F.pad(scores, padding)
            counts = counts + F.pad(torch.ones_like(scores[:1, :1]), padding)
        return total / counts


def import_transformers() -> ModuleType:
    """Returns the package transformers, or raises UserError that names the extra with this package."""
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            "HuggingFaceSegmentor needs transformers; install it with pip install 'mmadv[huggingface]'"
        ) from error
    return transformers


def classifies_masks(architecture: str) -> bool:
    """Returns whether a class of transformers outputs class and mask logits of queries.

    >>> classifies_masks('EomtForUniversalSegmentation'), classifies_masks('SegformerForSemanticSegmentation')
    (True, False)
    """
    return architecture.endswith('ForUniversalSegmentation') or architecture in MASK_CLASSIFIERS


def check_segments(architecture: str, name: str) -> None:
    """Raises UserError if a class of transformers is not a segmentation model."""
    if not (architecture.endswith('ForSemanticSegmentation') or classifies_masks(architecture)):
        raise UserError(
            f'{name} is a {architecture}, whose outputs are no class scores of pixels; take a model for semantic or '
            'universal segmentation'
        )


def load_network(name: str, transformers: ModuleType) -> nn.Module:
    """Returns a model of transformers with all of its weights loaded.

    Raises:
        UserError: there is no such model, or the model does not segment. Or weights are missing, do not belong to the
            model or have another size.
    """
    config = _from_pretrained(transformers.AutoConfig, name)
    architecture = (config.architectures or ['model of no stated architecture'])[0]
    check_segments(architecture, name)
    kind = getattr(transformers, architecture, None)
    if kind is None:
        raise UserError(f'{name} is a {architecture}, which transformers {transformers.__version__} does not have')
    options = {'use_safetensors': True, 'output_loading_info': True, 'dtype': torch.float32}
    network, report = _from_pretrained(kind, name, **options, ignore_mismatched_sizes=True)
    resized = [f'{key}: {tuple(a)} in the file, {tuple(b)} in the model' for key, a, b in report['mismatched_keys']]
    problems = [
        f'{len(keys)} {what}, first {keys[0]}'
        for what, keys in (
            ('of another size', sorted(resized)),
            ('missing', _weights(report['missing_keys'])),
            ('not in the model', _weights(report['unexpected_keys'])),
        )
        if keys
    ]
    if problems:
        raise UserError(f'the weights of {name} do not fit {architecture}: {"; ".join(problems)}')
    return network


def _weights(keys: Iterable[str]) -> list[str]:
    """Returns keys in order, without the counters of batch norms, which matter only if momentum is None."""
    return sorted(key for key in keys if not key.endswith('num_batches_tracked'))


def load_processor(pretrained: str | nn.Module, network: Any, transformers: ModuleType) -> Any:
    """Returns the processor that is stored with a model; OneFormer's processor also holds a tokenizer."""
    if not isinstance(pretrained, str):
        raise UserError(f'HuggingFaceSegmentor needs the processor of {type(pretrained).__name__}; give processor=')
    whole = network.config.model_type == 'oneformer'
    return _from_pretrained(transformers.AutoProcessor if whole else transformers.AutoImageProcessor, pretrained)


def _from_pretrained(kind: Any, name: str, **options: Any) -> Any:
    from safetensors import SafetensorError

    try:
        return kind.from_pretrained(name, **options)
    except SafetensorError as error:
        raise UserError(
            f'cannot read {kind.__name__} of {name}: a safetensors file is damaged or cut short ({error}); copy or '
            'download it again'
        ) from error
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise UserError(f'cannot read {kind.__name__} of {name}: {reason}') from error


def normalisation(processor: Any, pretrained: Any) -> tuple[list[float], list[float]]:
    """Returns the mean and std by which a processor normalises, for pixels in [0, 255].

    Raises:
        UserError: the processor normalises, but its mean or std is missing or does not have 3 values.
    """
    scale = float(processor.rescale_factor) if getattr(processor, 'do_rescale', False) else 1.0
    if not getattr(processor, 'do_normalize', False):
        return [0.0] * 3, [1 / scale] * 3
    values = []
    for name in ('image_mean', 'image_std'):
        value = getattr(processor, name, None)
        value = [value] * 3 if isinstance(value, (int, float)) else value
        if value is None or len(value) != 3:
            raise UserError(
                f'the processor of {_shown(pretrained)} normalises images, but its {name} is {value}; give '
                'model.data_preprocessor=dict(mean=[...], std=[...]) for pixels in [0, 255]'
            )
        values.append([float(one) / scale for one in value])
    return values[0], values[1]


def processed_size(processor: Any, height: int, width: int) -> tuple[int, int]:
    """Returns the size to which a processor resizes an image, without its other steps."""
    steps = {name: False for name in OTHER_STEPS if getattr(processor, name, None)}
    image = torch.zeros((3, height, width), dtype=torch.uint8)
    pixels = processor(images=[image], return_tensors='pt', do_normalize=False, **steps)['pixel_values']
    return tuple(pixels[0].shape[-2:])


def task_tokens(processor: Any, network: Any) -> Tensor:
    """Returns the tokens, (1, L), that ask OneFormer for semantic segmentation."""
    if getattr(processor, 'tokenizer', None) is None:
        raise UserError('OneFormer needs an OneFormerProcessor, whose tokenizer reads the task; give that as processor')
    length = network.config.task_seq_len
    tokens = processor.tokenizer(
        ['the task is semantic'], padding='max_length', max_length=length, truncation=True, return_tensors='pt'
    )
    return tokens['input_ids'] * tokens['attention_mask']


def safetensors_files(name: str) -> list[Path]:
    """Returns the files that hold the weights of a model on the hub or in a folder; downloads missing files."""
    from transformers.utils import cached_file

    find: Any = cached_file  # its annotation allows None for a missing file, for which it raises by default
    try:
        single = find(name, 'model.safetensors', _raise_exceptions_for_missing_entries=False)
        if single is not None:
            return [Path(single)]
        index = json.loads(Path(find(name, 'model.safetensors.index.json')).read_text(encoding='utf-8'))
        return [Path(find(name, shard)) for shard in sorted(set(index['weight_map'].values()))]
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f'cannot find safetensors weights of {name}: {reason}') from error


def _shown(pretrained: Any) -> str:
    return pretrained if isinstance(pretrained, str) else type(pretrained).__name__
