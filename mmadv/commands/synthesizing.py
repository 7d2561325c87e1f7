"""``mmadv synthesize``: paint images with the gradients of one or several checkpoints, and show them side by side."""

from __future__ import annotations

import datetime
import itertools
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from mmadv.checkpoints.loading import load_checkpoint_file, load_weights, use_safe_loading
from mmadv.commands.argument_types import not_negative, number, positive, positive_radius, seed, sigma
from mmadv.commands.command_line import Parser, command_text, load_config, naming, require
from mmadv.commands.provenance import hardware, versions
from mmadv.commands.synthesis_batches import Batch, build_batch, by_class, is_index
from mmadv.commands.synthesis_columns import (
    DEFAULT,
    DEFAULT_EPS,
    OBJECTIVES,
    PRESETS,
    Column,
    ModelSpec,
    columns,
    model_specs,
)
from mmadv.commands.weights import weights_of
from mmadv.engine.data import build_dataset
from mmadv.engine.determinism import check_deterministic
from mmadv.engine.example_collector import loads_rgb
from mmadv.errors import UserError
from mmadv.fields import NotNegativeNumber
from mmadv.models.adapter import SegmentorAdapter
from mmadv.models.building import build_segmentor
from mmadv.models.segmentors.imported_segmentor import own_weights
from mmadv.report.drawing import draw_file
from mmadv.report.output_folder import check_unlocked, check_writable, locked, staged
from mmadv.report.run import CheckpointFile
from mmadv.report.sheet import draw_sheet
from mmadv.robustness import SmoothedModel
from mmadv.synthesis import mean_absolute_error, psnr, ssim

SCHEMA, SCHEMA_VERSION, FILE_NAME = 'mmadv/synthesis', 1, 'synthesis.json'


def parser() -> Parser:
    """Returns the parser of ``mmadv synthesize``."""
    result = Parser(
        prog='mmadv synthesize',
        description='Paint images with the gradients of segmentors.',
        example='mmadv synthesize inpaint demo/pspnet_pgd2_digits.py work_dirs/at/iter_200.pth 0 1 2',
    )
    tasks = result.add_subparsers(dest='task', required=True, parser_class=Parser)
    inpainting = tasks.add_parser('inpaint', help='paint a corrupted part of images, given their labels')
    generation = tasks.add_parser('generate', help='paint whole images, given labels or a class')
    targeting = tasks.add_parser('target', help='move images towards a class: a large-ε targeted attack')
    for task in (inpainting, generation, targeting):
        _add_common(task)
    inpainting.add_argument('images', nargs='+', help='indexes of test images')
    inpainting.add_argument(
        '--box', type=not_negative, nargs=4, metavar=('TOP', 'LEFT', 'HEIGHT', 'WIDTH'), help='corrupted part'
    )
    inpainting.add_argument(
        '--mask', metavar='FILE', help='picture as large as the images; white marks the corrupted part'
    )
    inpainting.add_argument(
        '--penalty',
        type=number(NotNegativeNumber),
        default=0.02,
        help='weight λ of changes outside the corrupted part (default: 0.02)',
    )
    generation.add_argument('images', nargs='+', help='a class, or indexes of test images whose labels are painted')
    generation.add_argument(
        '--count', type=positive, default=4, help='number of images to paint of a class (default: 4)'
    )
    targeting.add_argument('target_class', metavar='class', help='name or number of the class')
    targeting.add_argument('--images', nargs='+', default=['0'], help='indexes of test images (default: 0)')
    targeting.add_argument(
        '--eps', type=positive_radius, help=f'radius of the ball around the images (default: {DEFAULT_EPS})'
    )
    targeting.add_argument('--norm', choices=['L2', 'Linf'], default='L2', help='norm of the ball (default: L2)')
    for task in (generation, targeting):
        task.add_argument(
            '--objective',
            nargs='+',
            choices=list(OBJECTIVES),
            help='objectives of a class, one column each: its mean logit, or the cross-entropy (default: mean_logit)',
        )
        task.add_argument(
            '--preset',
            choices=list(PRESETS),
            help='settings of Kaur, Cohen and Lipton for what you leave out: 300 steps of 0.7 in an L2 ball of 40, '
            '20 samples; steps of 2.8 without smoothing, and of 2.0 for the cross-entropy',
        )
    return result


def _add_common(task: Parser) -> None:
    task.add_argument('config', help='config of the first model and its test data')
    task.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint of the first model; models of Hugging Face and torchvision need none',
    )
    task.add_argument(
        '--model',
        nargs='+',
        action='append',
        default=[],
        metavar='CONFIG CKPT [SIGMA]',
        help='add another model, without CKPT if it brings its weights; SIGMA smooths it with noise of this standard '
        'deviation, whatever --smooth says',
    )
    task.add_argument('--steps', type=positive, help=f'steps of gradient descent (default: {DEFAULT.steps})')
    task.add_argument(
        '--step-size', type=positive_radius, help=f'length of a step in the norm (default: {DEFAULT.step_size})'
    )
    task.add_argument(
        '--smooth', type=sigma, metavar='SIGMA', help='smooth the models with noise of this standard deviation'
    )
    task.add_argument(
        '--samples',
        type=positive,
        nargs='+',
        help=f'noise draws per smoothed gradient, one column each (default: {DEFAULT.samples})',
    )
    task.add_argument(
        '--frames',
        type=not_negative,
        default=0,
        help='number of steps to show in a GIF of each image (default: 0, no GIF)',
    )
    task.add_argument('--seed', type=seed, default=0, help='random seed of start images and noise (default: 0)')
    task.add_argument('--out', metavar='DIR', help='output folder (default: work_dirs/CONFIG/TASK_DATE)')
    task.add_cfg_options()


