"""Measures attacks and adversarial training on a GPU in one run with a limit of wall-clock time.

    python benchmarks/gpu.py [--minutes 8] [--out FILE] [--tiny | --stored]

The most telling measurements come first. The file is written anew, atomically, after each of them. So a run that is
cut short keeps what it has. A measurement that fails is stored with its error, and the next one runs.

- Attacks: AMA on UPerNet + ConvNeXt-T and Segmenter + ViT-S at 512x512, with 21 and 151 classes, batches of 8 and 1, in
  each precision and form of the forward pass. Images per second stand beside those of a bare loop in eager float32 with
  as many passes. The strength is the accuracy left, always scored by the eager float32 model. The models train on
  coloured scenes for some steps first, so that strength means something.
- Training: steps of PGD-3 adversarial training, in float32 and with mixed precision.
- GPU tests: tests/gpu, in a process of their own.
- Two sanity checks in one process, without communication: the GPU against the CPU, a batch against its single images.

``--tiny`` runs all of it with small models and images on whatever device there is. What needs CUDA is stored as skipped
without it. ``--stored`` measures nothing, and writes the table of docs/performance.md from the file.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from experiments import RESULTS, ROOT
from gpu_report import publish
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmadv.attacks import AttackResult, ama, derive_seed
from mmadv.attacks.freezing import frozen
from mmadv.commands.provenance import hardware, versions
from mmadv.models.adapter import TrainingAdapter
from mmadv.models.building import build_segmentor

SCHEMA, SCHEMA_VERSION = 'mmadv/benchmark/gpu', 1
RADIUS = '2/255'
NO_CUDA = 'needs CUDA'
COMPILING = 75  # seconds that must be left for a measurement that compiles


class TimeUp(BaseException):
    """The time of the run is over. It is no ``Exception``, so that no measurement catches it."""


@dataclass(frozen=True)
class Scale:
    """How large the models and numbers are.

    Attributes:
        configs: title of a model -> its config.
        size: height and width of the images.
        training_steps: for which the models train before they are attacked.
        warm_up: passes of an attack before it is timed.
        passes: of an attack.
        large: images of the larger batch.
        layers: of the backbone of Segmenter; None for those of its config.
    """

    configs: Mapping[str, str]
    size: int
    training_steps: int
    warm_up: int
    passes: int
    large: int
    layers: int | None = None


FULL = Scale(
    {
        'UPerNet + ConvNeXt-T': 'configs/published/upernet_convnext_t_ade20k_sea_protocol.py',
        'Segmenter + ViT-S': 'configs/published/segmenter_vit_s_ade20k_sea_protocol.py',
    },
    size=512,
    training_steps=60,
    warm_up=3,
    passes=20,
    large=8,
)
TINY = Scale(
    {
        'UPerNet + ConvNeXt-T': 'configs/_base_/models/upernet_toy.py',
        'Segmenter + ViT-S': 'configs/_base_/models/segmenter_toy.py',
    },
    size=32,
    training_steps=1,
    warm_up=1,
    passes=1,
    large=2,
    layers=1,
)


@dataclass(frozen=True)
class Variant:
    """A way to run the forward pass; 'eager float32, contiguous' unless a field says otherwise."""

    tf32: bool = False
    bf16: bool = False
    channels_last: bool = False
    graphs: bool = False
    compiled: bool = False

    @property
    def needs_cuda(self) -> bool:
        """Whether the variant does nothing, or takes minutes, on a CPU."""
        return self.tf32 or self.graphs or self.compiled


VARIANTS = {
    'fp32': Variant(),
    'bf16 forward, fp32 loss': Variant(bf16=True),
    'TF32': Variant(tf32=True),
    'channels_last': Variant(channels_last=True),
    'bf16, channels_last': Variant(bf16=True, channels_last=True),
    'CUDA graphs': Variant(graphs=True),
    'bf16, channels_last, CUDA graphs': Variant(bf16=True, channels_last=True, graphs=True),
    'torch.compile': Variant(compiled=True),
    'bf16, channels_last, torch.compile': Variant(bf16=True, channels_last=True, compiled=True),
}
BARE = 'bare loop, fp32'
EAGER = (BARE, *(name for name, one in VARIANTS.items() if not one.graphs and not one.compiled))
GRAPHS = tuple(name for name, one in VARIANTS.items() if one.graphs)
COMPILED = tuple(name for name, one in VARIANTS.items() if one.compiled)
PRECISIONS = {'fp32': None, 'AMP, bf16': 'bfloat16', 'AMP, fp16': 'float16'}


class Forward(nn.Module):
    """Float32 logits of a model whose forward pass may run in bfloat16."""

    gives_up_logits = True

    def __init__(self, model: nn.Module, *, bf16: bool) -> None:
        super().__init__()
        self.model = model
        self.bf16 = bf16

    def forward(self, images: Tensor) -> Tensor:
        """Returns (N, K, H, W)."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.model(images)
        return logits.float()


