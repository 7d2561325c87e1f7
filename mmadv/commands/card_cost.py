"""The cost of a robustness card: its passes, counted beforehand, and its time, from a timed probe of the model."""

from __future__ import annotations

import io
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmadv.attacks import Attack
from mmadv.attacks.trained_attack import TrainedAttack
from mmadv.commands import testing, testing_options
from mmadv.commands.card_parts import Part
from mmadv.engine.attack_regions import parse_box
from mmadv.engine.measurements import Calibration, Certificates, CommonCorruptions, SanityChecks
from mmadv.engine.spec import EvaluationSpec
from mmadv.errors import UserError
from mmadv.locks import temporary_folder
from mmadv.report.card import Cost, Rates
from mmadv.report.run import RunResults
from mmadv.robustness.sanity_checks import measure

PREFIX = 'mmadv-probe-'
# Iterations of the probe's attacks.
PROBE_PAIRS, PROBE_FORWARD = 8, 8
SIDE = 8
# What an error says about results that are kept.
KEPT = r' \(\d+ images are done and kept in .*\)$'


class Passes(NamedTuple):
    """Passes of the model.

    Attributes:
        forward: forward passes for each image.
        backward: backward passes for each image.
        once: forward and backward passes for all images together, of a perturbation that is trained once.
        corrupted: corrupted copies of each image.
    """

    forward: int
    backward: int
    once: int = 0
    corrupted: int = 0


class Stubborn(torch.nn.Module):
    """A model with a gradient whose predictions no attack changes; it counts its passes.

    An attack takes the most passes on it, as no image is ever solved.
    """

    def __init__(self) -> None:
        super().__init__()
        self.forward_passes = self.backward_passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.forward_passes += len(images)
        mean = images.mean(1) * 1.0
        if mean.requires_grad:
            mean.register_hook(self._count)
        return torch.stack([100 + mean, mean * mean, -mean], dim=1)

    def _count(self, gradient: Tensor) -> None:
        self.backward_passes += len(gradient)


def counted(run: Callable[[Stubborn, Tensor, Tensor], Any]) -> tuple[int, int]:
    """Returns the forward and backward passes that a function takes for one image: (model, images, labels) -> any."""
    model = Stubborn()
    images = torch.linspace(0.2, 0.8, 3 * SIDE * SIDE).reshape(1, 3, SIDE, SIDE)
    labels = torch.zeros(1, SIDE, SIDE, dtype=torch.int64)
    run(model, images, labels)
    return model.forward_passes, model.backward_passes


def passes_of(spec: EvaluationSpec) -> Passes:
    """Returns the most passes that an evaluation takes; it takes fewer on images that an attack solves early."""
    forward, backward, once, corrupted = 1, 0, 0, 0
    positive = [attack for attack in spec.attacks.values() if attack is not None]
    for attack in positive:
        if isinstance(attack, TrainedAttack):
            once += attack.steps * attack.batch_size
            forward += 1
            continue
        own = _of_attack(attack, spec)
        forward, backward = forward + own[0] + (spec.source is not None), backward + own[1]
    for one in spec.measurements:
        if isinstance(one, CommonCorruptions):
            corrupted += len(one._corruptions) * len(one._severities)
            forward += len(one._corruptions) * len(one._severities)
        elif isinstance(one, Calibration):
            corrupted += len(one._corruptions)
            forward += 1 + len(one._corruptions) + len(positive)
        elif isinstance(one, Certificates):
            forward += one.n0 + one.n
        elif isinstance(one, SanityChecks):
            own = _of_checks(positive[0])
            forward, backward = forward + own[0], backward + own[1]
    return Passes(forward, backward, once, corrupted)


def _of_attack(attack: Attack, spec: EvaluationSpec) -> tuple[int, int]:
    box = parse_box(spec.region) if spec.region else None
    inside = attack if box is None else attack.inside(box)

    def run(model: Stubborn, images: Tensor, labels: Tensor) -> Any:
        clean = None if spec.source is not None else labels
        return inside(model, images, labels, seeds=[0], clean_predictions=clean)

    return counted(run)


def _of_checks(attack: Attack) -> tuple[int, int]:
    return counted(lambda model, images, labels: measure(model, images, labels, attack, seeds=[0]))


def images_of(part: Part, sizes: Mapping[str, int]) -> int:
    """Returns the number of images of a part; ``sizes`` has the size of the dataset of each part."""
    size = sizes[part.name]
    return size if part.spec.limit is None else min(part.spec.limit, size)


