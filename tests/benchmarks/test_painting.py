"""The study of pictures painted with gradients: its configs, its floor, who recognises what, and its section."""

import json
from pathlib import Path

import curves
import numpy as np
import painting as study
import painting_report as report
import pytest
import torch
from experiments import ROOT
from mmengine.config import Config, ConfigDict
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules
from tiny_project import write_config, write_dataset

from mmadv.attacks import L2, PGD, GaussianNoise
from mmadv.checkpoints.loading import file_sha256
from mmadv.registry import ATTACKS, build
from mmadv.synthesis import Descent

SIZE = (12, 16)


@pytest.mark.parametrize('name', study.MODELS)
def test_models_differ_by_their_attack_alone(name):
    config_name, sigma = study.MODELS[name]
    config, standard = (
        Config.fromfile(ROOT / study.CONFIGS / f'{one}.py', import_custom_modules=False)
        for one in (config_name, study.MODELS['standard'][0])
    )
    preprocessor = config.model.data_preprocessor
    attacks = {
        'noise, smoothed': GaussianNoise(sigma=0.25),
        'adversarial': PGD(threat=L2(radius=4.0), steps=3, step_size=2.0),
    }
    if name in attacks:
        assert build(preprocessor.pop('attack'), ATTACKS) == attacks[name]
        assert (preprocessor.pop('type'), standard.model.data_preprocessor.pop('type')) == (
            'AdvSegDataPreProcessor',
            'SegDataPreProcessor',
        )
    assert sigma == (0.25 if 'noise' in name else None)
    config.pop('attack', None)
    assert dict(config) == dict(standard)
    assert config.train_cfg.max_iters == config.param_scheduler[-1].end == study.ITERATIONS
    assert config.test_dataloader.dataset.pipeline[2].scale == config.train_pipeline[2].scale == (240, 180)
    assert config.train_pipeline[3].crop_size == (180, 240)


def test_each_model_is_attacked_with_the_weights_of_its_training(tmp_path):
    runs = study.plan(tmp_path)
    assert [item.facts['model'] for item in runs] == list(study.MODELS)
    for item in runs:
        train, attack = item.stages
        config, weights, out = attack.command[1:]
        assert config == train.command[1] and Path(out) == attack.done
        assert Path(weights) == train.done.parent / f'iter_{study.ITERATIONS}.pth'


def test_numbers_of_other_weights_are_refused(tmp_path):
    first = study.plan(tmp_path)[0].stages[-1]
    first.done.parent.mkdir()
    first.done.write_text(json.dumps({'sha256': 'a'}))
    Path(first.command[2]).write_bytes(b'b')
    with pytest.raises(SystemExit, match='is of other weights'):
        study.measure(tmp_path)


def test_the_attack_of_a_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(study, 'BUDGETS', (('Linf', '2/255'), ('L2', '0.5')))
    monkeypatch.setattr(study, 'ATTACKED', 2)
    write_dataset(tmp_path / 'data')
    for n in (0, 2, 4):  # those of another size
        (tmp_path / f'data/images/{n}.png').unlink()
        (tmp_path / f'data/labels/{n}.png').unlink()
    config = write_config(tmp_path / 'config.py', tmp_path / 'data')
    register_all_modules()
    torch.manual_seed(0)
    segmentor = MODELS.build(Config.fromfile(config).model).eval()
    torch.save({'state_dict': segmentor.state_dict()}, tmp_path / 'weights.pth')
    study.attack([str(config), str(tmp_path / 'weights.pth'), str(tmp_path / 'robustness.json')])
    content = json.loads((tmp_path / 'robustness.json').read_text())
    dataset = curves.load_tested(config, tmp_path / 'weights.pth')[1]
    right = valid = 0
    for item in (dataset[n] for n in range(3)):
        sample = {'inputs': [item['inputs']], 'data_samples': [item['data_samples']]}
        labels = item['data_samples'].gt_sem_seg.data
        with torch.no_grad():
            predicted = segmentor.test_step(sample)[0].pred_sem_seg.data
        right += int(((predicted == labels) & (labels != 255)).sum())
        valid += int((labels != 255).sum())
    assert content['clean']['aAcc'] == pytest.approx(right / valid, abs=1e-3)
    assert list(content['numbers']) == ['none', 'Linf 2/255', 'L2 0.5']
    clean, *attacked = (one['aAcc'] for one in content['numbers'].values())
    assert all(left < clean for left in attacked)
    assert content['sha256'] == file_sha256(tmp_path / 'weights.pth')


def models(standard=0.1, adversarial=0.3, clean=0.6):
    def one(left):
        budgets = {f'{threat} {radius}': {'mIoU': left} for threat, radius in study.BUDGETS}
        return {'clean': {'mIoU': clean}, 'numbers': {'none': {'mIoU': clean}} | budgets, 'sha256': 'a' * 64}

    return {'standard': one(standard), 'noise, smoothed': one(0.2), 'adversarial': one(adversarial)}


@pytest.mark.parametrize(
    'change, message',
    [
        ({'clean': 0.44}, 'clean mIoU of 44.0 %, below 45 %'),
        ({'standard': 0.3, 'adversarial': 0.6}, 'keeps 30.0 of 60.0 % mIoU'),
        ({'standard': 0.2}, 'adversarial training 30.0 %'),
    ],
)
def test_floor(change, message):
    study.check_floor(models())
    with pytest.raises(SystemExit, match=message):
        study.check_floor(models(**change))


