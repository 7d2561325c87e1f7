import re
import sys
from pathlib import Path

import digit_classifiers
import experiments
import numpy as np
import pir_at
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


def write(arguments):
    Path(arguments[0]).write_text(arguments[1], encoding='utf-8')


def fail(arguments):
    raise ValueError('this stage fails')


def test_run_skips_what_has_run_and_goes_on(tmp_path):
    first, second, third = (tmp_path / name for name in ('first', 'second', 'third'))
    first.write_text('as it was', encoding='utf-8')
    stages = [experiments.Stage(('write', str(path), 'written'), path) for path in (first, second, third)]
    runs = [experiments.Run('a', tuple(stages[:2])), experiments.Run('b', tuple(stages[2:]))]
    experiments.run(runs, tmp_path / 'logs', 2, {'write': write})
    assert [path.read_text() for path in (first, second, third)] == ['as it was', 'written', 'written']
    experiments.run(runs, tmp_path / 'logs', 2, {'write': fail})


def test_failed_run_is_named_and_the_others_run(tmp_path):
    done = tmp_path / 'done'
    runs = [
        experiments.Run('broken', (experiments.Stage(('fail',), tmp_path / 'never'),)),
        experiments.Run('whole', (experiments.Stage(('write', str(done), 'x'), done),)),
    ]
    with pytest.raises(SystemExit, match='broken.log'):
        experiments.run(runs, tmp_path / 'logs', 1, {'write': write, 'fail': fail})
    assert done.is_file()
    assert 'this stage fails' in (tmp_path / 'logs' / 'broken.log').read_text()


def test_mean_and_deviation_are_numpys():
    values = [0.31, 0.35, 0.42]
    assert experiments.mean_and_deviation(values) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert experiments.text_of(values) == '36.0 ± 5.6'


def test_section_is_replaced_between_its_marks(tmp_path):
    path = tmp_path / 'x.md'
    path.write_text('a\n<!-- s: written by benchmarks/s.py -->\nold\n<!-- s: end -->\nb\n', encoding='utf-8')
    for text in ('new', 'newer'):
        experiments.write_section(path, 'benchmarks/s.py', text)
    text = path.read_text(encoding='utf-8')
    assert text == 'a\n<!-- s: written by benchmarks/s.py -->\n\nnewer\n\n<!-- s: end -->\nb\n'
    with pytest.raises(SystemExit, match='no lines'):
        experiments.write_section(path, 'benchmarks/t.py', 'x')


def test_iterations_to_reach():
    curve = [(50, 0.1), (100, 0.3), (200, 0.3), (400, 0.5)]
    assert pir_at.iterations_to_reach(0.05, curve) == 50
    assert pir_at.iterations_to_reach(0.2, curve) == pytest.approx(50 * 2**0.5, abs=1e-5)
    assert pir_at.iterations_to_reach(0.3, curve) == 100
    assert pir_at.iterations_to_reach(0.4, curve) == pytest.approx(200 * 2**0.5, abs=1e-5)
    assert pir_at.iterations_to_reach(0.51, curve) is None


def test_crops_show_the_digit_that_they_are_labelled_with(monkeypatch):
    from mmadv.datasets.digit_scenes import draw_scene

    monkeypatch.setitem(digit_classifiers.SCENES, 'val', 3)
    images, digits = digit_classifiers.Crops('val').draw(8, np.random.default_rng(0))
    assert images.shape == (8, 3, 32, 32)
    assert digits.shape == (8, 1, 1)
    scenes = [draw_scene('val', index) for index in range(3)]
    windows = [np.lib.stride_tricks.sliding_window_view(scene, (32, 32, 3))[:, :, 0] for scene, _ in scenes]
    for image, digit in zip(images, digits, strict=True):
        crop = (image.numpy().transpose(1, 2, 0)[..., ::-1] * 255).round().astype(np.uint8)
        places_of_crop = [np.argwhere((part == crop).all(axis=(2, 3, 4))) for part in windows]
        (which,) = (index for index, places in enumerate(places_of_crop) if len(places))
        top, left = places_of_crop[which][0]
        assert int(digit) + 1 in scenes[which][1][top : top + 32, left : left + 32]


@pytest.mark.parametrize('experiment', ['fast_newton', 'pir_at'])
def test_every_run_of_a_study_has_a_config_and_files_of_its_own(experiment, tmp_path):
    module = __import__(experiment)
    runs = module.plan(tmp_path, *([list(module.DATA)] if experiment == 'pir_at' else []))
    files = [stage.done for run in runs for stage in run.stages]
    assert len({run.name for run in runs}) == len(runs)
    assert len(set(files)) == len(files)
    for run in runs:
        for stage in run.stages:
            assert (BENCHMARKS.parent / stage.command[1]).is_file()


@pytest.mark.parametrize(('sizes', 'expected'), [((3, 1, 2), 4), ((2, 5), 5), ((), 0)])
def test_allocated_peak_is_that_of_what_is_alive_at_once(sizes, expected):
    alive_before = torch.ones(7 * 2**18)  # what was there before does not count

    def step():
        for size in sizes:
            torch.empty(size * 2**18, dtype=torch.float32)
        if sizes:
            both = [torch.empty(2**19), torch.empty(2**19)]
            del both

    assert experiments.allocated_peak(step, 'cpu') == expected * 2**20
    del alive_before


def test_stored_command_has_no_path_of_the_machine(monkeypatch):
    words = ['benchmarks/x.py', '--seeds', '0', '1', '--work-dir', '/a b/c', '--methods', 'a, b', '--work-dir=/d']
    monkeypatch.setattr(sys, 'argv', words)
    assert experiments.command_line() == "python benchmarks/x.py --seeds 0 1 --methods 'a, b'"


@pytest.mark.parametrize('path', sorted(experiments.RESULTS.rglob('*.json')), ids=lambda path: path.stem)
def test_stored_results_name_no_folder_of_a_machine(path):
    assert not re.search(r'[ "=]/(home|root|tmp|work|mnt|Users)/', path.read_text(encoding='utf-8'))
