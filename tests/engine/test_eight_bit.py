"""Adversarial images as 8-bit files: what they hold, what they score, and going on with them."""

import json

import numpy as np
import pytest
from PIL import Image

from mmadv.commands.command_line import guarded
from mmadv.commands.testing import run_test
from mmadv.engine.eight_bit import file_name
from mmadv.errors import UserError
from mmadv.evaluation import ResultStore
from mmadv.report import load_results

COMMON = ['--precision', 'float64', '--show', '0']
ATTACK = ['--attack', 'pgd', '--eps', '0', '8/255', '--iterations', '2', '--save-images', *COMMON]


def run(tiny, *arguments):
    assert run_test([str(tiny / 'config.py'), str(tiny / 'trained.pth'), *map(str, arguments)]) == 0


@pytest.fixture(scope='module')
def whole(tiny, tmp_path_factory):
    """The folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp('eight_bit') / 'whole'
    run(tiny, *ATTACK, '--out', out)
    return out


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / 'adversarial').rglob('*.png')}


def test_the_files_stay_in_the_ball_and_score_what_the_report_says(tiny, tmp_path, whole):
    evaluation = load_results(whole)['evaluation']
    assert list(evaluation['rounded']) == ['8/255']
    assert set(files(whole)) == {f'adversarial/8_255/{n}.png' for n in range(6)}
    for n in range(6):
        ours = np.array(Image.open(whole / f'adversarial/8_255/{n}.png')).astype(int)
        clean = np.array(Image.open(tiny / f'data/images/{n}.png')).astype(int)
        largest = np.abs(ours - clean).max()
        assert largest == 0 if n == 5 else 4 < largest <= 8  # the last one has no label
    option = f'test_dataloader.dataset.data_prefix.img_path={whole / "adversarial/8_255"}'
    run(tiny, '--attack', 'none', *COMMON, '--out', tmp_path / 'again', '--cfg-options', option)
    again = load_results(tmp_path / 'again')['evaluation']['clean']
    rounded, worst = evaluation['rounded']['8/255'], evaluation['attacked']['8/255']['worst_case']
    assert {name: rounded[name] for name in again} == again
    assert rounded['IoU'] != evaluation['clean']['IoU']
    for name, difference in rounded['difference'].items():
        assert difference == pytest.approx(rounded[name] - worst[name])


def test_goes_on_with_the_files_and_makes_a_lost_one_again(tiny, tmp_path, whole, monkeypatch):
    append, left = ResultStore.append, [3]

    def stopped(self, record):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        append(self, record)

    monkeypatch.setattr(ResultStore, 'append', stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, *ATTACK, '--out', tmp_path / 'cut')
    monkeypatch.setattr(ResultStore, 'append', append)
    (tmp_path / 'cut/unfinished/adversarial/8_255/1.png').unlink()
    run(tiny, *ATTACK, '--out', tmp_path / 'cut', '--resume', '--batch-size', '3')
    assert files(tmp_path / 'cut') == files(whole)
    ours, theirs = (load_results(folder)['evaluation'] for folder in (tmp_path / 'cut', whole))
    assert json.dumps(ours) == json.dumps(theirs)
    without = [word for word in ATTACK if word != '--save-images']
    run(tiny, *without, '--out', tmp_path / 'cut')
    assert not (tmp_path / 'cut/adversarial').exists()
    assert 'rounded' not in load_results(tmp_path / 'cut')['evaluation']


def test_refused(tiny, tmp_path, capsys):
    assert guarded(run_test, ['c.py', 'w.pth', '--attack', 'none', '--save-images']) == 2
    assert 'has no adversarial images for --save-images' in capsys.readouterr().err
    with pytest.raises(UserError, match=r'the image ../a.png is not below the image folder'):
        file_name('4/255', '../a.png')
