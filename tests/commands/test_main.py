"""The command mmadv: its sub-commands, their help, and configs that are found from any folder."""

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mmadv
from mmadv.commands.command_line import config_file
from mmadv.commands.main import COMMANDS, main
from mmadv.errors import UserError

ROOT = Path(__file__).parents[2]
# The scripts of older commands; every other script has the name of its command.
SCRIPTS = {'convert': 'convert_checkpoint', 'prepare': 'prepare_data'}


@pytest.mark.parametrize('name', COMMANDS)
def test_the_help_ends_with_an_example_that_parses(name, capsys):
    parser = import_module(f'mmadv.commands.{COMMANDS[name].module}').parser()
    assert parser.prog == f'mmadv {name}'
    with pytest.raises(SystemExit) as caught:
        main([name, '--help'])
    assert caught.value.code == 0
    examples = re.findall(r'^example:\n  mmadv (.+)$', capsys.readouterr().out, re.MULTILINE)
    assert len(examples) == 1
    words = shlex.split(examples[0])
    assert words[0] == name
    arguments = parser.parse_args(words[1:])
    if hasattr(arguments, 'config') and isinstance(arguments.config, str):
        assert Path(config_file(arguments.config)).is_file()


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_has_a_script_of_one_call(name):
    script = (ROOT / 'tools' / f'{SCRIPTS.get(name, name)}.py').read_text(encoding='utf-8')
    assert script.endswith(f"if __name__ == '__main__':\n    sys.exit(main(['{name}', *sys.argv[1:]]))\n")


def test_there_is_no_script_without_a_command():
    assert {path.stem for path in (ROOT / 'tools').glob('*.py')} == {SCRIPTS.get(name, name) for name in COMMANDS}


@pytest.mark.parametrize(
    ('argv', 'status', 'message'),
    [
        ([], 2, 'error: a command is missing; known are train, test, '),
        (['tset'], 2, "error: unknown command 'tset'; did you mean 'test'?"),
        (['test'], 2, 'error: the following arguments are required: config, --attack'),
    ],
)
def test_mistakes_are_one_sentence(argv, status, message, capsys):
    assert main(argv) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)


def test_usage_names_every_command_and_the_version(capsys):
    assert main(['--help']) == 0
    printed = capsys.readouterr().out
    assert all(f'\n  {name} ' in printed for name in COMMANDS)
    assert main(['--version']) == 0
    assert capsys.readouterr().out == f'mmadv {mmadv.__version__}\n'


def test_python_dash_m_runs_it_quietly_from_any_folder(tmp_path):
    command = [sys.executable, '-m', 'mmadv', 'train', 'demo/pspnet_clean_digit.py']
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={'PYTHONPATH': str(ROOT)}, timeout=120
    )
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == (
        'error: config demo/pspnet_clean_digit.py does not exist, and mmadv has no config '
        "'demo/pspnet_clean_digit.py'; did you mean 'demo/pspnet_clean_digits.py'?\n"
    )


def test_configs_are_found_beside_the_user_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    brought = Path(config_file('demo/pspnet_clean_digits.py'))
    assert brought.resolve() == ROOT / 'configs' / 'demo' / 'pspnet_clean_digits.py'
    assert config_file('configs/demo/pspnet_clean_digits.py') == str(brought)
    own = tmp_path / 'demo' / 'pspnet_clean_digits.py'
    own.parent.mkdir()
    own.write_text('x = 1\n')
    assert config_file('demo/pspnet_clean_digits.py') == 'demo/pspnet_clean_digits.py'
    with pytest.raises(UserError, match='config demo is not a file; give the path of a config file'):
        config_file('demo')
