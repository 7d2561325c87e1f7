"""Measures which pixels AMA spends its steps on, on convolutional networks and on transformers.

    python benchmarks/gradient_mass.py
    python benchmarks/gradient_mass.py --table

AMA runs on some images of each case. At some of its iterates the pixels are split by their margin: flipped, near the
boundary (a margin below half of T0), and far from it. The gradient of the objective is then computed for each kind of
pixels alone. Stored are, each the mean over the images:

- the share of the pixels, and of the gradient's mass at the logits;
- the share of the gradient's mass at the image;
- the cosine between the image gradients of two kinds of pixels: below zero, they work against each other;
- the clean accuracy, and that of the best single class for all pixels, to see whether the model has learned;
- the share of the 8x8 patches that the image gradient covers, (Σ m)² / (P Σ m²) of the masses m of P patches.

Every finished case is stored in benchmarks/results/gradient_mass.json and does not run again. ``--table`` writes the
table into docs/annealed_margin_appendix.md and runs nothing. A case without its checkpoint is named and left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from annealed_margin import CASES, Case, Loaded, load
from mmseg.utils import register_all_modules
from torch import Tensor

from mmadv.attacks import AnnealedMargin, ama, derive_seed
from mmadv.attacks.pixel_scores import PixelScores
from mmadv.checkpoints.loading import file_sha256
from mmadv.commands.provenance import hardware, versions

ROOT = Path(__file__).parents[1]
PATH = ROOT / 'benchmarks/results/gradient_mass.json'
PAGE = ROOT / 'docs/annealed_margin_appendix.md'
BEGIN, END = '<!-- mass: written by benchmarks/gradient_mass.py -->', '<!-- mass: end -->'
SCHEMA, SCHEMA_VERSION = 'mmadv/gradient-mass', 1
MODELS = (
    'demo_standard_training_12', 'segmenter_clean_hard_8', 'segmenter_camvid_clean_1', 'segformer_camvid_clean_1',
)  # fmt: skip
KINDS = ('flipped', 'near', 'far')
PAIRS = (('flipped', 'far'), ('near', 'far'))
IMAGES, STEPS, SEED, PATCH = 4, 100, 0, 8
ITERATES = (0, 10, 30, 60, 95)


class Recorder:
    """A model that keeps the images of some of its calls.

    Args:
        loaded: the model.
        calls: numbers of the calls to keep.
    """

    def __init__(self, loaded: Loaded, calls: tuple[int, ...]) -> None:
        self.model, self.calls, self.number = loaded.model, calls, 0
        self.images: dict[int, Tensor] = {}

    def __call__(self, images: Tensor) -> Tensor:
        if self.number in self.calls:
            self.images[self.number] = images.detach().clone()
        self.number += 1
        return self.model(images)


def kinds_of(scores: PixelScores) -> dict[str, Tensor]:
    """Returns each kind of valid pixels, (N, H, W) bool; ``scores`` hold T0."""
    assert scores.scale is not None
    margin = (scores.label_logit - scores.rival_logit) / scores.scale.view(-1, 1, 1)
    return {
        'flipped': scores.valid & ~scores.agrees,
        'near': scores.agrees & (margin < 0.5),
        'far': scores.agrees & (margin >= 0.5),
    }


def coverage(gradient: Tensor) -> Tensor:
    """Returns the share of the patches that an image gradient (N, C, h, w) covers, (N,)."""
    mass = F.avg_pool2d(gradient.abs().sum(1, keepdim=True), PATCH).flatten(1)
    return mass.sum(1).square() / (mass.shape[1] * mass.square().sum(1))


def analysis(loaded: Loaded, images: Tensor, objective: AnnealedMargin, scale: Tensor, progress: float) -> dict:
    """Returns the shares, cosines and coverage at one iterate."""
    images = images.clone().requires_grad_()
    with torch.enable_grad():
        logits = loaded.model(images)
    scores = PixelScores(logits.detach(), loaded.labels, ignore_index=loaded.model.ignore_index, scale=scale)
    kinds = kinds_of(scores)
    slope = objective.logit_gradient(scores, progress)
    parts = {}
    for kind, mask in kinds.items():
        (parts[kind],) = torch.autograd.grad(logits, images, slope * mask.unsqueeze(1), retain_graph=True)
    at_logits = {kind: (slope.abs().sum(1) * mask).flatten(1).sum(1) for kind, mask in kinds.items()}
    at_image = {kind: part.abs().flatten(1).sum(1) for kind, part in parts.items()}
    valid = scores.valid.flatten(1).sum(1)

    def shares(of: dict[str, Tensor]) -> dict[str, float]:
        total = torch.stack(list(of.values())).sum(0)
        return {kind: round(float((value / total).mean()), 4) for kind, value in of.items()}

    return {
        'pixels': {kind: round(float((mask.flatten(1).sum(1) / valid).mean()), 4) for kind, mask in kinds.items()},
        'mass_at_logits': shares(at_logits),
        'mass_at_image': shares(at_image),
        'cosines': {
            f'{one}, {other}': round(
                float(F.cosine_similarity(parts[one].flatten(1), parts[other].flatten(1)).mean()), 4
            )
            for one, other in PAIRS
        },
        'coverage': round(float(coverage(torch.stack(list(parts.values())).sum(0)).mean()), 4),
    }


def accuracy(predictions: Tensor, loaded: Loaded) -> float:
    """Returns the share of the valid pixels that are predicted as labelled, the mean over the images."""
    valid = loaded.labels != loaded.model.ignore_index
    right = ((predictions == loaded.labels) & valid).flatten(1).sum(1)
    return float((right / valid.flatten(1).sum(1)).mean())


def measured(case: Case) -> dict[str, Any]:
    """Returns what AMA does at each iterate on the first images of a case."""
    loaded = load(dataclasses.replace(case, images=case.images[:IMAGES]))
    # No image leaves the batch early.
    attack = dataclasses.replace(ama(case.radius, STEPS), keep='last')
    objective = attack.objective
    assert isinstance(objective, AnnealedMargin)
    recorder = Recorder(loaded, ITERATES)
    seeds = [derive_seed(SEED, name) for name in loaded.names]
    attack(recorder, loaded.images, loaded.labels, seeds=seeds, ignore_index=loaded.model.ignore_index)
    with torch.no_grad():
        first = PixelScores(loaded.model(recorder.images[0]), loaded.labels, ignore_index=loaded.model.ignore_index)
    scale = objective.scale(first)
    with torch.no_grad():
        clean = loaded.model(loaded.images).argmax(1)
    return {
        'title': case.title,
        'config': case.config,
        'checkpoint': file_sha256(ROOT / case.checkpoint),
        'radius': case.radius,
        'images': loaded.names,
        'clean': round(accuracy(clean, loaded), 4),
        'constant': round(max(accuracy(torch.full_like(clean, k), loaded) for k in range(first.num_classes)), 4),
        'scale': [round(value, 4) for value in scale.tolist()],
        'iterates': {
            str(step): analysis(loaded, images, objective, scale, step / STEPS)
            for step, images in recorder.images.items()
        },
        'date': datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def stored() -> dict[str, Any]:
    """Returns the stored results, or results without a case."""
    if PATH.is_file():
        return json.loads(PATH.read_text(encoding='utf-8'))
    settings = {'attack': 'ama', 'passes': STEPS, 'seed': SEED, 'patch': PATCH}
    facts = {'hardware': hardware(), 'versions': versions()}
    return {'schema': SCHEMA, 'schema_version': SCHEMA_VERSION, **settings, **facts, 'cases': {}}


def run() -> None:
    """Runs and stores the cases that are not stored yet."""
    record = stored()
    for name in MODELS:
        if name in record['cases']:
            continue
        if not (ROOT / CASES[name].checkpoint).is_file():
            print(f'{name}: no checkpoint {CASES[name].checkpoint}; left out', flush=True)
            continue
        record['cases'][name] = measured(CASES[name])
        temporary = PATH.with_suffix('.tmp')
        temporary.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')
        os.replace(temporary, PATH)
        print(f'{name}: stored', flush=True)


def table(record: dict[str, Any]) -> str:
    """Returns the table: for each model and iterate, the shares in percent, the cosines and the coverage."""
    kinds, pairs = ' / '.join(KINDS), '; '.join(' with '.join(pair) for pair in PAIRS)
    lines = [
        f'| model, radius | iterate | pixels: {kinds} | mass at the logits | mass at the image | cosine: {pairs} '
        '| patches covered |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
    ]
    for case in record['cases'].values():
        for step, values in case['iterates'].items():
            cells = [
                ' / '.join(f'{100 * values[name][kind]:.0f}' for kind in KINDS)
                for name in ('pixels', 'mass_at_logits', 'mass_at_image')
            ]
            cosines = '; '.join(f'{value:+.2f}' for value in values['cosines'].values())
            title = f'{case["title"]}, {case["radius"]}'
            lines.append(f'| {title} | {step} | {" | ".join(cells)} | {cosines} | {100 * values["coverage"]:.0f} |')
    return '\n'.join(lines)


def section(record: dict[str, Any]) -> str:
    """Returns the text of the page: the table and where its numbers come from."""
    dates = sorted({case['date'] for case in record['cases'].values()})
    checkpoints = '; '.join(f'{case["title"]}: `{case["checkpoint"][:16]}`' for case in record['cases'].values())
    learned = '; '.join(
        f'{case["title"]}: {100 * case["clean"]:.1f} and {100 * case["constant"]:.1f}'
        for case in record['cases'].values()
    )
    return (
        f'{table(record)}\n\n'
        f'Clean accuracy, and accuracy of the best single class for all pixels: {learned}.\n\n'
        f'Shares in percent. AMA with {record["passes"]} passes, seed {record["seed"]}, {IMAGES} images of each model, '
        f'{record["hardware"]["processor"]}, torch {record["versions"]["torch"]}, {" to ".join(dates)}. '
        f'Checkpoints by sha256: {checkpoints}. `python benchmarks/gradient_mass.py` repeats it.'
    )


def write_page(record: dict[str, Any]) -> None:
    """Writes the table and its provenance into the page."""
    before, rest = PAGE.read_text(encoding='utf-8').split(BEGIN)
    PAGE.write_text(f'{before}{BEGIN}\n\n{section(record)}\n\n{END}{rest.split(END)[1]}', encoding='utf-8')


def main() -> None:
    """Runs what has not run yet, or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--table', action='store_true', help='write the table into the page, and run nothing')
    arguments = parser.parse_args()
    if arguments.table:
        write_page(stored())
        return
    register_all_modules()
    torch.set_num_threads(1)
    run()


if __name__ == '__main__':
    main()
