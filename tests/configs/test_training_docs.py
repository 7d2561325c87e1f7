"""The snippets of docs/training.md, as configs on top of the demo's."""

import re
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import HOOKS, MODELS

ROOT = Path(__file__).parents[2]
SNIPPETS = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'training.md').read_text(encoding='utf-8'), re.DOTALL)
# What each one sets, in order.
EXPECTED = [
    {'model.data_preprocessor.attack.type': 'PGD', 'model.data_preprocessor.type': 'AdvSegDataPreProcessor'},
    {'model.type': 'TRADESEncoderDecoder', 'model.data_preprocessor.attack.objective.type': 'KullbackLeibler'},
    {'model.data_preprocessor.type': 'FreeAdvSegDataPreProcessor', 'train_cfg.type': 'FreeTrainLoop'},
    {'model.type': 'DDCATEncoderDecoder', 'model.data_preprocessor.attack.type': 'BIM'},
    {'model.decode_head.loss_decode': {'type': 'JensenShannonLoss'}},
    {'val_cfg.type': 'AttackValLoop', 'default_hooks.checkpoint.save_best': 'robust/mIoU'},
    {'model.type': 'EncoderDecoder'},
]


def value(config, path):
    for key in path.split('.'):
        config = config[key]
    return config


def test_snippets_do_what_the_page_says(tmp_path):
    Config.fromfile(ROOT / 'configs' / 'demo' / 'pspnet_clean_digits.py').dump(tmp_path / 'my_config.py')
    (tmp_path / '_base_').symlink_to(ROOT / 'configs' / '_base_')
    assert len(SNIPPETS) == len(EXPECTED)
    for number, (snippet, expected) in enumerate(zip(SNIPPETS, EXPECTED, strict=True)):
        path = tmp_path / f'snippet_{number}.py'
        path.write_text(snippet)
        config = Config.fromfile(path)
        assert {key: value(config, key) for key in expected} == expected
        with DefaultScope.overwrite_default_scope('mmseg'):
            MODELS.build(config.model)
            for hook in config.get('custom_hooks', []):
                HOOKS.build(hook)
