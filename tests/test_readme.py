"""The snippets of the README, run as they stand."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from mmadv.attacks import PGD, Linf
from mmadv.commands import testing, training
from mmadv.models import AdvSegDataPreProcessor

ROOT = Path(__file__).parents[1]
PARSERS = {'tools/train.py': training.parser, 'tools/test.py': testing.parser}
README = (ROOT / 'README.md').read_text(encoding='utf-8')
SNIPPETS = re.findall(r'```(\w+)( config)?\n(.*?)```', README, re.DOTALL)


def snippets(language, config=''):
    return [text for kind, mark, text in SNIPPETS if (kind, mark) == (language, config)]


def test_every_snippet_is_of_a_kind_that_is_tested():
    assert {(language, mark) for language, mark, _ in SNIPPETS} == {('python', ''), ('python', ' config'), ('bash', '')}
    assert README.count('```') == 2 * len(SNIPPETS)


def test_three_lines_make_a_stock_config_adversarial(tmp_path):
    (snippet,) = snippets('python', ' config')
    assert len(snippet.strip().splitlines()) == 1 + 3
    base = Config.fromfile(ROOT / 'configs' / 'demo' / 'pspnet_clean_digits.py')
    base.dump(tmp_path / 'my_config.py')
    (tmp_path / 'mine_at.py').write_text(snippet)
    config = Config.fromfile(tmp_path / 'mine_at.py')
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(config.model)
    preprocessor = model.data_preprocessor
    assert isinstance(preprocessor, AdvSegDataPreProcessor)
    assert preprocessor.attack == PGD(threat=Linf(radius='4/255'), steps=2, step_size=0.01)
    assert preprocessor.mean.flatten().tolist() == [127.5] * 3


def test_five_lines_attack_any_torch_model(capsys):
    (snippet,) = snippets('python')
    assert len([line for line in snippet.splitlines() if line]) <= 5
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 4, 3, padding=1)
    images = torch.rand(2, 3, 8, 8)
    labels = model(images).argmax(1)
    labels[:, 0] = 255
    scope = dict(model=model, images=images, labels=labels)
    exec(compile(snippet, 'README.md', 'exec'), scope)
    result = scope['result']
    assert result.accuracy.mean() < 0.95  # 1 without attack
    assert (result.images - images).abs().max() <= 4 / 255 + 1e-6
    assert list(result.members) == ['masked_ce', 'balanced_ce', 'js', 'masked_spherical']
    assert f'accuracy under attack: {result.accuracy.mean():.3f}' in capsys.readouterr().out


@pytest.mark.parametrize('line', ''.join(snippets('bash')).strip().splitlines())
def test_commands_exist_and_take_these_arguments(line):
    words = shlex.split(line)
    if words[0] == 'make':
        assert re.search(rf'^{words[1]}:', (ROOT / 'Makefile').read_text(), re.MULTILINE)
        return
    assert words[0] == 'python'
    assert (ROOT / words[1]).is_file()
    arguments = PARSERS[words[1]]().parse_args(words[2:])
    assert (ROOT / arguments.config).is_file()


@pytest.mark.parametrize('target', re.findall(r'\]\(([^)#:]+)\)', README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).is_file()
