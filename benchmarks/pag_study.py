"""Shared code of the studies of aligned gradients for segmentors: one small network, trained in several ways, attacked.

All methods of a study go on from one plainly trained network, for the same number of steps on the same batches. Each is
measured on the same test images: clean, under SEA, under the images that SEA made for the plain and for the
adversarially trained network (transfer), and by the cosine and sharpness of its gradients.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from experiments import RESULTS, ROOT, mean_and_deviation, provenance, store, write_section
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from mmadv.attacks import L2, PGD, Linf
from mmadv.attacks.objectives import CrossEntropy
from mmadv.attacks.presets import preset
from mmadv.attacks.randomness import derive_seed
from mmadv.models.pag_regions import RegionDistillation, RegionExemplars, Repainted, region_scores
from mmadv.models.pag_targets import BankRequest, collect_bank, collect_regions
from mmadv.robustness import (
    ClassBank,
    NearestNeighbour,
    PAGLoss,
    class_scores,
    cosine_similarity,
    count,
    high_frequency_share,
    input_gradients,
    metrics,
)

# Methods whose adversarial images attack the networks of the others too.
SOURCES = ('plain', 'adversarial')
PAGE = ROOT / 'docs/evidence_gradients.md'
Loss = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]


class Network(nn.Module):
    """A residual encoder and decoder with group norms and SiLU, (N, 3, H, W) -> (N, K, H, W).

    Args:
        classes: K.
        seed: of the weights.
        stride: 2 or 4, of the stem: that many pixels along each axis share one place of the finest feature map.
    """

    def __init__(self, classes: int, seed: int, stride: int = 2) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first = [nn.Conv2d(3, 32 if stride == 2 else 16, 5, stride=2, padding=2), nn.SiLU()]
            second = [] if stride == 2 else [nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.SiLU()]
            self.stem = nn.Sequential(*first, *second)
            self.fine, self.decoder = _Block(32), _Block(32)
            self.down = nn.Sequential(nn.Conv2d(32, 48, 3, stride=2, padding=1), nn.SiLU())
            self.coarse = nn.Sequential(_Block(48), _Block(48, 2), nn.Conv2d(48, 32, 1))
            self.classify = nn.Sequential(nn.SiLU(), nn.Conv2d(32, classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(self.stem(2 * images - 0.7))
        coarse = F.interpolate(self.coarse(self.down(fine)), fine.shape[2:], mode='bilinear')
        return F.interpolate(self.classify(self.decoder(fine + coarse)), images.shape[2:], mode='bilinear')


class _Block(nn.Module):
    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        convolution = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.layers = nn.Sequential(nn.GroupNorm(4, channels), nn.SiLU(), convolution)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


def plain_loss(network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the cross-entropy."""
    return F.cross_entropy(network(images), labels, ignore_index=255)


