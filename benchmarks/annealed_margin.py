"""Measures AMA, and the ensemble made of it, against SEA and other attacks, for docs/annealed_margin.md.

    python benchmarks/annealed_margin.py --minutes 30

A case is a model, a radius and some images. A run is an attack with a number of iterations and a seed on a case. Every
run is stored at once in benchmarks/results/annealed_margin/CASE.json, with the accuracy and the passes of each image.
Stored runs do not run again, so an interrupted study can be resumed. benchmarks/annealed_margin_report.py makes the
tables and the figure from the stored runs.

tools/test.py may have attacked the same images with the same checkpoint, radius and noise before. Then the losses of
SEA are read from the result folder of the case. The numbers are the same, and SEA does not run again.

The checkpoints are those of ``make demo``, of benchmarks/camvid.py, pir_at.py and cell_classes.py, and of the training
commands in the document, each in its usual folder. A case without its checkpoint is named and left out.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmseg.utils import register_all_modules
from torch import Tensor

from mmadv.attacks import (
    APGD,
    L2,
    PGD,
    AnnealedMargin,
    Attack,
    Cascade,
    CosineSchedule,
    CosPGD,
    CrossEntropy,
    FurthestClass,
    JensenShannon,
    Linf,
    MaskedCrossEntropy,
    Objective,
    RadiusReduction,
    SegPGD,
    Threat,
    WorstCase,
    adaptive,
    ama,
    auto,
    derive_seed,
    sea,
)
from mmadv.attacks.annealed_margin import LEAST_SCALE
from mmadv.attacks.pixel_scores import PixelScores
from mmadv.checkpoints.loading import file_sha256, load_weights
from mmadv.commands.provenance import hardware, versions
from mmadv.engine.attack_targets import with_targeted
from mmadv.engine.data import Selection, build_dataset
from mmadv.models import SegmentorAdapter, stack_images, stack_labels
from mmadv.models.building import build_segmentor
from mmadv.report import load_results

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / 'benchmarks/results/annealed_margin'
THREATS = {'Linf': Linf, 'L2': L2}
SCHEMA, SCHEMA_VERSION = 'mmadv/annealed-margin', 1


@dataclass(frozen=True)
class Case:
    """A model, a radius and some images.

    Attributes:
        name: name of the file with the results.
        title: title in tables.
        config: config of the model and its data.
        checkpoint: checkpoint of the model.
        radius: radius of the Linf ball.
        images: indexes in the dataset.
        results: folder in which tools/test.py may have left SEA on the model, with these among its images and this
            among its radii; empty for none.
        threat: 'Linf' or 'L2'.
        target: target class of every labelled pixel; None if any class but the label will do.
    """

    name: str
    title: str
    config: str
    checkpoint: str
    radius: str
    images: tuple[int, ...]
    results: str = ''
    threat: str = 'Linf'
    target: int | None = None


DIGITS, OTHER_DIGITS, MORE_DIGITS, HELD_OUT_DIGITS = (tuple(range(first, 128, 16)) for first in (4, 8, 12, 2))
CAMVID = tuple(i * 101 // 8 for i in range(8))


def digits(name: str, training: str, stem: str, checkpoint: str, radii: Sequence[int]) -> list[Case]:
    """Returns a case per radius, in 255ths, of a model of digit scenes."""
    config = f'configs/demo/{stem}.py'
    return [Case(f'{name}_{r}', f'digits, {training}', config, checkpoint, f'{r}/255', DIGITS) for r in radii]


def camvid(name: str, training: str, config: str, radii: Sequence[str]) -> list[Case]:
    """Returns a case per radius, in 255ths, of a model of CamVid."""
    folder = f'work_dirs/camvid/{Path(config).stem}'
    return [
        Case(f'{name}_{r.replace(".", "_")}', f'CamVid UPerNet, {training}', config, f'{folder}/iter_800.pth',
             f'{r}/255', CAMVID, f'{folder}_sea_{r}_255')
        for r in radii
    ]  # fmt: skip


def many_classes(number: int) -> Case:
    """Returns the case of a model of benchmarks/cell_classes.py."""
    name = f'pspnet_{number}_classes'
    config, checkpoint = f'benchmarks/configs/{name}.py', f'work_dirs/cell_classes/{name}/iter_600.pth'
    return Case(f'{name}_8', f'digits, PSPNet, {number} classes, standard', config, checkpoint, '8/255', DIGITS)


def other_goals(case: Case) -> list[Case]:
    """Returns the cases of a model in L2, and with a target class: the digit 3."""
    model = case.name.rpartition('_')[0]
    return [
        replace(case, name=f'{model}_l2_1', title=f'{case.title}, L2', radius='1', threat='L2'),
        replace(case, name=f'{model}_target_12', title=f'{case.title}, targeted', target=4),
    ]


CLEAN_DEMO = digits(
    'pspnet_clean', 'PSPNet, standard', 'pspnet_clean_digits', 'demo_output/pspnet_clean_digits/training/iter_200.pth',
    (4, 8, 12),
)  # fmt: skip
AT_DEMO = digits(
    'pspnet_at', 'PSPNet, adversarial', 'pspnet_pgd2_digits', 'work_dirs/pspnet_at/iter_100.pth',
    (4, 8, 12),
)  # fmt: skip
SEGMENTERS = [
    *digits('segmenter_clean', 'Segmenter, standard', 'segmenter_clean_digits',
            'work_dirs/segmenter_clean/iter_200.pth', (8,)),
    *digits('segmenter_at', 'Segmenter, adversarial', 'segmenter_pgd2_digits',
            'work_dirs/segmenter_at/iter_200.pth', (8,)),
]  # fmt: skip
OTHER_IMAGES = [
    replace(case, name=case.name.replace('_8', f'_{word}_8'), title=f'{case.title}, {text} images', images=images)
    for word, text, images, cases in (
        ('other', 'other', OTHER_DIGITS, SEGMENTERS),
        ('more', 'more', MORE_DIGITS, SEGMENTERS[-1:]),
        ('held_out', 'held-out', HELD_OUT_DIGITS, SEGMENTERS),
        ('held_out_5', 'five held-out', (0, 32, 64, 80, 96), SEGMENTERS),
    )
    for case in cases
]
CASES = {
    case.name: case
    for case in (
        *CLEAN_DEMO,
        *AT_DEMO,
        *other_goals(CLEAN_DEMO[-1]),
        *other_goals(AT_DEMO[-1]),
        *SEGMENTERS,
        *OTHER_IMAGES,
        Case('pir_at_8', 'digits, UPerNet with a ConvNeXt, PIR-AT', 'configs/pir_at/upernet_pgd2_digits.py',
             'work_dirs/pir_at/upernet_pgd2_digits_robust_2step_400_0/iter_400.pth', '8/255', DIGITS),
        many_classes(21),
        many_classes(151),
        *camvid('camvid_clean', 'standard', 'configs/clean/upernet_r18_clean_camvid.py', ('0.5', '1', '2', '4')),
        *camvid('camvid_at', 'adversarial', 'configs/at/upernet_r18_pgd3_camvid.py', ('1', '2', '4')),
    )
}  # fmt: skip
# Models of later trainings, for the rule of adaptive: `make demo`, a short adversarial training, Fast Newton on CamVid.
DEMOS = (('standard_training', 'standard, 200 more'), ('fast_newton', 'Fast Newton'), ('pgd_with_2_steps', 'PGD'))
LATER = [
    *(
        Case(f'demo_{folder}_12', f'digits, PSPNet, {text}', 'configs/demo/pspnet_clean_digits.py',
             f'demo_output/{folder}/training/iter_200.pth', '12/255', DIGITS)
        for folder, text in DEMOS
    ),
    Case('segmenter_short_at_8', 'digits, Segmenter, briefly adversarial', 'configs/demo/segmenter_pgd2_digits.py',
         'work_dirs/segmenter_short_at/iter_80.pth', '8/255', DIGITS[:3]),
    Case('camvid_fast_newton_4', 'CamVid UPerNet, Fast Newton',
         'configs/fast_newton/upernet_r18_fast_newton_camvid_finetune.py',
         'work_dirs/fast_newton/upernet_r18_fast_newton_camvid_finetune_0/iter_500.pth', '4/255', CAMVID[::4]),
]  # fmt: skip
CASES |= {case.name: case for case in LATER}
# Transformers on CamVid, of benchmarks/configs.
TRANSFORMERS = [
    Case(f'{net}_camvid_clean_1', f'CamVid {title}, standard', f'benchmarks/configs/{net}_clean_camvid.py',
         f'work_dirs/transformers/{net}_clean_camvid/iter_800.pth', '1/255', CAMVID[::2])
    for net, title in (('segmenter', 'Segmenter'), ('segformer', 'SegFormer'))
]  # fmt: skip
CASES |= {case.name: case for case in TRANSFORMERS}
# Four images on which AMA is 8 to 18 points weaker than auto, and one of them on which it helps the model.
CASES['segmenter_clean_hard_8'] = replace(
    SEGMENTERS[0],
    name='segmenter_clean_hard_8',
    title='digits, Segmenter, standard, four hard images',
    images=(4, 8, 56, 72),
)
# The cases that the rule of adaptive was chosen on. It was then fixed and run on the others.
ADAPTIVE_SELECTION = ('segmenter_clean_8', 'demo_standard_training_12', 'demo_fast_newton_12')
ADAPTIVE_REPORT = (
    'segmenter_clean_other_8', 'segmenter_clean_held_out_8', 'segmenter_clean_held_out_5_8', 'segmenter_short_at_8',
    'camvid_fast_newton_4', 'demo_pgd_with_2_steps_12',
)  # fmt: skip
PSPNET = tuple(case.name for case in (*CLEAN_DEMO, *AT_DEMO))
# The cases that AMA's parameters may be chosen on; auto's parts were chosen on the Segmenters, too, but for the images
# held out. All others are for the report.
SELECTION = ('pspnet_at_12', 'pspnet_clean_12')
HELD_OUT = tuple(case.name for case in OTHER_IMAGES if 'held_out' in case.name)
MORE_SEGMENTERS = ('segmenter_at_other_8', 'segmenter_clean_other_8', 'segmenter_at_more_8')
OTHERS = (
    'pir_at_8', 'segmenter_at_8', 'segmenter_clean_8', 'pspnet_151_classes_8',
    'pspnet_21_classes_8', 'pspnet_at_l2_1', 'pspnet_clean_l2_1', 'pspnet_at_target_12', 'pspnet_clean_target_12',
)  # fmt: skip


BASE = ama('1/255').objective
assert isinstance(BASE, AnnealedMargin)


@dataclass(frozen=True, kw_only=True)
class UnscaledMargin(AnnealedMargin):
    """The annealed margin with T0 = 1 logit for every image."""

    def scale(self, scores: PixelScores) -> Tensor:
        return torch.ones_like(super().scale(scores))


@dataclass(frozen=True, kw_only=True)
class QuantileScale(AnnealedMargin):
    """The annealed margin with T0 = the 90 % quantile, in place of the mean, of the leads of the correct pixels."""

    def scale(self, scores: PixelScores) -> Tensor:
        lead = (scores.label_logit - scores.rival_logit).detach().flatten(1)
        pending = (self.pending(scores) & scores.valid).flatten(1)
        leads = torch.where(pending, -lead if self.targeted else lead, torch.nan)
        return leads.nanquantile(0.9, dim=1).nan_to_num(LEAST_SCALE).clamp_min(LEAST_SCALE)


@dataclass(frozen=True, kw_only=True)
class PlainMargin(AnnealedMargin):
    """The annealed margin itself, not squashed."""

    logit_gradient = Objective.logit_gradient  # of this loss, by automatic differentiation

    def _squashed(self, margin: Tensor) -> Tensor:
        return -margin


@dataclass(frozen=True, kw_only=True)
class ConstantSteps(CosineSchedule):
    """Steps of a quarter of the radius."""

    def step_factor(self, progress: float) -> float:
        return 0.25


@dataclass(frozen=True, kw_only=True)
class LinearSteps(CosineSchedule):
    """Steps that fall linearly between the same ends."""

    def step_factor(self, progress: float) -> float:
        high, low = self.steps
        return high + (low - high) * progress


@dataclass(frozen=True, kw_only=True)
class ExponentialSteps(CosineSchedule):
    """Steps that fall exponentially between the same ends."""

    def step_factor(self, progress: float) -> float:
        high, low = self.steps
        return high * (low / high) ** progress


def scheduled(**parameters: Any) -> Callable[[Threat, int], Attack]:
    """Returns a function that makes AMA with some parameters replaced."""
    return lambda threat, steps: replace(ama(threat.radius, steps, threat=type(threat).__name__), **parameters)


# Parts of AMA that are removed or replaced. The keys are the names of the runs.
ABLATION: dict[str, tuple[str, Callable[[Threat, int], Attack]]] = {
    'ama': ('AMA', scheduled()),
    'ama/sigmoid': (
        'its sigmoid form',
        lambda threat, steps: ama(threat.radius, steps, 'sigmoid', type(threat).__name__),
    ),
    'ama/warm': ('no annealing: T = 0.3 T0', scheduled(objective=replace(BASE, temperatures=(0.3, 0.3)))),
    'ama/cold': ('no annealing: T = 0.02 T0', scheduled(objective=replace(BASE, temperatures=(0.02, 0.02)))),
    'ama/unscaled': ('no scale: T0 = 1', scheduled(objective=UnscaledMargin())),
    'ama/plain': ('no squashing: -m', scheduled(objective=PlainMargin())),
    'ama/max': ('top other logit for the log-sum-exp', scheduled(objective=replace(BASE, rival='max'))),
    'ama/masked': ('flipped pixels without weight (masked)', scheduled(objective=replace(BASE, flipped_weight=0))),
    'ama/unmasked': ('flipped pixels at full weight', scheduled(objective=replace(BASE, flipped_weight=1))),
    'ama/ce': ('cross-entropy for the margin', scheduled(objective=CrossEntropy())),
    'ama/masked_ce': ('masked cross-entropy for the margin', scheduled(objective=MaskedCrossEntropy())),
    'ama/constant': ('constant steps of ε/4', scheduled(schedule=ConstantSteps())),
    'ama/linear': ('linear decay of the steps', scheduled(schedule=LinearSteps())),
    'ama/exponential': ('exponential decay of the steps', scheduled(schedule=ExponentialSteps())),
    'ama/apgd': (
        "APGD's checkpoints and three radii for the schedule",
        lambda threat, steps: RadiusReduction(attack=APGD(threat=threat, steps=steps, objective=BASE)),
    ),
    'ama/ball': ('no larger ball', scheduled(schedule=CosineSchedule(start=1))),
    'ama/clean': ('start at the clean image', scheduled(random_start=False)),
    'ama/still': ('no momentum', scheduled(momentum=0)),
}
# Other values of AMA's parameters, which were compared to choose the defaults.
VARIANTS: dict[str, tuple[str, Callable[[Threat, int], Attack]]] = {
    'ama/momentum 0.25': ('momentum 0.25', scheduled(momentum=0.25)),
    'ama/momentum 0.75': ('momentum 0.75', scheduled(momentum=0.75)),
    'ama/steps 1': ('steps from ε', scheduled(schedule=CosineSchedule(steps=(1, 0.02)))),
    'ama/steps 4': ('steps from 4ε', scheduled(schedule=CosineSchedule(steps=(4, 0.02)))),
    'ama/ends 0.005': ('steps to ε/200', scheduled(schedule=CosineSchedule(steps=(2, 0.005)))),
    'ama/ends 0.1': ('steps to ε/10', scheduled(schedule=CosineSchedule(steps=(2, 0.1)))),
    'ama/ball 1.5': ('ball from 1.5ε', scheduled(schedule=CosineSchedule(start=1.5))),
    'ama/ball 3': ('ball from 3ε', scheduled(schedule=CosineSchedule(start=3))),
    'ama/share 0.3': ('larger ball for 30 %', scheduled(schedule=CosineSchedule(share=0.3))),
    'ama/share 0.9': ('larger ball for 90 %', scheduled(schedule=CosineSchedule(share=0.9))),
    'ama/warmer': ('T from T0', scheduled(objective=replace(BASE, temperatures=(1, 0.02)))),
    'ama/colder': ('T from 0.1 T0', scheduled(objective=replace(BASE, temperatures=(0.1, 0.02)))),
    'ama/ends warm': ('T to 0.06 T0', scheduled(objective=replace(BASE, temperatures=(0.3, 0.06)))),
    'ama/weight 0.3': ('flipped pixels at weight 0.3', scheduled(objective=replace(BASE, flipped_weight=0.3))),
    'ama/ends cold': ('T to 0.005 T0', scheduled(objective=replace(BASE, temperatures=(0.3, 0.005)))),
}
# Changes that were tried for Segmenters, beside some of those above.
FOR_SEGMENTERS: dict[str, tuple[str, Callable[[Threat, int], Attack]]] = {
    'ama/quantile': ('T0 from the 90 % quantile of the margins', scheduled(objective=QuantileScale())),
    'ama/warmest': ('T from 3 T0', scheduled(objective=replace(BASE, temperatures=(3, 0.02)))),
    'ama/warmest masked': (
        'T from 3 T0, flipped pixels without weight',
        scheduled(objective=replace(BASE, temperatures=(3, 0.02), flipped_weight=0)),
    ),
}
SEGMENTER_TRIALS = {
    **FOR_SEGMENTERS,
    **{name: ABLATION[name] for name in ('ama/max', 'ama/masked')},
    **{name: VARIANTS[name] for name in ('ama/steps 4', 'ama/momentum 0.75')},
}
ATTACKS: dict[str, Callable[[Threat, int], Attack]] = {
    **{name: make for name, (_, make) in {**ABLATION, **VARIANTS, **FOR_SEGMENTERS}.items()},
    'forms': lambda threat, steps: Cascade(
        attacks={form: ama(threat.radius, steps // 2, form, type(threat).__name__) for form in ('atan', 'masked')}
    ),
    'one start': lambda threat, steps: (
        Cascade(  # auto with one part towards the furthest class, and more for the others
            attacks={
                'ama': ama(threat.radius, steps // 2, threat=type(threat).__name__),
                'furthest': FurthestClass(attack=ama(threat.radius, steps // 4, 'masked', type(threat).__name__)),
                'js': APGD(threat=threat, steps=steps // 4, objective=JensenShannon()),
            },
            relays=('js',),
        )
    ),
    'furthest': lambda threat, steps: FurthestClass(attack=ama(threat.radius, steps, 'masked', type(threat).__name__)),
    'auto': lambda threat, steps: auto(threat.radius, steps, type(threat).__name__),
    'adaptive': lambda threat, steps: adaptive(threat.radius, steps, type(threat).__name__),
    'ama/js': scheduled(objective=JensenShannon()),
    'apgd/js': lambda threat, steps: APGD(threat=threat, steps=steps, objective=JensenShannon()),
    'apgd/red-js': lambda threat, steps: RadiusReduction(
        attack=APGD(threat=threat, steps=steps, objective=JensenShannon())
    ),
    'apgd': lambda threat, steps: APGD(threat=threat, steps=steps),
    'segpgd': lambda threat, steps: SegPGD(threat=threat, steps=steps, keep='lowest_accuracy'),
    'cospgd': lambda threat, steps: CosPGD(threat=threat, steps=steps, keep='lowest_accuracy'),
    'pgd': lambda threat, steps: PGD(threat=threat, steps=steps, keep='lowest_accuracy'),
}
SEA = {'sea': sea('1/255', preset='paper'), 'sea-eccv': sea('1/255', preset='eccv-image')}


def build_attack(name: str, threat: Threat, steps: int) -> Attack:
    """Returns the attack of a run. One loss of SEA is a run by itself: 'sea/js'; its noise is that of the whole."""
    if not name.startswith('sea/'):
        attack = ATTACKS[name](threat, steps)
        assert attack.threat == threat, f'{name} attacks within {attack.threat}, not {threat}'
        return attack
    loss = name.removeprefix('sea/')
    attack = next(ensemble.attacks[loss] for ensemble in SEA.values() if loss in ensemble.attacks)
    return WorstCase(attacks={loss: attack.with_threat(threat).with_steps(steps)})


def aim(attack: Attack) -> Attack:
    """Returns the attack with its labels as the classes wanted; a single loss of SEA without its ensemble."""
    return with_targeted(*attack.attacks.values() if isinstance(attack, WorstCase) else (attack,), targeted=True)


@dataclass(frozen=True)
class Run:
    """An attack with a number of iterations (of each loss, for SEA) and a seed."""

    attack: str
    steps: int
    seed: int = 0

    @property
    def key(self) -> str:
        """What the run is stored under."""
        return f'{self.attack} {self.steps} {self.seed}'


def runs(*pairs: tuple[str, Sequence[int]], seeds: Sequence[int] = (0,)) -> list[Run]:
    """Returns the runs of some attacks, each with several numbers of iterations and all seeds."""
    return [Run(attack, steps, seed) for seed in seeds for attack, counts in pairs for steps in counts]


SEA_300 = runs(*((f'sea/{name}', [300]) for name in SEA['sea'].attacks))
SEA_25 = runs(*((f'sea/{name}', [25]) for name in SEA['sea'].attacks))
RIVALS = ('apgd', 'segpgd', 'cospgd')
# The most informative runs come first.
PLAN: list[tuple[tuple[str, ...], list[Run]]] = [
    (SELECTION, runs(('ama', [10, 30, 100, 300]), ('auto', [400])) + SEA_300),
    (
        (*HELD_OUT, *MORE_SEGMENTERS, *OTHERS, 'camvid_clean_1', 'camvid_at_4'),
        runs(('ama', [30, 100]), ('auto', [400])) + SEA_300,
    ),
    (SELECTION, runs(*((name, [100]) for name in (*ABLATION, *VARIANTS)))),
    (('camvid_clean_4', 'camvid_clean_0_5', 'camvid_clean_2', 'camvid_at_2', 'camvid_at_1'), runs(('ama', [30, 100]))),
    (SELECTION, runs(*((name, [30, 100, 300]) for name in RIVALS)) + SEA_25 + runs(('sea/masked_balanced_ce', [300]))),
    (('pspnet_151_classes_8', 'pspnet_21_classes_8'), runs(('ama/max', [100]))),
    (
        (*HELD_OUT, *MORE_SEGMENTERS, *SELECTION, *OTHERS[:-2], 'camvid_clean_1', 'camvid_at_4'),  # none is targeted
        runs(('furthest', [100])),
    ),
    (('segmenter_at_8', 'segmenter_clean_8'), runs(('ama/masked', [100]), ('forms', [400]))),
    (('segmenter_at_8',), runs(('forms', [400]), seeds=(1, 2))),
    (('segmenter_clean_8',), runs(('ama/unmasked', [100]))),
    (('segmenter_at_8', 'segmenter_clean_8'), runs(('ama/js', [100]), ('apgd/js', [100]), ('apgd/red-js', [200]))),
    ((*HELD_OUT, *MORE_SEGMENTERS, *SELECTION, *OTHERS), runs(('auto', [400]), seeds=(1, 2))),
    (('pir_at_8', 'segmenter_at_8', *SELECTION), runs(('ama', [100]), seeds=(1, 2))),
    (
        ('segmenter_at_8', 'segmenter_at_other_8', 'segmenter_at_more_8', *SELECTION),
        runs(('one start', [400]), seeds=(0, 1, 2)),
    ),
    (SELECTION, runs(*((name, [100]) for name in (*ABLATION, *VARIANTS)), seeds=(1, 2))),
    (SELECTION, runs(('ama', [1200]), *((name, [10, 1200]) for name in RIVALS))),
    (OTHERS, runs(*((name, [30, 100, 300]) for name in RIVALS))),
    (('camvid_clean_1', 'camvid_at_4'), runs(*((name, [30, 100]) for name in RIVALS))),
    (PSPNET, runs(('ama', [30, 100]))),
    (('camvid_clean_2', 'camvid_clean_4', 'camvid_at_2'), runs(('auto', [400])) + SEA_300),
    (ADAPTIVE_REPORT, runs(('adaptive', [120])) + SEA_300),
    (ADAPTIVE_REPORT, runs(('adaptive', [400]), ('auto', [400]))),
    (ADAPTIVE_SELECTION, runs(('adaptive', [120, 400]), ('auto', [400])) + SEA_300),
    (ADAPTIVE_REPORT, runs(('adaptive', [120, 400]), seeds=(1, 2))),
    (
        ('segmenter_clean_hard_8', 'demo_fast_newton_12'),
        runs(('ama', [100]), ('furthest', [100]), *((name, [100]) for name in SEGMENTER_TRIALS)),
    ),
    (
        ('segmenter_camvid_clean_1', 'segformer_camvid_clean_1'),
        runs(('ama', [100]), ('auto', [400]), ('furthest', [100]), ('adaptive', [120])) + SEA_300,
    ),
]


@dataclass(frozen=True)
class Loaded:
    """A case's model and images."""

    model: SegmentorAdapter
    images: Tensor
    labels: Tensor
    names: list[str]