class ByColour(torch.nn.Conv2d):
    """A backbone whose features are three channels, BGR."""

    def __init__(self):
        super().__init__(3, 3, 1, bias=False)
        self.weight.data = torch.eye(3)[:, :, None, None]

    def init_weights(self):
        """Leaves the weights."""

    def forward(self, images):
        """Returns one feature map."""
        return (super().forward(images),)


@pytest.fixture
def scenes():
    images = torch.full((3, 3, *SIZE), 0.5)
    sample = SegDataSample(metainfo={'img_shape': SIZE, 'ori_shape': SIZE, 'pad_shape': SIZE})
    labels = torch.zeros((3, *SIZE), dtype=torch.int64)
    return study.Scenes([sample] * 3, images, labels, ['a', 'b', 'c'], list(study.CLASSES[:3]))


@pytest.fixture
def painter():
    """A painter that predicts at each pixel the class of the brightest channel."""
    register_all_modules()
    MODELS.register_module(name='ByColour', module=ByColour, force=True)
    head = dict(
        type='FCNHead', in_channels=3, channels=3, num_convs=0, concat_input=False, num_classes=3, dropout_ratio=0
    )
    preprocessor = dict(type='SegDataPreProcessor', mean=[0] * 3, std=[255] * 3, test_cfg=dict(size_divisor=4))
    config = dict(
        type='EncoderDecoder',
        data_preprocessor=preprocessor,
        backbone=dict(type='ByColour'),
        decode_head=head,
        test_cfg=ConfigDict(mode='whole'),
    )
    segmentor = MODELS.build(config).eval()
    segmentor.decode_head.conv_seg.weight.data = torch.eye(3)[:, :, None, None]
    segmentor.decode_head.conv_seg.bias.data.zero_()
    return study.Painter(segmentor, None)


def test_a_class_is_painted_and_recognised(painter, scenes, monkeypatch):
    monkeypatch.setattr(study, 'TARGET', Descent(steps=4, step_size=1.0, threat=L2(radius=4.0)))
    for k, name in enumerate(study.CLASSES[:3]):
        painted = study.move(painter, scenes, scenes.images, name)
        others = [channel for channel in range(3) if channel != k]
        assert (painted[:, k] > 0.6).all() and torch.equal(painted[:, others], scenes.images[:, others])
        smooth = study.Painter(painter.segmentor, 0.1)
        assert torch.allclose(study.move(smooth, scenes, scenes.images, name), painted, atol=1e-6)
        assert study.recognised({'own': painter}, scenes, painted, name) == {'own': 1.0}
        half = painted.clone()
        half[:, :, : SIZE[0] // 2] = 0.5
        half[:, (k + 1) % 3, : SIZE[0] // 2] = 1.0
        assert study.recognised({'own': painter}, scenes, half, name) == {'own': 0.5}


def test_a_box_is_painted(painter, scenes, monkeypatch):
    drawn = []
    monkeypatch.setattr(study, 'draw', lambda columns, rows, name, quality: drawn.append((columns, rows, name)))
    monkeypatch.setattr(study, 'BOX', (4, 4, 6, 6))
    monkeypatch.setattr(study, 'PAINT', Descent(steps=3, step_size=0.5))
    quality = study.paint_box({'standard': painter}, scenes)
    ((columns, rows, name),) = drawn
    assert (rows, name, list(columns)) == (['a', 'b', 'c'], 'box', ['original', 'start', 'standard'])
    inside = torch.zeros(SIZE, dtype=torch.bool)
    inside[4:10, 4:10] = True
    assert (columns['standard'][:, 0, 4:10, 4:10] > columns['start'][:, 0, 4:10, 4:10]).all()
    error = float((columns['standard'] - scenes.images)[0][:, inside].square().mean())
    assert quality['standard']['PSNR'][0] == pytest.approx(-10 * np.log10(error), abs=1e-3)


def test_intervals_and_tables():
    values = np.array([10.0, 12.0, 14.0])
    low, high = (float(text) for text in report.interval(values, 6).split('(')[1].strip(')').split(' to '))
    assert 10 <= low < 12 < high <= 14
    box = {'start': {'PSNR': [9.0, 9.0], 'SSIM': [0.1, 0.1]}, 'standard': {'PSNR': [10.0, 10.0], 'SSIM': [0.2, 0.2]}}
    box['adversarial'] = {'PSNR': [11.5, 11.5], 'SSIM': [0.25, 0.25]}

    def row(title, *values):
        cells = [value if value == '-' else f'{value} ({value} to {value})' for value in values]
        return f'| {title} | {" | ".join(cells)} |'

    assert report.box_table(box).splitlines()[2:] == [
        row('nobody: the start', '9.0', '-1.0', '0.100', '-0.100'),
        row('standard', '10.0', '-', '0.200', '-'),
        row('adversarial', '11.5', '1.5', '0.250', '0.050'),
    ]
    shares = {'road': {'standard': 0.2, 'adversarial': 0.4}, 'sky': {'standard': 0.4, 'adversarial': 0.8}}
    assert report.judges({'target': {'start': shares}}).splitlines()[-1] == (
        '| an image | nobody: the start | 30 | 60 |'
    )
    assert '| noise | 60.0 | 60.0 | 20.0 | 20.0 | `aaaaaaaaaaaaaaaa` |' in report.model_table(models())


def test_the_document_holds_the_section_of_the_stored_results():
    content = json.loads((ROOT / 'benchmarks/results/painting.json').read_text())
    assert report.section(content) in (ROOT / 'docs/gallery.md').read_text(encoding='utf-8')
    study.check_floor(content['records'][0]['models'])
    for name in ('target', 'class', 'labels', 'box'):
        assert report.sheet_path(name).is_file()
