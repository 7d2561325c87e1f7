"""The study of universal perturbations: its page, and the default objective that follows from it."""

import json

import experiments
import pytest
import universal_objectives as experiment

from mmadv.attacks import Linf, Universal, UniversalPatch

STORED = json.loads((experiments.RESULTS / 'universal_objectives.json').read_text(encoding='utf-8'))


def test_page_holds_the_stored_numbers():
    assert experiment.section(STORED) in (experiments.ROOT / 'docs/evidence_attacks.md').read_text(encoding='utf-8')


@pytest.mark.parametrize('attack', [Universal(threat=Linf(radius='8/255')), UniversalPatch()], ids=lambda a: a.title)
def test_default_objective_leaves_the_lowest_accuracy_in_every_case(attack):
    cases = {}
    for one in STORED['records']:
        if one['attack'] == type(attack).__name__ and one['radius'] != 'clean':
            cases.setdefault((one['network'], one['radius']), {})[one['objective']] = one['aAcc']
    assert len(cases) == {'Universal': 4, 'UniversalPatch': 2}[type(attack).__name__]
    best = {min(accuracies, key=accuracies.get) for accuracies in cases.values()}
    assert best == {type(attack.objective).__name__}
