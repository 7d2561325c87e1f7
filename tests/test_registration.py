"""A type name is enough, from every scope, and bases of mmseg and mmadv resolve."""

import copy
import os
from importlib.metadata import PackageNotFoundError, distribution

import mmseg.registry
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, HOOKS, LOOPS, METRICS, MODELS, DefaultScope, Registry

import mmadv
from mmadv.config_paths import register_package_names
from mmadv.errors import UserError
from mmadv.mm_registry import REGISTRIES
from mmadv.models import AdvSegDataPreProcessor

COMPONENTS = [
    (MODELS, 'AdvSegDataPreProcessor'),
    (MODELS, 'PAGEncoderDecoder'),
    (LOOPS, 'AttackTestLoop'),
    (HOOKS, 'PAGTargetHook'),
    (METRICS, 'AttackMetric'),
    (METRICS, 'EnsembleMetric'),
    (DATASETS, 'CamVidDataset'),
    (DATASETS, 'DigitScenesDataset'),
]
STOCK = 'fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
ATTACK = "attack=dict(type='PGD', threat=dict(type='Linf', radius='4/255'), steps=1, step_size='4/255')"


@pytest.mark.parametrize(('registry', 'name'), COMPONENTS, ids=lambda value: value if isinstance(value, str) else '')
@pytest.mark.parametrize('scope', ['mmseg', 'mmadv'])
@pytest.mark.parametrize('prefix', ['', 'mmadv.', 'mmseg.'])
def test_type_name_suffices(registry, name, scope, prefix):
    with DefaultScope.overwrite_default_scope('mmseg'), registry.switch_scope_and_registry(scope) as active:
        assert active.scope == scope
        component = active.get(prefix + name)
    assert component is not None and component.__name__ == name
    assert component.__module__.startswith('mmadv.')


def test_every_registry_of_mmseg_has_one_of_scope_mmadv():
    parents = [
        value for value in vars(mmseg.registry).values() if isinstance(value, Registry) and value.scope == 'mmseg'
    ]
    assert len(parents) == len(REGISTRIES) > 15
    for parent in parents:
        assert parent.children['mmadv'].parent is parent


@pytest.mark.parametrize(
    ('registry', 'name'),
    [
        ('MODELS', 'FCNHead'),
        ('DATASETS', 'CityscapesDataset'),
        ('HOOKS', 'CheckpointHook'),
        ('TRANSFORMS', 'LoadAnnotations'),
        ('METRICS', 'IoUMetric'),
        ('VISUALIZERS', 'SegLocalVisualizer'),
        ('OPTIMIZERS', 'AdamW'),
        ('LOOPS', 'IterBasedTrainLoop'),
        ('PARAM_SCHEDULERS', 'PolyLR'),
        ('DATA_SAMPLERS', 'InfiniteSampler'),
        ('OPTIM_WRAPPERS', 'OptimWrapper'),
        ('VISBACKENDS', 'LocalVisBackend'),
        ('LOG_PROCESSORS', 'LogProcessor'),
        ('OPTIM_WRAPPER_CONSTRUCTORS', 'DefaultOptimWrapperConstructor'),
    ],
)
def test_stock_components_resolve_from_scope_mmadv(registry, name):
    assert REGISTRIES[registry].get(name).__name__ == name


def write(tmp_path, text):
    path = tmp_path / 'config.py'
    path.write_text(text)
    return Config.fromfile(path)


def test_stock_base_resolves_and_builds(tmp_path):
    config = write(
        tmp_path,
        f"_base_ = ['mmseg::{STOCK}']\n"
        "custom_imports = dict(imports=['mmadv'])\n"
        f"model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', {ATTACK}))\n",
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        preprocessor = MODELS.build(copy.deepcopy(config.model.data_preprocessor))
    assert type(preprocessor) is AdvSegDataPreProcessor
    assert preprocessor.attack.threat.radius == 4 / 255
    assert preprocessor.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])


def configs():
    root = mmadv.cfg('_base_/default_runtime.py').removesuffix('_base_/default_runtime.py')
    for folder, _, files in os.walk(root, followlinks=True):
        for name in sorted(files):
            path = os.path.relpath(os.path.join(folder, name), root)
            if name.endswith('.py') and not path.startswith('_base_'):
                yield path.replace(os.sep, '/')


@pytest.mark.parametrize('path', sorted(configs()))
def test_our_configs_resolve_as_bases_and_build(path, tmp_path):
    by_name = write(tmp_path, f"_base_ = ['mmadv::{path}']\n")
    by_call = write(tmp_path, f"_base_ = [__import__('mmadv').cfg('{path}')]\n")
    assert by_name.model.type == by_call.model.type
    for config in (by_name, by_call):
        model = copy.deepcopy(config.model)
        model.backbone.pop('init_cfg', None)
        with DefaultScope.overwrite_default_scope('mmseg'):
            built = MODELS.build(model)
        preprocessor = built.data_preprocessor
        if isinstance(preprocessor, AdvSegDataPreProcessor):
            assert preprocessor._segmentor() is built


def test_cfg_returns_absolute_paths_and_names_the_nearest():
    path = next(configs())
    assert os.path.isabs(mmadv.cfg(path)) and os.path.isfile(mmadv.cfg(path))
    assert mmadv.cfg(f'mmadv::{path}') == mmadv.cfg(path)
    assert mmadv.cfg(f'mmseg::{STOCK}').endswith(STOCK)
    with pytest.raises(UserError, match=f"mmadv has no config '{path[:-4]}x.py'; did you mean '"):
        mmadv.cfg(path[:-4] + 'x.py')
    with pytest.raises(UserError, match="no installed package 'mmnothing'"):
        mmadv.cfg('mmnothing::a/b.py')


def test_an_installed_distribution_keeps_its_name(monkeypatch):
    from mmengine.config.utils import MODULE2PACKAGE

    with pytest.raises(PackageNotFoundError):
        distribution('mmsegmentation')
    assert MODULE2PACKAGE['mmseg'] == 'mmseg'
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'numpy')
    register_package_names()
    assert MODULE2PACKAGE['mmseg'] == 'numpy'
