"""Repeats table 1 and figure 5 of the PAG paper in small, on scikit-learn's 8x8 digits.

    python benchmarks/pag_digits.py

The methods are vanilla, one image, class mean, nearest neighbour, nearest cluster mean (which the paper proposes and
does not try), and distillation from an l_inf and an l_2 robust teacher. Each runs with 3 seeds and is attacked by
PGD-20 in both norms. The class mean also runs at several λ. All methods train a small network on the same images for
the same time, with all ten classes as targets in every step (equation 1 of the paper, unchanged). Trainings with a
record in benchmarks/results/pag_digits.json do not run again. The networks of the picture train again each time, as
their weights are not stored. Writes the section of docs/evidence_gradients.md and docs/images/pag_digits.png.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from experiments import RESULTS, ROOT, dated_records, dates_text, provenance, store, text_of, write_section
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from mmadv.attacks import L2, PGD, Linf, Threat
from mmadv.attacks.randomness import derive_seed
from mmadv.robustness import (
    ClassMean,
    Distillation,
    GradientTarget,
    NearestClusterMean,
    NearestNeighbour,
    OneImage,
    PAGLoss,
    cosine_similarity,
    draw_bank,
    input_gradients,
)
from mmadv.synthesis import Descent, move_to_class

STUDY = 'pag_digits'
SEEDS = (0, 1, 2)
CLASSES, TEST, EPOCHS, BATCH, LEARNING_RATE, WIDTH = 10, 400, 40, 64, 2e-3, 128
THREATS: dict[str, Threat] = {'Linf': Linf(radius=0.1), 'L2': L2(radius=0.8)}
PER_CLASS = 20
CLUSTERS = 5
# Method -> λ of the paper's table 3; None trains without the loss. Clusters take that of the two methods they merge.
METHODS = {
    'vanilla': None,
    'one image': 0.5,
    'class mean': 0.4,
    'nearest neighbour': 0.4,
    'cluster means': 0.4,
    'RIGD l_inf': 0.4,
    'RIGD l_2': 0.4,
}
WEIGHTS = (0.01, 0.1, 0.4, 1.0)
PICTURE = 'docs/images/pag_digits.png'
# A targeted attack whose radius is that of the way from digit to digit.
PAINTING = Descent(steps=60, step_size=0.1, threat=L2(radius=2.5))


class Network(nn.Module):
    """Two hidden layers with SiLU, (N, 1, 8, 8) -> (N, 10)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(STUDY, seed))
            self.layers = nn.Sequential(
                nn.Flatten(), nn.Linear(64, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 10)
            )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class AsSegmentor(nn.Module):
    """A classifier as a segmentor of one pixel, which attacks take."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(images)[:, :, None, None]


def load_data(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns training images and labels, then test images and labels, of a split of the seed."""
    digits = load_digits()
    images, labels = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None], torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(derive_seed(STUDY, 'split', seed)))
    train, test = order[TEST:], order[:TEST]
    return images[train], labels[train], images[test], labels[test]


