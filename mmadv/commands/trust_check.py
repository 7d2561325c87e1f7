"""``mmadv test --check``: a few images attacked in several ways, to see whether the main numbers can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmadv.attacks import derive_seed
from mmadv.engine.attack_test_loop import AttackTestLoop
from mmadv.engine.data import evenly_spaced
from mmadv.robustness.trust import Finding, judge, measure


def check_trust(loop: AttackTestLoop, number: int) -> dict[str, Any]:
    """Returns ``images``, their names; ``radius``; and ``findings``, of the loop's model, data and attack.

    The radius is the first positive one. Images without a valid pixel are left out.

    Args:
        loop: after its run.
        number: of images, spread evenly over those of the run.
    """
    radius, attack = next((text, attack) for text, attack in loop.attacks.items() if attack is not None)
    numbers: dict[str, list[float]] = {}
    names = []
    for position in evenly_spaced(len(loop.selection), number):
        data = loop.selection[position]
        model, images, labels = loop.predict.prepared([data['inputs']], [data['data_samples']])
        if not bool((labels != model.ignore_index).any()):
            continue
        names.append(data['data_samples'].metainfo['image_name'])
        seeds = [derive_seed(loop.seed, names[-1])]
        found = measure(model, images, labels, attack, seeds=seeds, ignore_index=model.ignore_index)
        for name, values in found.items():
            numbers.setdefault(name, []).extend(values)
    findings = judge(numbers) if names else []
    return {'images': names, 'radius': radius, 'findings': [finding.to_dict() for finding in findings]}


def trust_text(trust: Mapping[str, Any]) -> str:
    """Returns the findings as lines, a failed one with what to do."""
    lines = [f'trust check on {len(trust["images"])} images at radius {trust["radius"]}']
    for found in trust['findings']:
        finding = Finding(**found)
        if finding.passed:
            lines.append(f'  ok       {finding.name} ({finding.evidence})')
        else:
            lines.append(f'  WARNING  not so: {finding.name} ({finding.evidence}); {finding.advice}')
    return '\n'.join(lines)