def load(case: Case) -> Loaded:
    """Returns the model and images of a case, in the faster memory format."""
    config = Config.fromfile(ROOT / case.config)
    model = build_segmentor(config).eval()
    load_weights(model, ROOT / case.checkpoint)
    dataset = Selection(build_dataset(config.test_dataloader.dataset, 'test_dataloader.dataset'), case.images)
    batch = pseudo_collate([dataset[i] for i in range(len(dataset))])
    samples = batch['data_samples']
    names = [sample.metainfo['image_name'] for sample in samples]
    adapter = SegmentorAdapter(model.to(memory_format=torch.channels_last), samples)
    return Loaded(adapter, stack_images(batch['inputs']), stack_labels(samples), names)


def accuracy_of(predictions: Tensor, labels: Tensor, ignore_index: int) -> list[float]:
    """Returns the share of each image's valid pixels predicted as labelled."""
    valid = labels != ignore_index
    correct = ((predictions == labels) & valid).flatten(1).sum(1)
    return (correct / valid.flatten(1).sum(1).double()).tolist()


def texts() -> dict[str, dict[str, str]]:
    """Returns the names that tables use for the runs of the ablation, of the variants and of the trials."""
    return {
        'ablation': {name: text for name, (text, _) in ABLATION.items()},
        'variants': {name: text for name, (text, _) in VARIANTS.items()},
        'trials': {name: text for name, (text, _) in SEGMENTER_TRIALS.items()},
    }


