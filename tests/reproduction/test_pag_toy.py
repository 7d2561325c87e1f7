"""The toy experiment: its data and attack as the paper says, seeds that do not feel each other, and the command."""

import json
import math

import pytest
import torch

from mmadv.commands.main import main
from mmadv.reproduction import pag_toy
from mmadv.reproduction.pag_toy import PointNetworks, Setting, accuracies, draw_points, run, table, train
from mmadv.robustness import NearestNeighbour, cosine_similarity, draw_bank, input_gradients


def test_points_lie_on_the_line_around_the_centres():
    points, classes = draw_points(3, 'train')
    assert points.shape == (6000, 2) and classes.bincount().tolist() == [3000, 3000]
    torch.testing.assert_close(points[:, 1], 2 * points[:, 0])
    modes = points[:, 0].view(6, 1000)
    centres = torch.tensor([-50.0, -10, 30, -30, 10, 50])
    torch.testing.assert_close(modes.mean(1), centres, atol=0.15, rtol=0)
    torch.testing.assert_close(modes.std(1), torch.ones(6), atol=0.1, rtol=0)
    test_points, test_classes = draw_points(3, 'test')
    assert len(test_points) == 600 and test_classes.bincount().tolist() == [300, 300]
    assert not torch.equal(draw_points(4, 'test')[0], test_points)


def test_a_linear_classifier_is_attacked_as_its_margin_says():
    # f = (0, x₁ - 12): points at distance |x₁ - 12| from the boundary; PGD with steps of 2 reaches 15.
    def network(points):
        score = points[:, 0] - 12
        return torch.stack([torch.zeros_like(score), score], 1)

    points = torch.tensor([[-20.0, 0], [0, 30], [12 - 14.9, 5], [12 - 15.1, 5], [26.9, 0], [27.1, 0]])
    classes = torch.tensor([0, 0, 0, 0, 1, 1])
    assert accuracies(network, points, classes) == {'clean': 100, 'attacked': pytest.approx(50)}


@pytest.mark.parametrize('aligned', [False, True])
def test_seeds_trained_together_are_those_trained_alone(aligned, monkeypatch):
    monkeypatch.setattr(pag_toy, 'TRAIN_PER_MODE', 40)
    setting = Setting(epochs=2, per_class=5)
    together = train([3, 5], setting, aligned=aligned)
    for index, seed in enumerate([3, 5]):
        alone = train([seed], setting, aligned=aligned)
        points = draw_points(seed, 'test')[0]
        torch.testing.assert_close(together.of_seed(index)(points), alone.of_seed(0)(points), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(together.first_weight[0], together.first_weight[1])


def test_networks_are_two_linear_layers_with_relu():
    networks = PointNetworks([0, 1])
    points = draw_points(0, 'test')[0]
    hidden = (points @ networks.first_weight[1] + networks.first_bias[1]).clamp_min(0)
    expected = hidden @ networks.second_weight[1] + networks.second_bias[1]
    torch.testing.assert_close(networks.of_seed(1)(points), expected)
    torch.testing.assert_close(networks(points.expand(2, -1, -1))[1], expected)
    assert float(networks.first_weight.detach().abs().max()) <= 1 / math.sqrt(2)


def test_aligned_training_turns_the_gradient_of_the_other_class_towards_it(monkeypatch):
    monkeypatch.setattr(pag_toy, 'TRAIN_PER_MODE', 150)
    results, trained = run([2], Setting())
    points, classes = draw_points(2, 'test')
    bank = draw_bank(points, classes, num_classes=2, per_class=300)
    other = 1 - classes[:, None]
    directions = NearestNeighbour(bank)(points, other)
    cosines = {}
    for name, networks in trained.items():
        inputs = points.clone().requires_grad_()
        gradients = input_gradients(networks.of_seed(0)(inputs).gather(1, other), inputs)
        cosines[name] = float(cosine_similarity(gradients, directions).mean())
    assert cosines['aligned gradients'] > cosines['standard training'] + 0.2
    attacked = results['models']['aligned gradients']['attacked'][0]
    assert '75.5 %' in table(results) and f'{attacked:.1f} %' in table(results)


def test_the_command_writes_numbers_and_boundaries(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pag_toy, 'TRAIN_PER_MODE', 30)
    out = tmp_path / 'out'
    assert main(['reproduce', 'pag-toy', '--seeds', '2', '--epochs', '1', '--out', str(out)]) == 0
    printed = capsys.readouterr().out
    results = json.loads((out / 'pag_toy.json').read_text())
    assert results['seeds'] == [0, 1] and len(results['models']['aligned gradients']['attacked']) == 2
    assert 'paper' in printed and (out / 'pag_toy.png').stat().st_size > 10_000


@pytest.mark.parametrize(
    ('arguments', 'match'),
    [
        (['--weight', '0'], "--weight must be a finite number more than 0; found '0'"),
        (['--per-class', '4000'], 'more than the 3000 points'),
        (['--seeds', '0'], '--seeds must be an integer in [1, 1000000000]'),
    ],
)
def test_bad_numbers_are_told_in_one_sentence(arguments, match, tmp_path, capsys):
    assert main(['reproduce', 'pag-toy', *arguments, '--out', str(tmp_path / 'out')]) == 2
    assert match in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
