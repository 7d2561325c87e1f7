"""The input of ``mmadv synthesize``: the images, labels and masks that its arguments choose."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor, nn

from mmadv.attacks import derive_seed
from mmadv.commands.command_line import naming
from mmadv.engine.data import Selection, build_dataset
from mmadv.engine.pag_bank import raw_pictures
from mmadv.engine.scoring import scored_ignore_index
from mmadv.errors import UserError, nearest
from mmadv.files import check_regular
from mmadv.models.adapter import stack_images, stack_labels
from mmadv.models.batches import check_not_scaled, sample_names
from mmadv.models.pag_targets import BankRequest, collect_bank
from mmadv.printing import quoted
from mmadv.synthesis import ClassGaussian, Descent, corrupt, generate, inpaint, move_to_class
from mmadv.synthesis.descent import StepCallback

# The most images that the Gaussian of a class is fitted to.
GAUSSIAN_IMAGES = 64
# Model, steps, objective of a class, and a function that watches the steps -> painted images (N, C, h, w).
Painter = Callable[[nn.Module, Descent, str, StepCallback], Tensor]


@dataclass
class Batch:
    """A batch to paint, the same for all models.

    Attributes:
        names: one name per image.
        start: images (N, C, h, w) that the sheet shows beside the results.
        paint: function that paints the images with a model's gradients.
        original: original images (N, C, h, w); None if the labels are not those of an image.
        mask: (N, 1, h, w) bool, True in the part that is painted; None if the whole image is painted.
        settings: settings of the batch, which the results record.
    """

    names: list[str]
    start: Tensor
    paint: Painter
    original: Tensor | None = None
    mask: Tensor | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def build_batch(arguments: Namespace, config: Config, dataset: Any) -> tuple[list[SegDataSample], Batch]:
    """Returns the samples, which say how a model is applied, and the batch to paint.

    Args:
        arguments: arguments of the command line.
        config: config of the first model.
        dataset: test data of the first model.

    Raises:
        UserError: an index, class, box or mask does not fit the data.
    """
    if arguments.task == 'generate' and by_class(arguments):
        return _class_batch(arguments, config, dataset)
    samples, images, labels = _read(dataset, arguments.images)
    names = [str(sample.metainfo['image_name']) for sample in samples]
    if arguments.task == 'target':
        k = class_index(arguments.target_class, dataset.metainfo['classes'])
        paint = _painter_of_class(images, k)
        return samples, Batch(names, images, paint, settings={'class': dataset.metainfo['classes'][k]})
    ignore_index = scored_ignore_index(config)

    def paint_whole(model: nn.Module, descent: Descent, objective: str, callback: StepCallback) -> Tensor:
        means, size = _on(model, images.mean((2, 3))), (images.shape[2], images.shape[3])
        return generate(
            model, means, _on(model, labels), size, descent=descent, ignore_index=ignore_index, callback=callback
        )

    if arguments.task == 'generate':
        plain = images.mean((2, 3), keepdim=True).expand_as(images)
        return samples, Batch(names, plain, paint_whole, original=images)
    mask = _mask(arguments, images)

    def paint_mask(model: nn.Module, descent: Descent, objective: str, callback: StepCallback) -> Tensor:
        tensors = (_on(model, tensor) for tensor in (images, labels, mask))
        return inpaint(
            model, *tensors, descent=descent, penalty=arguments.penalty, ignore_index=ignore_index, callback=callback
        )

    return samples, Batch(names, corrupt(images, mask), paint_mask, original=images, mask=mask)


def _painter_of_class(start: Tensor, k: int) -> Painter:
    def paint(model: nn.Module, descent: Descent, objective: str, callback: StepCallback) -> Tensor:
        classes = _on(model, torch.full((len(start),), k))
        return move_to_class(
            model,
            _on(model, start),
            classes,
            descent=descent,
            objective=objective,  # type: ignore[arg-type]  # the parser knows the choices
            callback=callback,
        )

    return paint


def by_class(arguments: Namespace) -> bool:
    """Returns whether the command paints a class, not the labels of images."""
    return arguments.task == 'target' or (arguments.task == 'generate' and not all(map(is_index, arguments.images)))


def _class_batch(arguments: Namespace, config: Config, dataset: Any) -> tuple[list[SegDataSample], Batch]:
    """Returns images drawn from the Gaussian of a class of the training data."""
    if len(arguments.images) > 1:
        raise UserError(
            f'images must be indexes of test images, or one class; found {quoted(" ".join(arguments.images))}'
        )
    names = dataset.metainfo['classes']
    with naming('images'):
        k = class_index(arguments.images[0], names)
    if config.get('train_dataloader') is None:
        raise UserError(
            'generating a class needs train_dataloader in the config, whose images its seeds are drawn from'
        )
    training = build_dataset(config.train_dataloader.dataset, 'train_dataloader.dataset')
    samples, images, _ = _read(dataset, ['0'])
    size = (images.shape[2], images.shape[3])
    start, fitted = seeds_of_class(training, k, names, size, count=arguments.count, seed=arguments.seed)
    paint = _painter_of_class(start, k)
    batch_names = [f'{names[k]} {n}' for n in range(len(start))]
    return samples, Batch(batch_names, start, paint, settings={'class': names[k], 'gaussian_images': fitted})


def seeds_of_class(
    training: Any, k: int, names: Sequence[str], size: tuple[int, int], *, count: int, seed: int
) -> tuple[Tensor, int]:
    """Returns images (N, C, h, w) drawn from the Gaussian of a class, and the number of images that it is fitted to.

    Args:
        training: the training data.
        k: the class.
        names: names of all classes.
        size: height and width of the images.
        count: N, the number of images.
        seed: seed of the order of the training images and of the draws.

    Raises:
        UserError: fewer than two training images have the class.
    """
    request = BankRequest((k,), len(names), min(GAUSSIAN_IMAGES, len(training)), size)
    bank = collect_bank(raw_pictures(training, seed), request)
    fitted = int(bank.counts[k])
    if fitted < 2:
        raise UserError(f"class '{names[k]}' is in {fitted} of {len(training)} training images; a Gaussian needs two")
    gaussian = ClassGaussian.fit(bank.examples[k, :fitted].float() / 255)
    return gaussian.sample([derive_seed('synthesis', seed, n) for n in range(count)]), fitted


def class_index(word: str, names: Sequence[str]) -> int:
    """Returns the index of the class that a word of the command line names or numbers.

    Raises:
        UserError: there is no such class.
    """
    if word in names:
        return list(names).index(word)
    if is_index(word) and int(word) < len(names):
        return int(word)
    raise UserError(f'the data has no class {quoted(word)}{nearest(word, names)}')


def is_index(word: str) -> bool:
    """Returns whether a word of the command line is a whole number from 0."""
    return word.isascii() and word.isdigit()


def _read(dataset: Any, words: Sequence[str]) -> tuple[list[SegDataSample], Tensor, Tensor]:
    """Returns the samples, images in [0, 1] and label maps of test images."""
    for word in words:
        if not is_index(word) or int(word) >= len(dataset):
            raise UserError(
                f'images must be indexes of test images, from 0 to {len(dataset) - 1}; found {quoted(word)}'
            )
    read = [Selection(dataset, [int(word)])[0] for word in words]
    samples, inputs = [data['data_samples'] for data in read], [data['inputs'] for data in read]
    check_not_scaled(inputs, sample_names(samples))
    return samples, stack_images(inputs, samples), stack_labels(samples)


def _mask(arguments: Namespace, images: Tensor) -> Tensor:
    """Returns the corrupted part as (N, 1, h, w) bool: the box, the mask picture, or by default the middle ninth."""
    height, width = images.shape[2:]
    mask = torch.zeros((len(images), 1, height, width), dtype=torch.bool)
    if arguments.mask is not None:
        if arguments.box is not None:
            raise UserError('--box and --mask exclude each other; give one')
        check_regular(arguments.mask, '--mask')
        try:
            picture = np.asarray(Image.open(arguments.mask).convert('L'))
        except Exception as error:  # a damaged file can fail in any way
            raise UserError(f'--mask {arguments.mask} cannot be read as a picture; check the path') from error
        if picture.shape != (height, width):
            raise UserError(
                f'--mask {arguments.mask} is {picture.shape[0]}x{picture.shape[1]} and the images {height}x{width} '
                '(height x width); they must be of one size'
            )
        return mask | torch.from_numpy(picture > 0)
    top, left, tall, wide = arguments.box or (height // 3, width // 3, height // 3, width // 3)
    if tall < 1 or wide < 1 or top + tall > height or left + wide > width:
        raise UserError(
            f'--box {top} {left} {tall} {wide} does not lie in the images, {height}x{width} (height x width)'
        )
    mask[:, :, top : top + tall, left : left + wide] = True
    return mask


def _on(model: nn.Module, tensor: Tensor) -> Tensor:
    return tensor.to(next(model.parameters()).device)