def new_record(case: Case, loaded: Loaded) -> dict[str, Any]:
    """Returns the JSON of a case before its first run."""
    with torch.no_grad():
        clean = loaded.model(loaded.images).argmax(1)
    accuracy = accuracy_of(clean, loaded.labels, loaded.model.ignore_index)
    if case.target is not None:
        valid = loaded.labels != loaded.model.ignore_index
        accuracy = (((clean != case.target) & valid).flatten(1).sum(1) / valid.flatten(1).sum(1).double()).tolist()
    return {
        'schema': SCHEMA,
        'schema_version': SCHEMA_VERSION,
        'case': case.name,
        'title': case.title,
        **texts(),
        'config': case.config,
        'checkpoint': {'file': case.checkpoint, 'sha256': file_sha256(ROOT / case.checkpoint)},
        'threat': case.threat,
        'target': case.target,
        'radius': case.radius,
        'images': loaded.names,
        'versions': versions(),
        'hardware': hardware(),
        'clean': accuracy,
        'runs': {},
    }


def measured(case: Case, loaded: Loaded, run: Run) -> dict[str, Any]:
    """Returns the result of a run per image; with a target, accuracy is the share of pixels that miss the target."""
    attack = build_attack(run.attack, THREATS[case.threat](radius=case.radius), run.steps)
    labels, ignore_index = loaded.labels, loaded.model.ignore_index
    if case.target is not None:
        attack, labels = aim(attack), torch.where(labels == ignore_index, labels, case.target)
    seeds = [derive_seed(run.seed, name) for name in loaded.names]
    start = time.process_time()
    result = attack(loaded.model, loaded.images, labels, seeds=seeds, ignore_index=ignore_index)
    accuracy = result.accuracy if case.target is None else 1 - result.accuracy
    return {
        'attack': run.attack,
        'steps': run.steps,
        'seed': run.seed,
        'accuracy': [round(value, 6) for value in accuracy.tolist()],
        'forward': result.forward_passes.tolist(),
        'backward': result.backward_passes.tolist(),
        'cpu_seconds': round(time.process_time() - start, 1),
        'date': datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def stored(case: Case) -> dict[str, Any] | None:
    """Returns the stored JSON of a case; None if there is none."""
    path = RESULTS / f'{case.name}.json'
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding='utf-8'))
    if (record.get('schema'), record.get('schema_version')) != (SCHEMA, SCHEMA_VERSION):
        raise SystemExit(f'{path} is not of {SCHEMA} version {SCHEMA_VERSION}; move it away')
    return record