class Graphed(nn.Module):
    """A model whose forward and backward passes are replayed as CUDA graphs, for batches of the size of ``images``."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.model = model
        self.shape = images.shape
        model(images)  # checks of the first pass wait for the device, which a capture cannot
        sample = images.clone().requires_grad_()
        self.replay = torch.cuda.make_graphed_callables(lambda batch: model(batch), (sample,))

    def forward(self, images: Tensor) -> Tensor:
        """Returns (N, K, H, W); images that are left of a batch go through the model itself."""
        return self.replay(images) if images.shape == self.shape else self.model(images)


def scenes(count: int, size: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Returns images (N, 3, H, W) in [0, 1] and labels (N, H, W): a region has the colour of its class, and noise."""
    colours = torch.rand(classes, 3, generator=torch.Generator().manual_seed(classes))
    generator = torch.Generator().manual_seed(seed)
    # A few classes in each image, as photographs have them.
    present = torch.rand(count, classes, generator=generator).argsort(1)[:, :6]
    heights = F.interpolate(torch.randn(count, 6, 6, 6, generator=generator), size=(size, size), mode='bicubic')
    labels = present.gather(1, heights.argmax(1).flatten(1)).view(count, size, size)
    images = colours[labels].permute(0, 3, 1, 2) + 0.05 * torch.randn(count, 3, size, size, generator=generator)
    return images.clamp(0, 1), labels


class Workload:
    """A model after a short training, and images to attack.

    Args:
        scale: of models and images.
        title: of the model.
        classes: number of classes.
        device: 'cpu' or 'cuda'.
    """

    def __init__(self, scale: Scale, title: str, classes: int, device: str) -> None:
        self.scale = scale
        self.device = device
        self.classes = classes
        torch.manual_seed(0)
        self.segmentor = build_segmentor({'model': model_settings(scale, title, classes)}).to(device)
        self.adapter = TrainingAdapter(self.segmentor, (scale.size, scale.size))
        self._train()

    def _train(self) -> None:
        optimizer = torch.optim.AdamW(self.adapter.parameters(), lr=1e-3)
        model = Forward(self.adapter, bf16=self.device == 'cuda').train()
        for step in range(self.scale.training_steps):
            images, labels = scenes(self.scale.large, self.scale.size, self.classes, 1000 + step)
            loss = F.cross_entropy(model(images.to(self.device)), labels.to(self.device))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        self.adapter.eval().requires_grad_(False)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns the images to attack and their labels."""
        images, labels = scenes(count, self.scale.size, self.classes, 0)
        return images.to(self.device), labels.to(self.device)

    def forward_of(self, variant: Variant, images: Tensor) -> nn.Module:
        """Returns the model in a variant."""
        layout = torch.channels_last if variant.channels_last else torch.contiguous_format
        self.segmentor.to(memory_format=layout)
        model: nn.Module = Forward(self.adapter, bf16=variant.bf16)
        if variant.compiled:
            model = torch.compile(model)
        return Graphed(model, images) if variant.graphs else model

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Returns the share of pixels that the eager float32 model has right."""
        self.segmentor.to(memory_format=torch.contiguous_format)
        with tf32(False), torch.no_grad():
            right = [self.adapter(image[None]).argmax(1) == label for image, label in zip(images, labels, strict=True)]
        return float(torch.stack(right).float().mean())


