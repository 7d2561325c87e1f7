"""Sanity checks: several attacks on a few images show whether the main numbers can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from mmadv.attacks import derive_seed
from mmadv.engine.data import evenly_spaced
from mmadv.engine.spec import first_attack
from mmadv.errors import UserError
from mmadv.fields import Positive
from mmadv.report.measurement import Measurement, Option, Outcome, register_measurement
from mmadv.report.schema import Schema
from mmadv.robustness.sanity_checks import judge, measure


@dataclass(frozen=True)
class Check(Schema):
    """The outcome of one sanity check.

    Attributes:
        name: the expected property.
        passed: whether the property holds.
        evidence: the numbers behind the outcome.
        advice: what to do if the check failed.
    """

    name: str
    passed: bool
    evidence: str
    advice: str


@dataclass(frozen=True)
class ChecksSummary(Schema):
    """Sanity checks: names of the ``images``, the ``radius``, and the ``findings``."""

    images: tuple[str, ...]
    radius: str
    findings: tuple[Check, ...]


@register_measurement
@dataclass
class SanityChecks(Measurement):
    """Looks for masked gradients and similar faults at the first positive radius, on images with a valid pixel.

    Args:
        images: number of images, spread evenly over the images of the run.
    """

    images: Positive = 4

    name: ClassVar[str] = 'trust'
    key: ClassVar[str] = 'sanity_checks'
    summary: ClassVar[Any] = ChecksSummary
    of_run: ClassVar[bool] = True
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            '--check',
            'images',
            {
                'nargs': '?',
                'const': 4,
                'metavar': 'IMAGES',
                'help': 'look for masked gradients and the like on a few images (default: 4), at the first radius',
            },
        ),
    )

    def settings(self, spec: Any) -> Any:
        """Returns None, so that a run may be resumed with other checks; images that lack the checks are done again."""
        return None

    def check(self, spec: Any) -> None:
        if spec.region_text == 'patch':
            raise UserError('SanityChecks needs an attack with a radius, which a patch has not; leave it out')
        for option in ('target', 'region', 'source'):
            if getattr(spec, option):
                raise UserError(
                    f'SanityChecks is for untargeted attacks on all pixels of the model itself; '
                    f'leave out test_cfg.{option} or SanityChecks'
                )

    def chosen(self, context: Any) -> set[int]:
        """Returns the indexes of the images that are checked."""
        indexes = context.selection.indexes
        return {indexes[position] for position in evenly_spaced(len(indexes), self.images)}

    @torch.enable_grad()
    def measure(self, context: Any, group: Any) -> list[Any]:
        """Returns name of the number -> its values, for each chosen image with a valid pixel.

        A chosen image without a valid pixel has an empty dict; the other images have None.
        """
        _, attack = first_attack(context.predictor.attacks)
        values: list[Any] = []
        chosen = self.chosen(context)
        for n, (name, index) in enumerate(zip(group.names, group.indexes, strict=True)):
            labels = group.labels[n : n + 1]
            if index not in chosen or not bool((labels != group.ignore_index).any()):
                values.append({} if index in chosen else None)
                continue
            images, seeds = group.images[n : n + 1], [derive_seed(context.spec.seed, name)]
            labels = labels.to(images.device)
            values.append(measure(group.model, images, labels, attack, seeds=seeds, ignore_index=group.ignore_index))
        return values

    def holds(self, context: Any, record: Any) -> bool:
        return record.index not in self.chosen(context) or self.key in record.measurements

    def summarise(self, context: Any, outcome: Outcome) -> ChecksSummary:
        """Returns the findings from the numbers of all images."""
        numbers: dict[str, list[float]] = {}
        names, chosen = [], self.chosen(context)
        for record in outcome.records:
            measured = record.measurements.get(self.key) if record.index in chosen else None
            if measured:
                names.append(record.image)
                for name, values in measured.items():
                    numbers.setdefault(name, []).extend(values)
        radius, _ = first_attack(context.predictor.attacks)
        findings = judge(numbers) if names else []
        return ChecksSummary(tuple(names), radius, tuple(Check(**result.to_dict()) for result in findings))

    @classmethod
    def warnings(cls, summary: ChecksSummary) -> list[str]:
        failed = [check for check in summary.findings if not check.passed]
        return [f'sanity check failed: {check.name} ({check.evidence}); {check.advice}' for check in failed]

    @classmethod
    def text(cls, summary: ChecksSummary) -> str:
        """Returns the findings as lines; the line of a failed check has its advice."""
        lines = [f'sanity checks on {len(summary.images)} images at radius {summary.radius}']
        for check in summary.findings:
            if check.passed:
                lines.append(f'  ok       {check.name} ({check.evidence})')
            else:
                lines.append(f'  WARNING  failed: {check.name} ({check.evidence}); {check.advice}')
        return '\n'.join(lines)