def store(case: Case, record: dict[str, Any]) -> None:
    """Writes the JSON of a case atomically."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f'{case.name}.json'
    temporary = path.with_suffix('.tmp')
    runs = record['runs']
    text = json.dumps({**record, 'runs': {}}, indent=1)
    lines = ',\n'.join(f'  {json.dumps(key)}: {json.dumps(runs[key])}' for key in sorted(runs))
    temporary.write_text(text.replace('"runs": {}', f'"runs": {{\n{lines}\n }}') + '\n', encoding='utf-8')
    os.replace(temporary, path)


def take_sea(case: Case, record: dict[str, Any]) -> None:
    """Adds the losses of SEA that tools/test.py has run on the case's model, radius and images, if it has."""
    folder = ROOT / case.results
    if not case.results or not (folder / 'results.json').is_file():
        return
    results = load_results(folder)
    if results['checkpoint']['sha256'] != record['checkpoint']['sha256'] or results['attack']['name'] != 'sea':
        raise SystemExit(f'{folder} is not of SEA on {case.checkpoint}; move it away')
    with (folder / 'per_image.csv').open(newline='', encoding='utf-8') as stream:
        rows = {row['image']: row for row in csv.DictReader(stream)}
    if case.radius not in results['evaluation']['attacked'] or not rows.keys() >= set(record['images']):
        return
    steps = results['attack']['parameters']['attacks']['js']['attack']['steps']
    losses = sea(case.radius, steps).attacks
    forward = steps + len(losses['js'].phases())
    if {rows[name][f'{case.radius} forward_passes'] for name in record['images']} != {str(forward * len(losses))}:
        print(f'{folder}: images left the attack early, so the passes of each loss are not known; not taken')
        return
    for loss in losses:
        run = Run(f'sea/{loss}', steps, results['seed'])
        record['runs'][run.key] = {
            'attack': run.attack,
            'steps': run.steps,
            'seed': run.seed,
            'accuracy': [round(float(rows[name][f'{case.radius} {loss}']), 6) for name in record['images']],
            'forward': [forward] * len(record['images']),
            'backward': [steps] * len(record['images']),
            'source': case.results,
            'date': results['created'][:10],
        }