def parsed(argv: Sequence[str]) -> Namespace:
    """Returns the parsed arguments; a number after the config of a model with weights is an image, not a checkpoint."""
    arguments = parser().parse_args(argv)
    if arguments.task != 'target' and is_index(arguments.checkpoint or ''):
        model = load_config(arguments.config, arguments.cfg_options).get('model')
        if model and own_weights(model) is not None:
            arguments.images, arguments.checkpoint = [arguments.checkpoint, *arguments.images], None
    return arguments


def run_synthesize(argv: Sequence[str]) -> None:
    """Paints as the arguments say, and writes a sheet, the pictures and the numbers.

    Raises:
        UserError: there is a mistake in the arguments, configs, checkpoints or data; then nothing is written.
    """
    arguments = parsed(argv)
    specs = model_specs(arguments)
    sheet = columns(arguments, specs)
    out = Path(arguments.out) if arguments.out else _default_out(arguments)
    check_writable(out)
    check_unlocked(out)
    use_safe_loading()
    if arguments.frames > arguments.steps:
        raise UserError(f'--frames {arguments.frames} is more than --steps {arguments.steps}; give fewer frames')
    configs, weights = [], []
    for each in specs:
        with naming('' if each is specs[0] else '--model'):
            if each.checkpoint is not None:
                load_checkpoint_file(each.checkpoint)
            configs.append(load_config(each.config, arguments.cfg_options))
            require(configs[-1], each.config, ['model', 'test_dataloader'])
            weights.append(weights_of(each.config, each.checkpoint, configs[-1]))
    dataset = build_dataset(configs[0].test_dataloader.dataset, 'test_dataloader.dataset')
    check_deterministic(dataset, 'test_dataloader.dataset')
    samples, batch = build_batch(arguments, configs[0], dataset)
    models = list(_load_models(configs, specs).items())
    with locked(out):
        painted, frames = {}, {}
        for column in sheet:
            name, segmentor = models[column.model]
            title = ', '.join(filter(None, (name, column.note)))
            callback = FrameRecorder(title, arguments.steps, arguments.frames)
            model = _adapted(segmentor, samples, column, seed=arguments.seed, of_class=by_class(arguments))
            painted[title] = batch.paint(model, column.descent, column.objective, callback).cpu()
            callback.close()
            frames[title] = [*callback.frames, painted[title]] if arguments.frames else []
        rgb = _to_rgb(loads_rgb(configs[0], dataset))
        with staged(out, last=FILE_NAME) as stage:
            described = [
                _described(title, column, specs[column.model], weights[column.model])
                for title, column in zip(painted, sheet, strict=True)
            ]
            results = _results(arguments, argv, described, batch, painted, dataset)
            _write_pictures(stage, batch, painted, frames, rgb, results)
            (stage / FILE_NAME).write_text(json.dumps(results, indent=1, allow_nan=False) + '\n', encoding='utf-8')
    for title, rows in results['quality'].items():
        for name, row in zip(batch.names, rows, strict=True):
            print(f'{title}, {name}: PSNR {row["psnr"]:.2f} dB, SSIM {row["ssim"]:.4f}, MAE {row["mae"]:.4f}')
    print(f'results: {out}')