def adversarial_loss(radius: str, step_size: float) -> Loss:
    """Returns the cross-entropy of the images under PGD with two steps."""

    def loss(network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        attack = PGD(threat=Linf(radius=radius), steps=2, step_size=step_size)
        seeds = torch.randint(2**31, (len(images),), generator=generator).tolist()
        return plain_loss(network, attack.perturb(network, images, labels, seeds=seeds), labels, generator)

    return loss


def region_loss(target: RegionExemplars, weight: float) -> Loss:
    """Returns the cross-entropy with the PAG loss of regions."""

    def loss(network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        repainted = target.repaint(images, labels, generator)
        directions = target.directions(images, labels, repainted)
        inputs = images.clone().requires_grad_()
        logits = network(inputs)
        scores = region_scores(logits, labels, repainted)[:, None]
        alignment = PAGLoss(weight=weight)(scores, inputs, directions[:, None])
        return F.cross_entropy(logits, labels, ignore_index=255) + alignment.loss.mean()

    return loss


def whole_image_loss(bank: ClassBank, weight: float, per_step: int = 2) -> Loss:
    """Returns the cross-entropy with the published PAG loss: the nearest scene of each of two random classes."""
    target, classes = NearestNeighbour(bank), len(bank.counts)
    pag = PAGLoss(weight=weight, num_classes=classes)

    def loss(network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        chosen = torch.rand(len(images), classes, generator=generator).argsort(1)[:, :per_step]
        inputs = images.clone().requires_grad_()
        logits = network(inputs)
        alignment = pag(class_scores(logits, chosen, labels), inputs, target(images, chosen, labels))
        return F.cross_entropy(logits, labels, ignore_index=255) + alignment.loss.mean()

    return loss


@dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
        kind: 'plain', 'adversarial', 'regions', 'teacher' or 'whole image'.
        weight: λ, if the kind has one.
    """

    kind: str
    weight: float = 0.0


@dataclass(frozen=True)
class Study:
    """What a study trains on what, and how it attacks.

    Attributes:
        name: of the study, and of its file in benchmarks/results.
        data: 'train' or 'val' -> images (N, 3, H, W) uint8 and labels (N, H, W).
        classes: K.
        methods: title -> method; 'plain' is among them, and 'adversarial' if it is a teacher.
        attacks: name -> norm and radius of SEA. 'Linf' is among them, and makes the transferred images.
        pictured: the methods of the picture.
        painting: the L2 radius of the picture's moves.
        start_steps: steps of the start, on batches of twice the size.
        steps: steps of a method.
        stride: of the network's stem.
        region_side: the side of the bank's regions.
        teacher: radius and step size of the adversarial training.
        batch: the batch size of the methods.
        learning_rate: the largest one.
        iterations: of each loss of SEA.
    """

    name: str
    data: Callable[[str], tuple[Tensor, Tensor]]
    classes: int
    methods: Mapping[str, Method]
    attacks: Mapping[str, tuple[str, str]]
    pictured: tuple[str, ...]
    painting: float
    start_steps: int
    steps: int
    stride: int
    region_side: int
    teacher: tuple[str, float] = ('8/255', 6 / 255)
    batch: int = 8
    learning_rate: float = 4e-3
    iterations: int = 30

    def network(self, seed: int) -> Network:
        """Returns a network with the random weights of a seed."""
        return Network(self.classes, derive_seed(self.name, seed), self.stride)

    @cached_property
    def region_bank(self) -> ClassBank:
        """Returns the bank of regions of the training images."""
        return collect_regions(self._pictures(), self._request(32, (self.region_side, self.region_side)))

    def _pictures(self) -> Any:
        images, labels = self.data('train')
        return ((image.permute(1, 2, 0).numpy(), label.numpy()) for image, label in zip(images, labels, strict=True))

    def _request(self, per_class: int, size: tuple[int, int]) -> BankRequest:
        return BankRequest(tuple(range(self.classes)), self.classes, per_class, size)

    def loss_of(self, method: Method, seed: int, folder: Path) -> Loss:
        """Returns the loss of a method."""
        if method.kind == 'plain':
            return plain_loss
        if method.kind == 'adversarial':
            return adversarial_loss(*self.teacher)
        if method.kind == 'whole image':
            side = self.data('train')[0].shape[-1]
            return whole_image_loss(collect_bank(self._pictures(), self._request(8, (side, side))), method.weight)
        target = RegionExemplars(self.region_bank)
        if method.kind == 'teacher':
            target = RegionDistillation(self.trained('adversarial', seed, folder), self.region_bank)
        return region_loss(target, method.weight)

    def fit(self, network: nn.Module, loss: Loss, seed: int, steps: int, batch: int) -> nn.Module:
        """Returns the network after training: AdamW, a linear warm-up over a tenth of the steps, and cosine decay."""
        images, labels = self.data('train')
        peak = self.learning_rate
        optimizer = torch.optim.AdamW(network.parameters(), peak, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.1)
        rows, draws = (
            torch.Generator().manual_seed(derive_seed(self.name, name, seed, steps)) for name in ('rows', 'draws')
        )
        network.train()
        for _ in range(steps):
            chosen = torch.randint(len(images), (batch,), generator=rows)
            optimizer.zero_grad()
            loss(network, images[chosen].float() / 255, labels[chosen], draws).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        return network.eval()

    def trained(self, title: str, seed: int, folder: Path) -> nn.Module:
        """Returns the trained network of a method, or 'start'.

        Its weights, and the processor seconds of its training, are stored in a folder. It is trained once.
        """
        path = folder / f'{_stem(title, seed)}.pth'
        network = self.network(seed)
        if path.is_file():
            network.load_state_dict(torch.load(path, weights_only=True))
            return network.eval()
        if title == 'start':
            begin = time.process_time()
            self.fit(network, plain_loss, seed, self.start_steps, 2 * self.batch)
        else:
            network.load_state_dict(self.trained('start', seed, folder).state_dict())
            loss = self.loss_of(self.methods[title], seed, folder)
            begin = time.process_time()
            self.fit(network, loss, seed, self.steps, self.batch)
        folder.mkdir(parents=True, exist_ok=True)
        seconds = round(time.process_time() - begin, 1)
        path.with_suffix('.json').write_text(json.dumps(seconds), encoding='utf-8')
        torch.save(network.state_dict(), path)
        return network

    def measured(self) -> tuple[Tensor, Tensor]:
        """Returns the test images, in [0, 1], and their labels."""
        images, labels = self.data('val')
        return images.float() / 255, labels

    def attacked(self, network: nn.Module, name: str) -> Any:
        """Returns the result of SEA on the test images."""
        images, labels = self.measured()
        seeds = [derive_seed(self.name, 'attack', index) for index in range(len(images))]
        norm, radius = self.attacks[name]
        attack = preset('sea', radius, self.iterations, norm)
        return attack(network, images, labels, seeds=seeds, ignore_index=255)

    def scores_of(self, predictions: Tensor, labels: Tensor) -> dict[str, float]:
        """Returns the mIoU and the accuracy of predictions."""
        values = metrics(count(predictions, labels, self.classes))
        return {key: values[key] for key in ('mIoU', 'aAcc')}

    def repainted(self, target: RegionExemplars) -> Repainted:
        """Returns the test images with regions repainted, the same for all networks."""
        return target.repaint(*self.measured(), torch.Generator().manual_seed(derive_seed(self.name, 'measured')))

    def gradients_of(self, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Returns the gradients of the scores of repainted test images, and their targets x' - x, (N, 3, H, W) each."""
        images, labels = self.measured()
        target = RegionExemplars(self.region_bank)
        repainted = self.repainted(target)
        inputs = images.clone().requires_grad_()
        gradients = input_gradients(region_scores(network(inputs), labels, repainted)[:, None], inputs)[:, 0]
        return gradients, target.directions(images, labels, repainted)

    def alignment_of(self, network: nn.Module) -> dict[str, float]:
        """Returns the mean cosine and the mean sharpness of a network's gradients on the repainted test images."""
        gradients, directions = self.gradients_of(network)
        found = directions.flatten(1).any(1)
        cosines = cosine_similarity(gradients[:, None], directions[:, None])[found]
        return {'cosine': float(cosines.mean()), 'sharpness': float(high_frequency_share(gradients[found]).mean())}

    def transfer_to(self, network: nn.Module, seed: int, folder: Path) -> float:
        """Returns the lowest mIoU of a network under the images that SEA made for the plain and the teacher network.

        These images are stored in the folder, and made once.
        """
        lowest = 1.0
        for name in set(SOURCES) & set(self.methods):
            path = folder / f'{_stem(name, seed)}_attacked.pth'
            if not path.is_file():
                torch.save(self.attacked(self.trained(name, seed, folder), 'Linf').images, path)
            with torch.no_grad():
                predictions = network(torch.load(path, weights_only=True)).argmax(1)
            lowest = min(lowest, self.scores_of(predictions, self.measured()[1])['mIoU'])
        return lowest

    def measure(self, title: str, seed: int, folder: Path, known: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the record of a method and a seed; what is known already is not measured again."""
        network = self.trained(title, seed, folder)
        images, labels = self.measured()
        record = dict(known)
        if 'clean' not in record:
            with torch.no_grad():
                record['clean'] = self.scores_of(network(images).argmax(1), labels)
            record |= self.alignment_of(network)
        for name in self.attacks:
            if name not in record:
                result = self.attacked(network, name)
                record[name] = self.scores_of(result.predictions, labels)
                if name == 'Linf' and title in SOURCES:
                    torch.save(result.images, folder / f'{_stem(title, seed)}_attacked.pth')
        if 'transfer' not in record:
            record['transfer'] = None if title in SOURCES else self.transfer_to(network, seed, folder)
        return record

    def run(self, seeds: Sequence[int], methods: Sequence[str], records: list[dict[str, Any]], folder: Path) -> None:
        """Trains and measures everything that has no number in the records, and stores each record."""
        for seed in seeds:
            for title in methods:
                known = next((one for one in records if (one['method'], one['seed']) == (title, seed)), None)
                if known is not None and all(name in known for name in self.attacks):
                    continue
                self.trained(title, seed, folder)
                start = known or {
                    'method': title,
                    'seed': seed,
                    'seconds': json.loads((folder / f'{_stem(title, seed)}.json').read_text(encoding='utf-8')),
                    'date': datetime.date.today().isoformat(),
                }
                record = self.measure(title, seed, folder, start)
                if known is None:
                    records.append(record)
                else:
                    known.update(record)
                print(json.dumps(record), flush=True)
                store(self.name, records)

    def draw_picture(self, networks: Mapping[str, nn.Module], path: Path) -> None:
        """Writes the picture: of four test images, each network's gradient, and the image moved to repainted labels.

        The moves are targeted attacks of large radius, whose labels are those of the repainted images.
        """
        (images, _), repainted = self.measured(), self.repainted(RegionExemplars(self.region_bank))
        rows = slice(0, 4)
        columns = {'image': images[rows], 'repainted': repainted.images[rows]}
        threat, goal = L2(radius=self.painting), CrossEntropy(targeted=True)
        attack = PGD(threat=threat, steps=40, step_size=self.painting / 10, objective=goal)
        for name, network in networks.items():
            columns[f'{name}:\ngradient'] = _grey(self.gradients_of(network)[0][rows])
            moved = attack(network, images[rows], repainted.labels[rows], seeds=range(4), ignore_index=255)
            columns[f'{name}:\nmoved'] = moved.images
        figure = Figure(figsize=(1.25 * len(columns), 5.5), layout='constrained')
        grid = figure.subplots(4, len(columns))
        for column, (title, pictures) in enumerate(columns.items()):
            for row, picture in enumerate(pictures):
                grid[row, column].imshow(picture.flip(0).permute(1, 2, 0).clamp(0, 1).numpy(), interpolation='nearest')
                grid[row, column].set(xticks=[], yticks=[])
            grid[0, column].set_title(title, fontsize=8)
        figure.savefig(path, dpi=80)

    def table(self, records: Sequence[dict[str, Any]]) -> str:
        """Returns the Markdown table, means and standard deviations over the seeds."""

        def cell(group: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float], digits: int) -> str:
            mean, deviation = mean_and_deviation([value(record) for record in group])
            return f'{mean:.{digits}f}' + (f' ± {deviation:.{digits}f}' if len(group) > 1 else '')

        radii = ' | '.join(f'SEA {"L2 " if norm == "L2" else ""}{radius}' for norm, radius in self.attacks.values())
        lines = [
            f'| training | clean mIoU | {radii} | transfer | cosine | sharpness | s | seeds |',
            '|---|' + '---:|' * (6 + len(self.attacks)),
        ]
        for title in self.methods:
            group = [record for record in records if record['method'] == title]
            if not group:
                continue
            columns = ('clean', *self.attacks)
            cells = [cell(group, lambda record, key=key: 100 * record[key]['mIoU'], 1) for key in columns]
            known = all(record['transfer'] is not None for record in group)
            cells.append(cell(group, lambda record: 100 * record['transfer'], 1) if known else '-')
            cells += [cell(group, lambda record, key=key: record[key], 2) for key in ('cosine', 'sharpness')]
            cells += [f'{mean_and_deviation([record["seconds"] for record in group])[0]:.0f}', str(len(group))]
            lines.append(f'| {title} | {" | ".join(cells)} |')
        return '\n'.join(lines)

    def main(self, description: str, seeds: Sequence[int] = (0, 1, 2)) -> None:
        """Runs what has not run yet, and writes the section and the picture."""
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument('--seeds', type=int, nargs='+', default=seeds)
        parser.add_argument('--methods', nargs='+', default=tuple(self.methods), choices=tuple(self.methods))
        parser.add_argument('--work-dir', type=Path, default=Path('work_dirs') / self.name)
        parser.add_argument('--stored', action='store_true', help='run nothing; write the table of what has run')
        arguments = parser.parse_args()
        torch.set_num_threads(1)
        file, picture = RESULTS / f'{self.name}.json', f'{self.name}.png'
        records = json.loads(file.read_text(encoding='utf-8'))['records'] if file.is_file() else []
        if not arguments.stored:
            self.run(arguments.seeds, arguments.methods, records, arguments.work_dir)
            networks = {title: self.trained(title, 0, arguments.work_dir) for title in self.pictured}
            self.draw_picture(networks, ROOT / 'docs/images' / picture)
        content = json.loads(file.read_text(encoding='utf-8'))
        script = f'benchmarks/{self.name}.py'
        several = len({record['seed'] for record in content['records']}) > 1
        over = 'mean ± standard deviation over the seeds of the training' if several else 'one seed of the training'
        text = (
            f'{self.table(content["records"])}\n\nmIoU in percent, {len(self.data("val")[0])} images, '
            f'{over}. SEA takes {self.iterations} iterations of each of four losses. '
            f's: processor time of {self.steps} steps. {provenance(content)}\n\n'
            f'![Gradients, and images moved to other labels](images/{picture})\n\n'
            f'Four test images and networks of seed 0. A move is a targeted attack in an L2 ball of {self.painting:g}, '
            f'towards the label map of the repainted image.\n\n```bash\npython {script}\n```'
        )
        write_section(PAGE, script, text)
        print(text)


def _stem(title: str, seed: int) -> str:
    """Returns the name of a network's files."""
    return f'{title.replace(", ", "_").replace(" ", "_")}_{seed}'


def _grey(gradients: Tensor) -> Tensor:
    """Returns gradients around mid-grey, each scaled by its own 99th percentile."""
    scale = gradients.abs().flatten(1).quantile(0.99, 1).clamp_min(1e-12)
    return (0.5 + 0.5 * gradients / scale[:, None, None, None]).clamp(0, 1)
