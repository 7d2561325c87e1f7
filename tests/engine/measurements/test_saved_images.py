"""Adversarial images as 8-bit files: what they hold, what they score, and going on with them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_project
from mmcv.transforms import LoadImageFromFile
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmadv.commands.command_line import guarded
from mmadv.commands.testing import run_test
from mmadv.engine.measurements.saved_images import SavedImages, file_name
from mmadv.errors import UserError
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


def test_goes_on_with_the_files_and_makes_a_lost_one_again(tiny, tmp_path, whole, interrupted):
    with interrupted(3):
        run(tiny, *ATTACK, '--out', tmp_path / 'cut')
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
    assert '--save-images needs an attack that makes adversarial images' in capsys.readouterr().err
    with pytest.raises(UserError, match=r'the image ../a.png is not below the image folder'):
        file_name('4/255', '../a.png')


@TRANSFORMS.register_module()
class LoadRGB(LoadImageFromFile):
    """Loads images as RGB, as some projects' loaders do."""

    def transform(self, results):
        results = super().transform(results)
        results['img'] = np.ascontiguousarray(results['img'][:, :, ::-1])
        return results


@TRANSFORMS.register_module()
class Darker(LoadImageFromFile):
    """Reads an image darker than it is in its file."""

    def transform(self, results):
        results = super().transform(results)
        results['img'] = results['img'] // 2
        return results


EXTRA_RGB = "model['data_preprocessor']['bgr_to_rgb'] = False\n"


def with_loader(tiny, folder, loader):
    extra = f"test_dataloader['dataset']['pipeline'] = [dict(type={loader!r}), *pipeline[1:]]\n"
    return tiny_project.write_config(folder / 'config.py', tiny / 'data', extra + EXTRA_RGB)


def test_files_of_a_pipeline_that_loads_rgb_score_what_the_report_says(tiny, tmp_path):
    argv = [str(with_loader(tiny, tmp_path, 'LoadRGB')), str(tiny / 'trained.pth')]
    assert run_test([*argv, *ATTACK, '--out', str(tmp_path / 'out')]) == 0
    ours = np.array(Image.open(tmp_path / 'out/adversarial/8_255/0.png')).astype(int)
    assert np.abs(ours - np.array(Image.open(tiny / 'data/images/0.png'))).max() <= 8
    option = f'test_dataloader.dataset.data_prefix.img_path={tmp_path / "out/adversarial/8_255"}'
    again = ['--attack', 'none', *COMMON, '--out', str(tmp_path / 'again'), '--cfg-options', option]
    assert run_test([*argv, *again]) == 0
    again = load_results(tmp_path / 'again')['evaluation']['clean']
    rounded = load_results(tmp_path / 'out')['evaluation']['rounded']['8/255']
    assert {name: rounded[name] for name in again} == again


def test_a_pipeline_that_reads_files_back_as_something_else_is_refused(tiny, tmp_path):
    config = with_loader(tiny, tmp_path, 'Darker')
    with pytest.raises(UserError, match=r'reads the saved image back with values that differ by up to \d+ of'):
        run_test([str(config), str(tiny / 'trained.pth'), *ATTACK, '--out', str(tmp_path / 'out')])
    assert not list((tmp_path / 'out').rglob('*.png')) and not list(tmp_path.rglob('results.json'))


def test_images_that_would_be_one_file_are_refused_before_the_attack():
    selection = SimpleNamespace(names={'a.png': 0, 'a.jpg': 1})
    with pytest.raises(UserError, match=r'would write a.png and a.jpg to one PNG file; rename one of the images'):
        SavedImages().prepare(SimpleNamespace(store='some', selection=selection))


def test_the_summary_says_what_rounding_costs():
    scalars = dict.fromkeys(('aAcc', 'aAcc_image_mean', 'mAcc', 'mIoU'), 0.5)
    values = {**scalars, 'IoU': [0.5], 'Acc': [0.5], 'images': 1, 'pixels': 8}
    rounded = {'4/255': {**values, 'difference': dict.fromkeys(scalars, 0.0123)}}
    summary = SavedImages.read({'rounded': rounded})
    assert SavedImages.to_json(summary) == rounded
    assert SavedImages.text(summary) == (
        '4/255: images rounded to 8 bits and predicted again: ACC (image mean) 50.00 % (+1.23 points), '
        'mIoU 50.00 % (+1.23 points)'
    )
