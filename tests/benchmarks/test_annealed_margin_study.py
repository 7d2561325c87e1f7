"""The ablation of AMA: every row changes what is attacked with, and nothing is taken for another."""

from itertools import combinations

import annealed_margin
import pytest
import torch
from toy_models import batch, conv_net

from mmadv.attacks import Linf


@pytest.fixture(scope='module')
def experiment():
    """The script as a module."""
    return annealed_margin


def test_no_two_rows_are_the_same_attack(experiment):
    torch.manual_seed(0)
    model, (images, labels) = conv_net(21).eval(), batch(21, n=3)
    labels = torch.where(labels == 255, 255, model(images).argmax(1))
    names = [*experiment.ABLATION, *experiment.VARIANTS]
    results = {
        name: experiment.build_attack(name, Linf(radius=0.1), 12)(model, images, labels, seeds=range(3))
        for name in names
    }
    same = [(a, b) for a, b in combinations(names, 2) if torch.equal(results[a].images, results[b].images)]
    assert not same
    assert any(set(planned) == {experiment.Run(name, 100) for name in names} for _, planned in experiment.PLAN)


def test_the_plan_names_cases_and_attacks_that_there_are(experiment):
    for names, planned in experiment.PLAN:
        assert set(names) <= set(experiment.CASES)
        for run in planned:
            experiment.build_attack(run.attack, Linf(radius=0.1), run.steps)
