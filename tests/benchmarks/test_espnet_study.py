"""benchmarks/espnet.py: what a checkpoint is known by, and the cells of the study."""

import espnet
import espnet_report as report
import torch


def saved(path, weights, **more):
    torch.save({'state_dict': weights, **more}, path)
    return espnet.weights_sha256(path)


def test_a_checkpoint_is_known_by_its_weights_not_by_its_file(tmp_path):
    weights = {'b': torch.arange(4.0).view(2, 2), 'a': torch.ones(3)}
    first = saved(tmp_path / 'first.pth', weights, meta={'time': 'now'})
    reordered = dict(reversed(weights.items()))
    assert saved(tmp_path / 'second.pth', reordered, meta={'time': 'later'}) == first
    different = [{**weights, 'a': torch.full((3,), 1.5)}, {**weights, 'a': torch.ones(3, dtype=torch.float64)}]
    different += [{**weights, 'b': torch.arange(4.0)}, {'b': weights['b'], 'c': weights['a']}]
    assert len({first, *(saved(tmp_path / 'other.pth', other) for other in different)}) == 5


def test_the_adversarially_trained_weights_are_those_of_the_stored_cells():
    path = report.ROOT / espnet.CHECKPOINTS['adversarial']
    assert espnet.weights_sha256(path) == report.stored()['checkpoints']['adversarial']


def test_the_study_runs_every_row_of_the_tables():
    keys = {(cell.attack, cell.steps) for cell in espnet.cells()}
    for rows in report.TABLES.values():
        for attack, steps in rows:
            names = [f'sea/{loss}' for loss in report.LOSSES[attack]] if attack in report.LOSSES else [attack]
            assert {(name, steps) for name in names} <= keys


def test_images_are_spread_evenly_and_all_radii_have_all_attacks_of_equal_passes():
    assert sorted(espnet.IMAGES) == [0, 12, 25, 37, 50, 63, 75, 88]
    cells = {(cell.model, cell.image, cell.radius, cell.attack, cell.steps) for cell in espnet.cells()}
    for model in ('published', 'adversarial'):
        for radius in report.RADII:
            assert {(model, image, radius, *attack) for image in espnet.IMAGES for attack in espnet.EQUAL} <= cells
