"""The check of the coverage table: what it calls exact, partial, random and refused, on a sample of stock families."""

import json
import re
from importlib.metadata import version
from pathlib import Path

import coverage_of_models
import pytest
import torch
from mmseg.models.decode_heads import EMAHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules

from mmadv.models import requirements
from mmadv.models.adapter import CAVEATS

PREPROCESSOR = dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[60.0] * 3, bgr_to_rgb=True, size_divisor=32)
BACKBONE = dict(
    type='ResNetV1c', depth=18, base_channels=8, stem_channels=8, num_stages=4, out_indices=(0, 1, 2, 3),
    norm_cfg=dict(type='BN'),
)  # fmt: skip


def segmentor(head, **model):
    common = dict(in_channels=64, in_index=3, channels=8, num_classes=5, norm_cfg=dict(type='BN'))
    return dict(
        type='EncoderDecoder',
        data_preprocessor=PREPROCESSOR,
        backbone=BACKBONE,
        decode_head={**common, **head},
        test_cfg=dict(mode='whole'),
        **model,
    )


HAM = dict(type='LightHamHead', in_channels=[16, 32, 64], in_index=[1, 2, 3], ham_channels=8)
HAM['ham_kwargs'] = dict(MD_S=1, MD_R=4, train_steps=2, eval_steps=2, inv_t=100, rand_init=True)
HAM['norm_cfg'] = dict(type='GN', num_groups=2)


@pytest.fixture(scope='module')
def coverage():
    register_all_modules(init_default_scope=True)
    return coverage_of_models


@MODELS.register_module()
class HalfBlindHead(BaseDecodeHead):
    """Keeps half of its gradient back."""

    def forward(self, inputs):
        features = self._transform_inputs(inputs)
        return self.cls_seg(features[:, :8] / 2 + features[:, :8].detach() / 2)


@MODELS.register_module()
class DiceHead(BaseDecodeHead):
    """Draws at every forward pass."""

    def forward(self, inputs):
        features = self._transform_inputs(inputs)
        return self.cls_seg(features[:, :8] + torch.rand_like(features[:, :8]))


@pytest.mark.parametrize(
    ('head', 'gradient'),
    [
        (dict(type='PSPHead', pool_scales=(1, 2)), 'ok'),
        (dict(type='NLHead', reduction=2, use_scale=True, mode='embedded_gaussian'), 'ok'),
        (HAM, 'ok'),
        (dict(type='EMAHead', ema_channels=8, num_bases=4, num_stages=2, momentum=0.1), 'partial'),
        (dict(type='HalfBlindHead'), 'partial'),
        (dict(type='DiceHead'), 'random'),
    ],
    ids=lambda value: value if isinstance(value, str) else value['type'],
)
def test_gradients(coverage, head, gradient):
    outcome = coverage.check(coverage.small_model(segmentor(head)))
    assert outcome['gradient'] == gradient
    assert outcome['attack'] == 'ok'
    if gradient == 'ok':
        assert outcome['error'] < 1e-4  # which only float64 gives
    assert torch.get_default_dtype() == torch.float32
    assert len(outcome['notes']) == (head['type'] in ('EMAHead', 'LightHamHead'))


def counts(page):
    """Returns the families with an exact and a partial gradient, those refused, and those that do not build or run."""
    return tuple(map(int, re.findall(r'^- .+: (\d+)$', page, re.MULTILINE)))


def test_the_page_counts_every_family_of_its_table():
    page = (Path(coverage_of_models.__file__).parents[1] / 'docs' / 'coverage.md').read_text(encoding='utf-8')
    rows = re.findall(r'^\| \w+ / .+ \| (ok|partial|-) \| (ok|refused) \| (.*) \| \w \|$', page, re.MULTILINE)
    assert len(rows) == sum(counts(page)) == 76 and counts(page)[3] == 0
    assert all(remark for gradient, attack, remark in rows if (gradient, attack) != ('ok', 'ok'))
    assert sum(attack == 'refused' for _, attack, _ in rows) == counts(page)[2]


