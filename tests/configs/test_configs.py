import ast
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS, METRICS, MODELS, TRANSFORMS

from mmadv.attacks.attack import Attack
from mmadv.registry import ATTACKS, build

CONFIGS = Path(__file__).parents[2] / 'configs'
LEAVES = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
ATTACK_BASES = sorted((CONFIGS / '_base_' / 'attacks').glob('*.py'))
ADVERSARIAL = [path for path in LEAVES if 'AdvSegDataPreProcessor' in path.read_text(encoding='utf-8')]


def name(path):
    return str(path.relative_to(CONFIGS))


@pytest.fixture(autouse=True)
def mmseg_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def test_there_are_configs_to_test():
    assert len(LEAVES) >= 8
    assert len(ATTACK_BASES) >= 2
    assert len(ADVERSARIAL) >= 4


@pytest.mark.parametrize('path', LEAVES, ids=name)
def test_leaf_is_named_architecture_method_dataset(path):
    assert re.fullmatch(r'[a-z0-9]+(_[a-z0-9]+){2,}', path.stem)
    assert path.stem.split('_')[-1] in ('camvid', 'digits')


@pytest.mark.parametrize('path', LEAVES, ids=name)
def test_leaf_builds_and_predicts(path):
    config = Config.fromfile(path)
    model = MODELS.build(config.model).eval()
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        dataset = DATASETS.build({**loader.dataset, 'lazy_init': True})
        for transform in loader.dataset.pipeline:
            TRANSFORMS.build(transform)
    assert model.num_classes == len(dataset.metainfo['classes'])
    METRICS.build(config.test_evaluator)
    shape = (64, 64) if 'digits' in path.stem else (120, 160)
    with torch.no_grad():
        logits = model.encode_decode(torch.zeros(2, 3, *shape), [dict(img_shape=shape)] * 2)
    assert logits.shape == (2, model.num_classes, *shape)
    assert logits.isfinite().all()


@pytest.mark.parametrize('path', LEAVES, ids=name)
def test_schedule_ends_with_the_training(path):
    config = Config.fromfile(path)
    assert config.param_scheduler[-1].end == config.train_cfg.max_iters


@pytest.mark.parametrize('path', ADVERSARIAL, ids=name)
def test_adversarial_leaf_differs_from_the_clean_one_by_the_attack_alone(path):
    adversarial = Config.fromfile(path)
    clean = Config.fromfile(clean_of(path))
    preprocessor = adversarial.model.data_preprocessor
    assert preprocessor.pop('type') == 'AdvSegDataPreProcessor'
    assert preprocessor.pop('attack') == adversarial.pop('attack')
    assert clean.model.data_preprocessor.pop('type') == 'SegDataPreProcessor'
    assert adversarial.to_dict() == clean.to_dict()


def clean_of(path):
    """Returns the path of the first base."""
    statement = ast.parse(path.read_text(encoding='utf-8')).body[0]
    return path.parent / ast.literal_eval(statement.value)[0]


@pytest.mark.parametrize('path', ATTACK_BASES, ids=name)
def test_attack_base_defines_only_an_attack(path):
    config = Config.fromfile(path).to_dict()
    assert set(config) == {'attack'}
    assert isinstance(build(config['attack'], ATTACKS), Attack)