def probe(parts: Sequence[Part], model: Sequence[str], common: Mapping[str, Any], images: int) -> Rates:
    """Returns the times of the model's passes and of the work around them, measured on a few of the card's images.

    The probe runs ``mmadv test`` in a temporary folder. So it also finds what is wrong with model and data before the
    card writes anything. Each attack runs at two radii, and the second one is timed: the first passes of a model are
    slow.

    Args:
        parts: the parts of the card.
        model: config and checkpoint.
        common: further arguments of each command.
        images: number of images, at most a batch.
    """
    parse = testing_options.parser().parse_args
    with temporary_folder(tempfile.gettempdir(), PREFIX) as folder:

        def run(*words: str) -> tuple[RunResults, float, float]:
            argv = [*model, *words, '--show', '0', *common['batch'], *common['all'], '--out', str(folder / 'run')]
            arguments = parse(argv)
            start = time.perf_counter()
            spec = testing_options.spec_of_arguments(arguments)
            try:
                with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                    testing.run_evaluation('test', arguments, argv, spec)
            except UserError as error:  # the probe keeps nothing
                raise UserError(re.sub(KEPT, '', str(error))) from error
            results = RunResults.load(folder / 'run')
            inside = sum(seconds for name, seconds in results.seconds.items() if name != 'total')
            return results, inside, time.perf_counter() - start

        limit = ['--limit', str(images)]
        radii = ['--eps', '3/255', '4/255']
        pairs, _, _ = run('--attack', 'auto', '--iterations', str(PROBE_PAIRS), *radii, *limit)
        forwards, inside, total = run('--attack', 'square', '--iterations', str(PROBE_FORWARD), *radii, *limit)
        overhead, forward = total - inside, _forward(forwards)
        pair = _pair(pairs, forward)
        source = corrupted = None
        transfer = next((part for part in parts if part.name == 'transfer'), None)
        if transfer is not None:
            files = ['--source', *transfer.arguments.source]
            own, _, _ = run('--attack', 'auto', '--iterations', str(PROBE_PAIRS), *radii, *limit, *files)
            source = _pair(own, forward)
        corruptions = next((part for part in parts if part.name in ('corruptions', 'calibration')), None)
        if corruptions is not None:
            names = corruptions.arguments.corruptions
            names = corruptions.arguments.calibration_corruptions if names is None else names
            words = ['--corruptions', *names, '--severities', '3']
            if corruptions.arguments.frost_photographs is not None:
                words += ['--frost-photographs', corruptions.arguments.frost_photographs]
            own, inside, total = run('--attack', 'none', *words, '--limit', '1')
            number = len(own.evaluation.measurements['corruptions']['corrupted'])
            corrupted = max((total - inside - overhead) / number - forward, 0.0)
    return Rates(overhead, forward, pair, pair if source is None else source, corrupted or 0.0)


def _forward(results: RunResults) -> float:
    """Returns the seconds of a forward pass, at the last radius of an attack that has no other passes."""
    radius, result = list(results.evaluation.attacked.items())[-1]
    return results.seconds[radius] / max(result.passes.forward.total, 1)


def _pair(results: RunResults, forward: float) -> float:
    """Returns the seconds of a forward and a backward pass, at the last radius."""
    radius, result = list(results.evaluation.attacked.items())[-1]
    alone = result.passes.forward.total - result.passes.backward.total
    return max(results.seconds[radius] - alone * forward, 0.0) / max(result.passes.backward.total, 1)


def cost_of(part: Part, images: int, passes: Passes, rates: Rates) -> Cost:
    """Returns the cost of a part: its passes, and the time that they take at the rates of the probe."""
    pair = rates.source_pair if part.spec.source is not None else rates.pair
    seconds = rates.overhead + images * (passes.forward - passes.backward) * rates.forward
    seconds += (images * passes.backward + passes.once) * pair + images * passes.corrupted * rates.corrupted
    return Cost(part.title, images, passes.forward, passes.backward, passes.once, seconds)


def costs_of(parts: Sequence[Part], sizes: Mapping[str, int], rates: Rates) -> dict[str, Cost]:
    """Returns name of the part -> its cost."""
    return {part.name: cost_of(part, images_of(part, sizes), passes_of(part.spec), rates) for part in parts}


def path_of(out: Path, part: Part) -> Path:
    """Returns the result folder of a part."""
    return out / 'parts' / part.name