def test_families_and_page(coverage, tmp_path, monkeypatch):
    assert coverage.family_of(segmentor(dict(type='PSPHead'))) == 'EncoderDecoder / ResNetV1c / PSPHead'
    known = {'A / B': 'x/a_r18.py', 'C / D': 'y/c_r50.py'}
    (tmp_path / 'families.json').write_text(json.dumps(known))
    calls = []

    def check_config(path):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {'gradient': 'ok', 'attack': 'ok', 'reason': '', 'notes': []}

    monkeypatch.setattr(coverage, 'check_config', check_config)
    with pytest.raises(KeyboardInterrupt):
        list(coverage.results(tmp_path))
    results = list(coverage.results(tmp_path))
    assert calls == ['x/a_r18.py', 'y/c_r50.py', 'y/c_r50.py'] and results[1][2]['attack'] == 'ok'
    died = {'gradient': '-', 'attack': 'not tried', 'reason': 'the process died', 'notes': []}
    (tmp_path / 'families' / '002.json').write_text(json.dumps(died))
    results = list(coverage.results(tmp_path))
    assert len(calls) == 3
    # Each row keeps the packages of its own run.
    run = coverage.environment()
    assert results[0][2]['run'] == run and run['torch'] == version('torch') and run['mmcv'] == version('onedl-mmcv')
    earlier = {**run, 'date': '2020-01-31', 'torch': '1.0'}
    results[1][2].update(died, run=earlier)
    page = coverage.page(results)
    assert '2 combinations of segmentor' in page and counts(page) == (1, 0, 0, 1)
    assert '| A / B | x/a_r18 | ok | ok |  | b |' in page
    assert '| C / D | y/c_r50 | - | not tried | the process died | a |' in page
    assert f'| a | 2020-01-31 | {run["processor"]} | 1.0 | {run["mmengine"]} |' in page
    results[0][2]['notes'] = [CAVEATS[EMAHead]]
    assert counts(coverage.page(results)) == (0, 1, 0, 1)
    results[0][2]['notes'] = ['log-scores']
    assert counts(coverage.page(results)) == (1, 0, 0, 1)
    assert f'| b | {run["date"]} | {run["processor"]} | {run["torch"]} |' in page


def test_a_model_that_needs_a_package_does_not_build_and_one_that_does_not_segment_is_refused(coverage, monkeypatch):
    monkeypatch.setattr(requirements, 'is_installed', lambda module: False)
    missing = coverage.check_config('ccnet/ccnet_r50-d8_4xb2-40k_cityscapes-512x1024.py')
    assert missing['attack'] == 'does not build' and missing['reason'].startswith(
        'model.decode_head: CCHead needs mmcv'
    )
    depth = coverage.check_config('vpd/vpd_sd_4xb8-25k_nyu-480x480.py')
    assert depth['attack'] == 'refused' and depth['reason'] == (
        'model: a DepthEstimator estimates depth; mmadv takes models that segment'
    )


def test_other_weights_where_the_gradient_vanishes(coverage):
    """Xavier's weights of a depthwise convolution, which shrink its outputs by the number of channels."""
    backbone = dict(type='MobileNetV2', widen_factor=0.25, strides=(1, 2, 2, 1, 1, 1, 1), norm_cfg=dict(type='BN'))
    model = {**segmentor(dict(type='FCNHead', num_convs=1, in_channels=80, in_index=3)), 'backbone': backbone}
    first, kaiming = (coverage.check(coverage.small_model(model, coverage.WEIGHTS[n]), size=32) for n in (0, 2))
    assert first['gradient'] == 'too small to compare'
    assert kaiming['gradient'] == 'ok' and kaiming['error'] < 1e-4


def test_float64_where_float32_is_too_coarse_for_a_large_model(coverage, monkeypatch):
    monkeypatch.setattr(coverage, 'DOUBLE_LIMIT', 0)
    monkeypatch.setitem(coverage.STEP, torch.float32, 1e-9)
    outcome = coverage.check(coverage.small_model(segmentor(dict(type='FCNHead', num_convs=1))), size=32)
    assert outcome['gradient'] == 'ok' and outcome['error'] < 1e-4