def ready(case: Case) -> bool:
    """Returns whether the case's checkpoint exists and is that of the stored runs; prints a note if it is missing."""
    checkpoint = ROOT / case.checkpoint
    if not checkpoint.is_file():
        print(f'{case.name}: no checkpoint {case.checkpoint}; left out', flush=True)
        return False
    record = stored(case)
    if record is None or file_sha256(checkpoint) in (record['checkpoint']['sha256'], *retrained(record)):
        return True
    if not repeats(case, record):
        raise SystemExit(f'{case.name}: {case.checkpoint} is not the checkpoint of the stored runs; move one away')
    record['checkpoint'].setdefault('retrained', []).append(file_sha256(checkpoint))
    store(case, record)
    return True


def retrained(record: dict[str, Any]) -> list[str]:
    """Returns the hashes of the checkpoints that are known to have the weights of a record's checkpoint."""
    checkpoints = [json.loads(path.read_text(encoding='utf-8'))['checkpoint'] for path in RESULTS.glob('*.json')]
    same = [one for one in checkpoints if one['sha256'] == record['checkpoint']['sha256']]
    return [sha256 for one in same for sha256 in one.get('retrained', [])]


def repeats(case: Case, record: dict[str, Any]) -> bool:
    """Returns whether a checkpoint that was trained anew repeats the stored clean accuracies and AMA with 30 passes."""
    loaded, run = load(case), Run('ama', 30)
    clean = new_record(case, loaded)['clean']
    return (
        clean == record['clean']
        and run.key in record['runs']
        and measured(case, loaded, run)['accuracy'] == record['runs'][run.key]['accuracy']
    )