def model_settings(scale: Scale, title: str, classes: int) -> Config:
    """Returns the config of a model with a number of classes."""
    settings = Config.fromfile(ROOT / scale.configs[title]).model
    settings.backbone.pop('init_cfg', None)
    if scale.layers is not None and 'num_layers' in settings.backbone:
        settings.backbone.num_layers = scale.layers
    for head in ('decode_head', 'auxiliary_head'):
        if head in settings:
            settings[head].num_classes = classes
            settings[head].loss_decode = dict(type='CrossEntropyLoss', avg_non_ignore=True)
    return settings


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Lets matrix products and convolutions round their inputs to TF32 in a block, or not."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = on
        yield
    finally:
        for backend, flag in zip(backends, before, strict=True):
            backend.allow_tf32 = flag


def timed(step: Callable[[], Any], device: str) -> tuple[Any, dict[str, float]]:
    """Returns what a step returns, its wall-clock seconds and, on a GPU, the bytes that torch allocated at most."""
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    result = step()
    if device == 'cuda':
        torch.cuda.synchronize()
    numbers = {'seconds': time.perf_counter() - start}
    if device == 'cuda':
        numbers['peak_bytes'] = torch.cuda.max_memory_allocated()
    return result, numbers


class Measurements:
    """Everything that a run measures: methods that return numbers.

    Args:
        scale: of models and images.
        device: 'cpu' or 'cuda'.
    """

    def __init__(self, scale: Scale, device: str) -> None:
        self.scale = scale
        self.device = device
        self._workloads: dict[tuple[str, int], Workload] = {}

    def workload(self, title: str, classes: int) -> Workload:
        """Returns a model, which trains when it is first asked for."""
        key = (title, classes)
        if key not in self._workloads:
            self._workloads[key] = Workload(self.scale, title, classes, self.device)
        return self._workloads[key]

    def attack(self, title: str, classes: int, count: int, variant: str) -> dict[str, Any]:
        """Returns time, memory and strength of AMA on a model, or time and memory of as many bare passes."""
        workload = self.workload(title, classes)
        images, labels = workload.batch(count)
        chosen = VARIANTS.get(variant, Variant())
        with tf32(chosen.tf32):
            model = workload.forward_of(chosen, images)
            if variant == BARE:
                bare_passes(model, images, self.scale.warm_up)
                _, numbers = timed(lambda: bare_passes(model, images, self.scale.passes), self.device)
                adversarial = images
            else:
                seeds = [derive_seed(0, index) for index in range(count)]
                ama(RADIUS, self.scale.warm_up)(model, images, labels, seeds=seeds)
                attack = ama(RADIUS, self.scale.passes)
                result, numbers = timed(lambda: attack(model, images, labels, seeds=seeds), self.device)
                adversarial = result.images
        accuracy = workload.accuracy(adversarial, labels)
        return {**numbers, 'images_per_second': count / numbers['seconds'], 'accuracy': accuracy}

    def training(self, title: str, precision: str) -> dict[str, Any]:
        """Returns time and memory of a step of PGD-3 adversarial training, and its last loss."""
        scale = self.scale
        settings = copy.deepcopy(model_settings(scale, title, 21))
        attack = dict(type='PGD', threat=dict(type='Linf', radius='4/255'), steps=3, step_size='2/255')
        settings.data_preprocessor.update(type='AdvSegDataPreProcessor', attack=attack, prob=1.0)
        torch.manual_seed(0)
        model = build_segmentor({'model': settings}).to(self.device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        dtype = PRECISIONS[precision]
        wrapper = AmpOptimWrapper(optimizer=optimizer, dtype=dtype) if dtype else OptimWrapper(optimizer)
        images, labels = scenes(scale.large, scale.size, 21, 0)
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]
        for sample in samples:
            sample.set_metainfo(dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), (scale.size, scale.size)))
        data = {'inputs': list((images * 255).byte()), 'data_samples': samples}

        def step() -> float:
            return float(model.train_step(copy.copy(data), wrapper)['loss'].detach())

        step()
        loss, numbers = timed(step, self.device)
        return {**numbers, 'images_per_second': scale.large / numbers['seconds'], 'loss': loss}

    def same_as_on_the_cpu(self) -> dict[str, Any]:
        """Returns how far an attack on the device is from the same attack on the CPU, both in float32."""
        here, there = (self._small_attack(device) for device in (self.device, 'cpu'))
        return agreement(here, there)

    def same_in_a_batch(self) -> dict[str, Any]:
        """Returns how far an attack on a batch is from the same attack on its images one by one."""
        return agreement(self._small_attack(self.device), self._small_attack(self.device, one_by_one=True))

    def _small_attack(self, device: str, *, one_by_one: bool = False) -> list[AttackResult]:
        torch.manual_seed(0)
        segmentor = build_segmentor({'model': model_settings(TINY, 'UPerNet + ConvNeXt-T', 11)}).to(device).eval()
        model = TrainingAdapter(segmentor, (TINY.size, TINY.size))
        images, _ = scenes(4, TINY.size, 11, 0)
        with tf32(False), torch.no_grad():
            labels = model(images.to(device)).argmax(1)
        parts = [slice(n, n + 1) for n in range(4)] if one_by_one else [slice(0, 4)]
        seeds = range(4)
        with tf32(False):
            return [ama(RADIUS, 5)(model, images[p].to(device), labels[p], seeds=list(seeds[p])) for p in parts]

    def gpu_tests(self, seconds: float) -> dict[str, Any]:
        """Returns how many tests of tests/gpu passed, failed and were skipped on CUDA."""
        command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-k', 'cuda']
        command += ['--override-ini', 'filterwarnings=', 'tests/gpu']
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=max(seconds, 1))
        counts = {word: int(number) for number, word in re.findall(r'(\d+) (passed|failed|skipped|error)', done.stdout)}
        if done.returncode:
            raise RuntimeError(f'pytest ends with {done.returncode}: {done.stdout[-2000:]}')
        return counts