def fit(
    images: Tensor,
    labels: Tensor,
    seed: int,
    *,
    weight: float | None = None,
    directions: Tensor | None = None,
    attack: PGD | None = None,
) -> Network:
    """Returns a network trained on the images, with the PAG loss if directions are given, or adversarially."""
    network = Network(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(derive_seed(STUDY, 'batches', seed))
    for epoch in range(EPOCHS):
        for step, rows in enumerate(torch.randperm(len(images), generator=generator).split(BATCH)):
            inputs = images[rows]
            if attack is not None:
                seeds = [derive_seed(seed, epoch, step, i) for i in range(len(rows))]
                inputs = attack.perturb(AsSegmentor(network), inputs, labels[rows][:, None, None], seeds=seeds)
            inputs = inputs.clone().requires_grad_(directions is not None)
            logits = network(inputs)
            loss = F.cross_entropy(logits, labels[rows])
            if directions is not None and weight is not None:
                loss = loss + PAGLoss(weight=weight)(logits, inputs, directions[rows]).loss.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def directions_of(target: GradientTarget, images: Tensor) -> Tensor:
    """Returns g(x, t) of all images and classes, (N, 10, 1, 8, 8), made once before training as in appendix C.2."""
    return target(images, torch.arange(CLASSES).expand(len(images), CLASSES))


def build_target(method: str, images: Tensor, labels: Tensor, seed: int) -> GradientTarget:
    """Returns the target of a method; a teacher is trained with five steps of PGD at the radius of the evaluation."""
    if method.startswith('RIGD'):
        threat = THREATS['Linf' if method == 'RIGD l_inf' else 'L2']
        teacher = fit(images, labels, seed + 1000, attack=PGD(threat=threat, steps=5, step_size=threat.radius / 3))
        return Distillation(teacher, CLASSES)
    smallest = int(labels.bincount().min())
    per_class = {'one image': 1, 'nearest neighbour': PER_CLASS}.get(method, smallest)
    bank = draw_bank(images, labels, num_classes=CLASSES, per_class=per_class, seed=derive_seed(STUDY, 'bank', seed))
    kinds: dict[str, Callable[..., GradientTarget]] = {
        'one image': OneImage,
        'class mean': ClassMean,
        'nearest neighbour': NearestNeighbour,
        'cluster means': partial(NearestClusterMean, clusters=CLUSTERS),
    }
    return kinds[method](bank)


def evaluate(network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> dict[str, float]:
    """Returns clean and attacked accuracy, PGD-20 from a random start with steps of a tenth of the radius."""
    model, pixels = AsSegmentor(network), labels[:, None, None]
    accuracies = {'clean': float((network(images).argmax(1) == labels).float().mean())}
    seeds = [derive_seed(STUDY, 'attack', seed, i) for i in range(len(images))]
    for name, threat in THREATS.items():
        attack = PGD(threat=threat, steps=20, step_size=threat.radius / 10, keep='lowest_accuracy')
        accuracies[name] = float(attack(model, images, pixels, seeds=seeds).accuracy.mean())
    return accuracies


def alignment(network: nn.Module, target: GradientTarget, images: Tensor) -> float:
    """Returns the mean cosine between the network's input gradients and the target's on test images."""
    inputs = images.clone().requires_grad_()
    gradients = input_gradients(network(inputs), inputs)
    return float(cosine_similarity(gradients, directions_of(target, images)).mean())


def run_one(method: str, weight: float | None, seed: int) -> dict[str, Any]:
    """Returns the record of one training."""
    start = time.process_time()
    train_images, train_labels, test_images, test_labels = load_data(seed)
    record: dict[str, Any] = {'method': method, 'weight': weight, 'seed': seed}
    if weight is None:
        network = fit(train_images, train_labels, seed)
        target = build_target('class mean', train_images, train_labels, seed)
    else:
        target = build_target(method, train_images, train_labels, seed)
        directions = directions_of(target, train_images)
        network = fit(train_images, train_labels, seed, weight=weight, directions=directions)
    record['cosine'] = alignment(network, target, test_images)
    if isinstance(target, Distillation):
        record['teacher'] = evaluate(target.teacher, test_images, test_labels, seed)
    record.update(evaluate(network, test_images, test_labels, seed))
    return {**record, 'seconds': round(time.process_time() - start, 1), 'date': datetime.date.today().isoformat()}


def painted(network: nn.Module, image: Tensor) -> Tensor:
    """Returns an image (1, 8, 8) moved to each class by a targeted attack of large radius, (10, 1, 8, 8)."""
    starts = image.expand(CLASSES, *image.shape)
    return move_to_class(
        AsSegmentor(network), starts, torch.arange(CLASSES), descent=PAINTING, objective='cross_entropy'
    )


def trained_for_picture() -> dict[float, nn.Module]:
    """Returns λ of the class mean -> the network of the first seed; 0 is the vanilla one."""
    images, labels, *_ = load_data(SEEDS[0])
    directions = directions_of(build_target('class mean', images, labels, SEEDS[0]), images)
    networks = {w: fit(images, labels, SEEDS[0], weight=w, directions=directions) for w in WEIGHTS}
    return {0.0: fit(images, labels, SEEDS[0]), **networks}


def draw_painted(networks: Mapping[float, nn.Module], records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the picture of figure 5: a row for each λ, with its accuracies, and a column for each class.

    Args:
        networks: λ -> network; 0 is the vanilla one.
        records: the records of the first seed have the accuracies.
        path: the path of the picture.
    """
    image = load_data(SEEDS[0])[2][0]
    figure = Figure(figsize=(11, 1.15 * len(networks) + 0.4), layout='constrained')
    grid = figure.subplots(len(networks), CLASSES + 1, squeeze=False)
    for row, (weight, network) in zip(grid, networks.items(), strict=True):
        method = 'class mean' if weight else 'vanilla'
        (own,) = (
            one for one in records if (one['method'], one['weight'] or 0.0, one['seed']) == (method, weight, SEEDS[0])
        )
        accuracies = ' / '.join(f'{100 * own[key]:.0f}' for key in ('clean', *THREATS))
        row[0].set_ylabel(f'λ = {weight:g}\n{accuracies} %', fontsize=9)
        for axes, pixels in zip(row, [image, *painted(network, image)], strict=True):
            axes.imshow(pixels[0].numpy(), cmap='gray', vmin=0, vmax=1, interpolation='nearest')
            axes.set(xticks=[], yticks=[])
    for axes, title in zip(grid[0], ['start', *map(str, range(CLASSES))], strict=True):
        axes.set_title(title, fontsize=10)
    figure.savefig(path, dpi=80)


def table(records: list[dict[str, Any]]) -> str:
    """Returns both tables in Markdown, means and standard deviations over the seeds, in percent."""

    def row(title: str, group: list[dict[str, Any]]) -> str:
        cells = [text_of([record[key] for record in group]) for key in ('clean', 'Linf', 'L2')]
        cosine = sum(record['cosine'] for record in group) / len(group)
        return f'| {title} | {" | ".join(cells)} | {cosine:.2f} | {len(group)} |'

    radii = {name: f'{threat.radius:g}' for name, threat in THREATS.items()}
    header = (
        f'clean | L∞ {radii["Linf"]} | L2 {radii["L2"]} | cosine to target | seeds |\n|---|---:|---:|---:|---:|---:|'
    )
    lines = [f'| method | {header}']
    for method, weight in METHODS.items():
        group = [record for record in records if record['method'] == method and record['weight'] == weight]
        if group:
            lines.append(row(method if weight is None else f'{method}, λ = {weight:g}', group))
    lines += ['', f'| class mean, λ | {header}']
    for weight in WEIGHTS:
        group = [record for record in records if record['method'] == 'class mean' and record['weight'] == weight]
        if group:
            lines.append(row(f'{weight:g}', group))
    return '\n'.join(lines)


def main() -> None:
    """Runs the stages that have not run yet, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--stored', action='store_true', help='run nothing; write the tables of what has run')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    file = RESULTS / f'{STUDY}.json'
    records = dated_records(json.loads(file.read_text(encoding='utf-8'))) if file.is_file() else []
    wanted = [(method, weight, seed) for seed in SEEDS for method, weight in METHODS.items()]
    wanted += [('class mean', weight, seed) for seed in SEEDS for weight in WEIGHTS]
    for method, weight, seed in () if arguments.stored else dict.fromkeys(wanted):
        if any((r['method'], r['weight'], r['seed']) == (method, weight, seed) for r in records):
            continue
        records.append(run_one(method, weight, seed))
        print(json.dumps(records[-1]), flush=True)
        store(STUDY, records)
    content = json.loads(file.read_text(encoding='utf-8'))
    teachers = [
        f'{record["method"]} ' + ' / '.join(f'{100 * record["teacher"][key]:.1f}' for key in ('clean', *THREATS))
        for record in records
        if 'teacher' in record and record['seed'] == 0
    ]
    seconds = sum(record['seconds'] for record in records)
    text = (
        f'{table(records)}\n\nThe vanilla row gives the cosine to the class means. Teachers of seed 0, '
        f'clean / L∞ / L2: {"; ".join(teachers)}. {seconds:.0f} s of processor time in all. '
        f'{dates_text(records)} {provenance(content)}\n\n'
        f'![A digit moved to each class, by λ](images/{Path(PICTURE).name})\n\n'
        f'The picture is that of figure 5: a test image of seed {SEEDS[0]}, moved to each class in an L2 ball of '
        f'{PAINTING.threat.radius:g}. Beside λ stand the accuracies of this seed, clean / L∞ / L2.\n\n'
        '```bash\npython benchmarks/pag_digits.py\n```'
    )
    if not arguments.stored:
        draw_painted(trained_for_picture(), content['records'], ROOT / PICTURE)
    write_section(ROOT / 'docs/evidence_gradients.md', 'benchmarks/pag_digits.py', text)
    print(text)


if __name__ == '__main__':
    main()