class FrameRecorder:
    """Shows a progress bar with the mean loss over the steps of one model, and keeps some of its images.

    Args:
        title: title of the bar.
        steps: number of steps of the descent.
        frames: number of evenly spaced steps whose images are kept.
    """

    def __init__(self, title: str, steps: int, frames: int) -> None:
        self.frames: list[Tensor] = []
        self._kept = {i * steps // frames for i in range(frames)} if frames else set()
        self._bar = tqdm(total=steps, desc=title, unit='step', file=sys.stderr, dynamic_ncols=True)

    def __call__(self, step: int, images: Tensor, losses: Tensor) -> None:
        """Shows the loss of a step, and keeps the images of chosen steps."""
        self._bar.update()
        self._bar.set_postfix_str(f'loss {float(losses.mean()):.4f}', refresh=sys.stderr.isatty())
        if step in self._kept:
            self.frames.append(images.cpu())

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


def _load_models(configs: Sequence[Config], specs: Sequence[ModelSpec]) -> dict[str, nn.Module]:
    models: dict[str, nn.Module] = {}
    for config, each in zip(configs, specs, strict=True):
        segmentor = build_segmentor(config)
        if each.checkpoint is not None:
            load_weights(segmentor, each.checkpoint)
        first = next(iter(models.values()), segmentor)
        if segmentor.num_classes != first.num_classes:
            raise UserError(
                f'the model of {each.config} has {segmentor.num_classes} classes and the first {first.num_classes}; '
                'models side by side must have the same classes'
            )
        stem = Path(each.config).stem + ('' if each.sigma is None else f', σ = {each.sigma:g}')
        title = next(name for name in _titles(stem) if name not in models)
        models[title] = segmentor.to('cuda' if torch.cuda.is_available() else 'cpu').eval()
    return models


def _titles(stem: str) -> Iterator[str]:
    yield stem
    yield from (f'{stem} ({n})' for n in itertools.count(2))


def _adapted(
    segmentor: nn.Module, samples: Sequence[SegDataSample], column: Column, *, seed: int, of_class: bool
) -> nn.Module:
    """Returns the segmentor as a callable of pixels in [0, 1]; it is smoothed if the column says so."""
    model: nn.Module = SegmentorAdapter(segmentor, samples)
    if column.smoothing is None:
        return model
    deviation, draws = column.smoothing
    output = 'mean_logits' if of_class and column.objective == 'mean_logit' else 'soft'
    return SmoothedModel(model, sigma=deviation, samples=draws, output=output, seed=seed)


def _described(title: str, column: Column, spec: ModelSpec, weights: CheckpointFile) -> dict[str, Any]:
    """Returns what the results say of a column."""
    return {
        'title': title,
        **asdict(spec),
        'checkpoint': weights.file,
        'samples': column.smoothing and column.smoothing[1],
        'objective': column.objective or None,
        'step_size': column.descent.step_size,
        'sha256': weights.sha256,
    }


def _to_rgb(loaded_rgb: bool) -> Callable[[Tensor], np.ndarray]:
    def convert(image: Tensor) -> np.ndarray:
        pixels = image.permute(1, 2, 0).numpy()
        if pixels.shape[2] != 3:
            return pixels[:, :, :1].repeat(3, axis=2)
        return pixels if loaded_rgb else pixels[:, :, ::-1]

    return convert


def _results(
    arguments: Namespace,
    argv: Sequence[str],
    models: Sequence[dict[str, Any]],
    batch: Batch,
    painted: dict[str, Tensor],
    dataset: Any,
) -> dict[str, Any]:
    quality: dict[str, list[dict[str, float]]] = {}
    if batch.original is not None and batch.mask is not None:
        measures = {'psnr': psnr, 'ssim': ssim, 'mae': mean_absolute_error}
        for title, images in painted.items():
            columns = {name: measure(images, batch.original, batch.mask) for name, measure in measures.items()}
            # Equal images have an infinite PSNR, which JSON cannot hold.
            quality[title] = [
                {name: min(float(column[n]), 999.0) for name, column in columns.items()} for n in range(len(images))
            ]
    return {
        'schema': SCHEMA,
        'schema_version': SCHEMA_VERSION,
        'created': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
        'command': command_text('synthesize', argv),
        'task': arguments.task,
        'models': models,
        'settings': {
            **{
                key: value
                for key, value in vars(arguments).items()
                if key in ('steps', 'smooth', 'penalty', 'box', 'eps', 'norm', 'preset')
            },
            **batch.settings,
        },
        'seed': arguments.seed,
        'dataset': {'type': type(dataset).__name__, 'size': len(dataset)},
        'images': batch.names,
        'quality': quality,
        'versions': versions(),
        'hardware': hardware(),
    }


def _write_pictures(
    stage: Path,
    batch: Batch,
    painted: dict[str, Tensor],
    frames: dict[str, list[Tensor]],
    rgb: Callable[[Tensor], np.ndarray],
    results: dict[str, Any],
) -> None:
    columns = {'original': batch.original} if batch.original is not None else {}
    columns = {**columns, 'start': batch.start, **painted}
    notes = {
        _over_lines(title): [f'PSNR {row["psnr"]:.1f}, SSIM {row["ssim"]:.2f}' for row in rows]
        for title, rows in results['quality'].items()
    }
    pictures = {_over_lines(title): [rgb(image) for image in images] for title, images in columns.items()}
    sheet = stage / 'sheet.png'
    draw_file(sheet, lambda: draw_sheet(pictures, batch.names, sheet, notes=notes))
    (stage / 'images').mkdir()
    for m, images in enumerate(painted.values()):
        for n, image in enumerate(images):
            _as_picture(rgb(image)).save(stage / 'images' / f'model{m}_image{n}.png')
    for m, sequence in enumerate(frames.values()):
        for n in range(len(batch.names) if sequence else 0):
            steps = [_as_picture(rgb(images[n])) for images in sequence]
            (stage / 'frames').mkdir(exist_ok=True)
            steps[0].save(
                stage / 'frames' / f'model{m}_image{n}.gif',
                save_all=True,
                append_images=steps[1:],
                duration=200,
                loop=0,
            )


def _over_lines(title: str) -> str:
    return title.replace(', ', '\n')


def _as_picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def _default_out(arguments: Namespace) -> Path:
    date = datetime.datetime.now().strftime('%Y%m%d_%H%M%S')
    return Path('work_dirs') / Path(arguments.config).stem / f'{arguments.task}_{date}'