def bare_passes(model: nn.Module, images: Tensor, count: int) -> None:
    """Takes input gradients of the mean logit in a loop, and one more forward pass, as an attack of ``count`` does."""
    with frozen(model):
        for _ in range(count):
            leaf = images.detach().requires_grad_()
            torch.autograd.grad(model(leaf).mean(), leaf)
        with torch.no_grad():
            model(images)


def agreement(ours: list[AttackResult], theirs: list[AttackResult]) -> dict[str, Any]:
    """Returns the largest difference of accuracies and the share of pixels of equal predictions.

    Raises:
        RuntimeError: accuracies differ by more than a hundredth.
    """
    accuracy, predictions = (
        [torch.cat([getattr(result, name).cpu() for result in results]) for results in (ours, theirs)]
        for name in ('accuracy', 'predictions')
    )
    difference = float((accuracy[0] - accuracy[1]).abs().max())
    if difference > 0.01:
        raise RuntimeError(f'accuracies under attack differ by {difference:.3f}, more than 0.01')
    return {
        'accuracy_difference': difference,
        'equal_predictions': float((predictions[0] == predictions[1]).float().mean()),
    }


@dataclass(frozen=True)
class Job:
    """A measurement to come.

    Attributes:
        facts: what tells it apart.
        measure: takes the seconds that are left, and returns its numbers.
        needs_cuda: why it does not run on a CPU; empty if it does.
        seconds: that must be left for it to start.
    """

    facts: Mapping[str, Any]
    measure: Callable[[float], Mapping[str, Any]]
    needs_cuda: str = ''
    seconds: float = 10


def plan(scale: Scale, device: str) -> list[Job]:
    """Returns all measurements, the most telling ones first."""
    measurements = Measurements(scale, device)
    jobs = [
        Job({'kind': 'sanity', 'check': 'device against CPU'}, lambda _: measurements.same_as_on_the_cpu()),
        Job({'kind': 'sanity', 'check': 'batch against single images'}, lambda _: measurements.same_in_a_batch()),
    ]

    def attacks(classes: int, count: int, variants: tuple[str, ...]) -> None:
        for title in scale.configs:
            for variant in variants:
                needs_cuda = variant in VARIANTS and VARIANTS[variant].needs_cuda
                jobs.append(
                    Job(
                        dict(kind='attack', model=title, classes=classes, batch=count, variant=variant),
                        lambda _, arguments=(title, classes, count, variant): measurements.attack(*arguments),
                        f'{variant} {NO_CUDA}' if needs_cuda else '',
                        COMPILING if variant in COMPILED else 10,
                    )
                )

    attacks(21, scale.large, EAGER)
    attacks(21, 1, (*EAGER, *GRAPHS))
    for title in scale.configs:
        for precision, dtype in PRECISIONS.items():
            facts = dict(kind='training', model=title, classes=21, batch=scale.large, variant=precision)
            measure = lambda _, arguments=(title, precision): measurements.training(*arguments)  # noqa: E731
            jobs.append(Job(facts, measure, f'AmpOptimWrapper {NO_CUDA}' if dtype else ''))
    jobs.append(Job({'kind': 'tests', 'folder': 'tests/gpu'}, measurements.gpu_tests, f'tests/gpu {NO_CUDA}', 30))
    attacks(151, scale.large, EAGER)
    attacks(21, scale.large, (*COMPILED, *GRAPHS))
    attacks(151, 1, (*EAGER, *GRAPHS))
    attacks(151, scale.large, (*COMPILED, *GRAPHS))
    attacks(21, 1, COMPILED)
    attacks(151, 1, COMPILED)
    return jobs


