"""The code on the page on models of Hugging Face and torchvision runs, and its configs parse."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmadv.commands.config_keys import check_config

PAGE = (Path(__file__).parents[2] / 'docs' / 'imported_models.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'```python\n(.*?)```', PAGE, re.S)
CONFIGS = [code for code in BLOCKS if '_base_' in code]
MODELS = [code for code in BLOCKS if code.startswith('model = ')]
SCRIPTS = [code for code in BLOCKS if 'import' in code]


def test_every_block_is_tried():
    assert len(CONFIGS) == 2 and len(MODELS) == 2 and len(SCRIPTS) == 1
    assert len(BLOCKS) == 5


@pytest.mark.parametrize('number', range(2))
def test_a_config_parses(number, tmp_path):
    (tmp_path / 'my_config.py').write_text(CONFIGS[number])
    config = Config.fromfile(str(tmp_path / 'my_config.py'))
    check_config(config, 'my_config.py')
    names = ['HuggingFaceSegmentor', 'TorchvisionSegmentor']
    assert config.model.type == names[number]
    dataset = config.test_dataloader.dataset
    assert [step.type for step in dataset.pipeline] == ['LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs']
    assert dataset.type == ['ADE20KDataset', 'VOC2012Dataset'][number]


@pytest.mark.parametrize('number', range(2))
def test_settings_of_a_model_are_known(number):
    config = Config.fromfile(str(Path(__file__).parents[2] / 'configs' / '_base_' / 'default_runtime.py'))
    scope = {}
    exec(MODELS[number], scope)
    config.model = scope['model']
    check_config(config, 'my_config.py')


def test_the_script_runs(capsys, tmp_path):
    pytest.importorskip('transformers')
    from tests.models.hugging_face_models import small_model

    network, processor = small_model('maskformer', tmp_path)
    images, labels = torch.rand(2, 3, 64, 80), torch.randint(5, (2, 64, 80))
    exec(SCRIPTS[0], dict(network=network, processor=processor, images=images, labels=labels))
    assert re.fullmatch(r'accuracy under attack: 0\.\d{3}\n', capsys.readouterr().out)
