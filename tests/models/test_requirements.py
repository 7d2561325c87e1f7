"""Packages that models need: a missing one is named with what installs it, before the model is built."""

import ast
import sys
from pathlib import Path

import pytest
from mmseg.models import EncoderDecoder, decode_heads
from mmseg.models.segmentors import DepthEstimator

from mmadv.commands.command_line import load_config
from mmadv.commands.config_keys import check_config
from mmadv.errors import UserError
from mmadv.models import requirements, unwrap
from mmadv.models.building import build_segmentor
from mmadv.models.requirements import NEEDS, MissingPackageError, check_requirements, is_installed

OPS = r"mmcv's compiled ops \(the onedl-mmcv of PyPI has none; docs/installation.md says how to compile them\)"
MMDET = r"onedl-mmdetection \(pip install 'mmadv\[mmdet\]'\)"
MMPRETRAIN = r"onedl-mmpretrain \(pip install 'mmadv\[mmpretrain\]'\)"
HEAD = 'model.decode_head:'


@pytest.fixture
def only_installed(monkeypatch):
    """Returns a function that makes the given modules the only installed ones."""

    def install(*modules):
        monkeypatch.setattr(requirements, 'is_installed', lambda module: module in modules)

    return install


def segmentor(**parts):
    return dict(type='EncoderDecoder', backbone=dict(type='ResNet', depth=18), **parts)


@pytest.mark.parametrize(
    ('model', 'installed', 'message'),
    [
        (
            segmentor(decode_head=dict(type='Mask2FormerHead')),
            [],
            f'model.decode_head: Mask2FormerHead needs {MMDET} and {OPS}; install what is missing',
        ),
        (
            segmentor(decode_head=dict(type='mmseg.MaskFormerHead')),
            ['mmcv._ext'],
            f'{HEAD} MaskFormerHead needs {MMDET};',
        ),
        (
            segmentor(decode_head=dict(type='MaskFormerHead')),
            ['mmdet'],
            f'{HEAD} MaskFormerHead needs {OPS};',
        ),
        (
            segmentor(decode_head=[dict(type='FPNHead'), dict(type='PointHead')]),
            ['mmdet', 'mmpretrain'],
            f'model.decode_head.1: PointHead needs {OPS};',
        ),
        (segmentor(decode_head=dict(type='CCHead')), [], f'model.decode_head: CCHead needs {OPS};'),
        (segmentor(decode_head=dict(type='PSAHead')), [], f'model.decode_head: PSAHead needs {OPS};'),
        (
            dict(backbone=dict(type='mmpretrain.ConvNeXt')),
            [],
            f'model.backbone: ConvNeXt needs {MMPRETRAIN}',
        ),
        (
            segmentor(neck=dict(convs=[dict(type='mmdet.ChannelMapper')])),
            [],
            f'model.neck.convs.0: ChannelMapper needs {MMDET} and {OPS};',
        ),
        (dict(type='DepthEstimator', backbone=dict(type='VPD')), [], 'model: a DepthEstimator estimates depth'),
        (dict(type=DepthEstimator, backbone=dict(type='VPD')), [], 'model: a DepthEstimator estimates depth'),
    ],
)
def test_names_what_installs_a_missing_package(only_installed, model, installed, message):
    only_installed(*installed)
    kind = UserError if 'estimates depth' in message else MissingPackageError
    with pytest.raises(kind, match=f'^{message}'):
        check_requirements(model)
    with pytest.raises(kind, match=f'^{message}'):
        build_segmentor(dict(model=model))
    with pytest.raises(kind, match=f'^config x.py: {message}'):
        check_config(dict(model=model), 'x.py')


def test_says_nothing_if_all_is_there(only_installed):
    only_installed('mmdet', 'mmcv._ext')
    check_requirements(segmentor(decode_head=dict(type='Mask2FormerHead')))
    only_installed()
    check_requirements(segmentor(decode_head=dict(type='PSPHead'), auxiliary_head=[dict(type='FCNHead')]))
    check_requirements(None)


def test_every_head_of_mmseg_that_imports_what_may_be_missing_is_listed():
    optional = {'mmcv.ops': 'mmcv._ext', 'mmdet.models.dense_heads': 'mmdet'}
    for path in Path(decode_heads.__file__).parent.glob('*.py'):
        tree = ast.parse(path.read_text(encoding='utf-8'))
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} & set(optional)
        classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        listed = [NEEDS[name] for name in classes & set(NEEDS)]
        assert bool(modules) == bool(listed), path.name
        assert {optional[module] for module in modules} <= set(sum(listed, ())), path.name


def test_is_installed():
    assert is_installed('mmcv') and is_installed('mmcv.cnn') and is_installed('mmseg.models')
    assert not is_installed('mmcv.no_such_module') and not is_installed('no_such_package.module')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            'import no_such_module_of_mine',
            "No module named 'no_such_module_of_mine'; install it, or add its folder to PYTHONPATH$",
        ),
        ('import no_such_package.part', "No module named 'no_such_package'; install it, or add"),
        ("raise ModuleNotFoundError('No module named mmcv._ext', name='mmcv._ext')", f'; install {OPS}$'),
        ("raise ModuleNotFoundError('No module named mmdet', name='mmdet')", f'mmdet; install {MMDET}$'),
        ("raise ImportError('cannot import name x')", 'cannot import name x; install it, or add'),
    ],
)
def test_a_config_names_the_module_that_is_missing(tmp_path, monkeypatch, text, message):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'needs_another.py').write_text(text)
    monkeypatch.delitem(sys.modules, 'needs_another', raising=False)
    (tmp_path / 'config.py').write_text("custom_imports = dict(imports=['needs_another'])\n")
    with pytest.raises(UserError, match=f'^config .*config.py cannot be loaded: .*{message}'):
        load_config(str(tmp_path / 'config.py'))


def test_unwrap_refuses_what_estimates_depth():
    model = DepthEstimator.__new__(DepthEstimator)
    assert isinstance(model, EncoderDecoder)
    with pytest.raises(UserError, match='a DepthEstimator estimates depth; mmadv takes models that segment'):
        unwrap(model)