def perform(job: Job, device: str, left: float) -> dict[str, Any]:
    """Returns the state and the numbers of a measurement; an error becomes the state 'failed' with its text."""
    if job.needs_cuda and device == 'cpu':
        return {'state': 'skipped', 'reason': job.needs_cuda}
    if left < job.seconds:
        return {'state': 'skipped', 'reason': f'{left:.0f} s are left, less than {job.seconds:.0f} s'}
    try:
        return {'state': 'done', **job.measure(left)}
    except TimeUp:
        return {'state': 'skipped', 'reason': 'the time was over before it ended'}
    except Exception as error:  # the error of one variant must not cost the others; the file and the exit code have it
        return {'state': 'failed', 'reason': f'{type(error).__name__}: {error}'[:3000]}


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Writes the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix('.tmp')
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + '\n', encoding='utf-8')
    os.replace(temporary, path)


def run(scale: Scale, device: str, minutes: float, out: Path) -> list[dict[str, Any]]:
    """Measures until the time is over, and returns the records that the file holds."""
    records: list[dict[str, Any]] = []
    content = {
        'schema': SCHEMA,
        'schema_version': SCHEMA_VERSION,
        'date': datetime.date.today().isoformat(),
        'command': shlex.join(['python', *sys.argv]),
        'versions': versions(),
        'hardware': {**hardware(), 'threads': torch.get_num_threads()},
        'device': device,
        'tiny': scale is TINY,
        'size': scale.size,
        'passes': scale.passes,
        'training_steps': scale.training_steps,
        'radius': RADIUS,
        'records': records,
    }

    def time_up(*_: Any) -> None:
        raise TimeUp

    end = time.monotonic() + 60 * minutes
    before = signal.signal(signal.SIGALRM, time_up)
    try:
        for job in plan(scale, device):
            left = end - time.monotonic()
            if left > 0:
                signal.setitimer(signal.ITIMER_REAL, left)
            record = {**job.facts, **perform(job, device, left)}
            signal.setitimer(signal.ITIMER_REAL, 0)
            records.append(record)
            save(out, content)
            print(json.dumps(record), flush=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return records


def main(arguments: list[str] | None = None) -> None:
    """Measures, or writes the table from the stored file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=8, help='wall-clock time after which nothing goes on')
    parser.add_argument('--out', type=Path, default=RESULTS / 'gpu.json', help='file of the results')
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--tiny', action='store_true', help='small models and images, on a CPU too; needs --out')
    form.add_argument('--stored', action='store_true', help='measure nothing; write the table from the file')
    options = parser.parse_args(arguments)
    if options.stored:
        publish(json.loads(options.out.read_text(encoding='utf-8')), ROOT)
        return
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if options.tiny and options.out == RESULTS / 'gpu.json':
        raise SystemExit('error: --tiny needs --out, so that it does not replace the results of a GPU')
    if device == 'cpu' and not options.tiny:
        raise SystemExit('error: no CUDA device; run on a machine with one, or take --tiny')
    records = run(TINY if options.tiny else FULL, device, options.minutes, options.out)
    failed = sum(record['state'] == 'failed' for record in records)
    if failed:
        raise SystemExit(f'error: {failed} of {len(records)} measurements failed; {options.out} has their errors')


if __name__ == '__main__':
    main()