def experiment(case: Case, planned: Sequence[Run], until: float) -> None:
    """Runs and stores the runs that are not stored yet, as long as there is time."""
    if not ready(case):
        return
    record, loaded = stored(case), None
    if record is None:
        loaded = load(case)
        record = new_record(case, loaded)
    record.update(texts())
    record['adaptive_choice'] = case.name in ADAPTIVE_SELECTION
    take_sea(case, record)
    store(case, record)
    for run in planned:
        if run.key in record['runs']:
            continue
        if time.process_time() > until:
            return
        loaded = loaded or load(case)
        record['runs'][run.key] = result = measured(case, loaded, run)
        store(case, record)
        mean = sum(result['accuracy']) / len(result['accuracy'])
        print(f'{case.name} {run.key}: {100 * mean:.2f} after {result["cpu_seconds"]} s', flush=True)


def main() -> None:
    """Runs what has not run yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=float('inf'), help='of processor time; later no run starts')
    parser.add_argument('--cases', nargs='+', choices=CASES, default=list(CASES), help='only these (default: all)')
    arguments = parser.parse_args()
    register_all_modules()
    torch.set_num_threads(1)
    for names, planned in PLAN:
        for name in names:
            if name in arguments.cases:
                experiment(CASES[name], planned, 60 * arguments.minutes)


if __name__ == '__main__':
    main()
