"""Draws the README's picture from what ``make demo`` left: python docs/draw_demo.py demo_output OUT.png."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.dataset import pseudo_collate
from mmseg.registry import DATASETS
from mmseg.utils import register_all_modules

from mmadv.attacks import sea
from mmadv.checkpoints.loading import load_weights
from mmadv.commands.command_line import load_config
from mmadv.commands.demonstrating import seconds_per_step
from mmadv.models import SegmentorAdapter, stack_images, stack_labels
from mmadv.models.building import build_segmentor
from mmadv.report import RunResults
from mmadv.report.curve import curve_points

SCENES = (3, 14, 22)
RADIUS = '8/255'
RUNS = {
    'standard': ('standard_training', '#0072B2'),
    'Fast Newton': ('fast_newton', '#009E73'),
    'PGD': ('pgd_with_2_steps', '#D55E00'),
}


def attacked(results: RunResults) -> dict[str, np.ndarray]:
    """Returns what a run's model sees and says on the shown scenes: arrays with one entry per scene."""
    config = load_config(results.config.file)
    model = build_segmentor(config).eval()
    load_weights(model, results.checkpoint.file)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    batch = pseudo_collate([dataset[index] for index in SCENES])
    images, labels = stack_images(batch['inputs']), stack_labels(batch['data_samples'])
    adapter = SegmentorAdapter(model, batch['data_samples'])
    result = sea(RADIUS, iterations=20)(adapter, images, labels, seeds=SCENES)
    palette = np.array(dataset.metainfo['palette'])
    return {
        'adversarial image': result.images.permute(0, 2, 3, 1).numpy()[..., ::-1],
        'clean': palette[adapter(images).argmax(1)],
        'attacked': palette[result.predictions],
        'label': palette[labels],
    }


def draw(demo: Path, out: Path) -> None:
    """Writes the picture: scenes on the left, the robustness curve and the cost of training on the right."""
    results = {name: RunResults.load(demo / folder / 'attack') for name, (folder, _) in RUNS.items()}
    seconds = {name: seconds_per_step(demo / folder / 'training') for name, (folder, _) in RUNS.items()}
    shown = {name: attacked(run) for name, run in results.items()}
    columns = {
        f'image attacked\nat {RADIUS}': shown['standard']['adversarial image'],
        'label': shown['standard']['label'],
        'standard\nclean': shown['standard']['clean'],
        **{f'{name}\nattacked': pictures['attacked'] for name, pictures in shown.items()},
    }
    figure = Figure(figsize=(13, 3.9), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=(1.9, 1))
    for axes in left.subplots(len(SCENES), len(columns)).flat:
        axes.axis('off')
    for number, (title, pictures) in enumerate(columns.items()):
        for row, picture in enumerate(pictures):
            axes = left.axes[row * len(columns) + number]
            axes.imshow(picture, interpolation='nearest')
            if row == 0:
                axes.set_title(title, fontsize=10)
    axes, bars = right.subplots(2, 1, height_ratios=(3, 1))
    for name, run in results.items():
        colour, points = RUNS[name][1], curve_points(run, 'mIoU')
        axes.plot([x for x, _, _ in points], [y for _, _, y in points], marker='o', color=colour, label=name)
        cost = seconds[name] / seconds['standard']
        bars.barh(name, cost, color=colour)
        bars.text(cost, name, f' {cost:.1f}', va='center')
    bars.invert_yaxis()
    bars.margins(x=0.12)
    bars.set_xlabel('time of a training step')
    axes.set_xticks([x for x, _, _ in points], [text for _, text, _ in points])
    axes.set_ylim(0, 100)
    axes.set_xlabel('radius')
    axes.set_ylabel('mIoU under SEA, %')
    axes.grid(alpha=0.3)
    axes.legend()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90)


if __name__ == '__main__':
    if len(sys.argv) != 3:
        sys.exit(f'error: give two paths: {__doc__}')
    register_all_modules()
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
