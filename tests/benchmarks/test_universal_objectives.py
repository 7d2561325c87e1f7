"""The study of universal perturbations: its page, and the default objective that follows from it."""

import json

import experiments
import universal_objectives as experiment

from mmadv.attacks import Linf, Universal

STORED = json.loads((experiments.RESULTS / 'universal_objectives.json').read_text(encoding='utf-8'))


def test_page_holds_the_stored_numbers():
    assert experiment.section(STORED) in (experiments.ROOT / 'docs/evidence_attacks.md').read_text(encoding='utf-8')


def test_default_objective_leaves_the_lowest_accuracy_in_every_case():
    cases = {}
    for one in STORED['records']:
        if one['radius'] != 'clean':
            cases.setdefault((one['network'], one['radius']), {})[one['objective']] = one['aAcc']
    assert len(cases) == 4
    best = {min(accuracies, key=accuracies.get) for accuracies in cases.values()}
    assert best == {type(Universal(threat=Linf(radius='8/255')).objective).__name__}
