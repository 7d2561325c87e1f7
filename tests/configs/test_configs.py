import ast
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS, METRICS, TRANSFORMS

from mmadv.attacks.attack import Attack
from mmadv.registry import ATTACKS, build

CONFIGS = Path(__file__).parents[2] / 'configs'
LEAVES = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
ATTACK_BASES = sorted((CONFIGS / '_base_' / 'attacks').glob('*.py'))


def first_base(path):
    """Returns the path of the first base of a config whose first statement names its bases."""
    (bases,) = (node.value for node in ast.parse(path.read_text(encoding='utf-8')).body if is_bases(node))
    bases = ast.literal_eval(bases)
    return (path.parent / (bases if isinstance(bases, str) else bases[0])).resolve()


def is_bases(node):
    return isinstance(node, ast.Assign) and node.targets[0].id == '_base_'


def is_clean(path):
    return path.parent.name == 'clean' or '_clean_' in path.stem


# (adversarial leaf, the clean leaf that it inherits, trained as long)
PAIRS = [
    (path, first_base(path))
    for path in LEAVES
    if 'AdvSegDataPreProcessor' in (text := path.read_text(encoding='utf-8'))
    and is_clean(first_base(path))
    and 'train_cfg' not in text
]


def name(path):
    return str(path.relative_to(CONFIGS))


@pytest.fixture(autouse=True)
def mmseg_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def test_there_are_configs_to_test():
    assert len(LEAVES) >= 47
    assert len(ATTACK_BASES) >= 15
    assert len(PAIRS) >= 16


@pytest.mark.parametrize('path', LEAVES, ids=name)
def test_leaf_is_named_architecture_method_dataset(path):
    assert re.fullmatch(r'[a-z0-9]+(_[a-z0-9]+){2,}', path.stem)


@pytest.mark.parametrize('path', LEAVES, ids=name)
def test_leaf_reads_and_scores_the_classes_of_its_model(path):
    config = Config.fromfile(path)
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        for part in loader.dataset.get('datasets', [loader.dataset]):
            dataset = DATASETS.build({**part, 'lazy_init': True})
            assert config.model.decode_head.num_classes == len(dataset.metainfo['classes'])
            for transform in part.pipeline:
                TRANSFORMS.build(transform)
    METRICS.build(config.test_evaluator)


@pytest.mark.parametrize('path', LEAVES, ids=name)
def test_schedule_ends_with_the_training(path):
    config = Config.fromfile(path)
    assert config.param_scheduler[-1].end == config.train_cfg.max_iters


@pytest.mark.parametrize(('path', 'clean_path'), PAIRS, ids=lambda path: path.stem)
def test_adversarial_leaf_differs_from_its_clean_one_by_the_attack_alone(path, clean_path):
    adversarial, clean = Config.fromfile(path), Config.fromfile(clean_path)
    preprocessor = adversarial.model.data_preprocessor
    assert preprocessor.pop('type') == 'AdvSegDataPreProcessor'
    assert preprocessor.pop('attack') == adversarial.pop('attack')
    assert 0 < preprocessor.pop('prob', 1) <= 1
    assert clean.model.data_preprocessor.pop('type') == 'SegDataPreProcessor'
    assert adversarial.to_dict() == clean.to_dict()


@pytest.mark.parametrize('path', ATTACK_BASES, ids=name)
def test_attack_base_defines_only_an_attack(path):
    config = Config.fromfile(path).to_dict()
    assert set(config) == {'attack'}
    assert isinstance(build(config['attack'], ATTACKS), Attack)
