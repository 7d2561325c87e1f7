"""mypy reads the whole package, and every exception from it says why; ``make test`` runs mypy itself."""

import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IGNORE = re.compile(r'#\s*type:\s*ignore')
JUSTIFIED = re.compile(r'#\s*type:\s*ignore\[[a-z-]+\](?P<reason>\s+#\s*\w.*)?$')
SETTINGS = (
    'files = ["mmadv"]',
    'check_untyped_defs = true',
    'disallow_untyped_defs = true',
    'warn_unused_ignores = true',
    'enable_error_code = ["ignore-without-code"]',
)


def unjustified(path):
    """Returns the numbers of the lines with an ignore that has no code, or no reason on the line or above it."""
    lines = path.read_text(encoding='utf-8').splitlines()
    with open(path, 'rb') as stream:
        comments = [token for token in tokenize.tokenize(stream.readline) if token.type == tokenize.COMMENT]
    wrong = []
    for comment in comments:
        if not IGNORE.match(comment.string):
            continue
        number = comment.start[0]
        match = JUSTIFIED.match(comment.string)
        above = lines[number - 2].strip() if number > 1 else ''
        if match is None or not (match['reason'] or (above.startswith('#') and not IGNORE.match(above))):
            wrong.append(number)
    return wrong


def test_every_ignore_of_mypy_has_a_code_and_a_reason():
    wrong = {path.relative_to(ROOT).as_posix(): unjustified(path) for path in sorted((ROOT / 'mmadv').rglob('*.py'))}
    assert {path: numbers for path, numbers in wrong.items() if numbers} == {}


@pytest.mark.parametrize(
    ('text', 'numbers'),
    [
        ('x = 1  # type: ignore', [1]),
        ('x = 1  # type: ignore[arg-type]', [1]),
        ('x = 1  # type: ignore[arg-type]  # text is parsed', []),
        ('# Text is parsed.\nx = 1  # type: ignore[arg-type]', []),
        ('# Text is parsed.\n\nx = 1  # type: ignore[arg-type]', [3]),
        ("x = '# type: ignore'", []),
    ],
    ids=['no code', 'no reason', 'reason', 'reason above', 'far above', 'a string'],
)
def test_a_reason_is_on_the_line_or_above_it(tmp_path, text, numbers):
    (tmp_path / 'module.py').write_text(f'{text}\n')
    assert unjustified(tmp_path / 'module.py') == numbers


@pytest.mark.parametrize('setting', SETTINGS)
def test_mypy_is_strict_on_the_whole_package(setting):
    section = (ROOT / 'pyproject.toml').read_text(encoding='utf-8').partition('[tool.mypy]\n')[2].partition('\n[')[0]
    assert setting in section.splitlines()
    assert re.search(r'^\s*\$\(BIN\)/mypy$', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.MULTILINE)
