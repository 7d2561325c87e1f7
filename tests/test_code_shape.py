"""The shape of the package's code: functions fit a screen, take few arguments, and say nothing twice."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

import mmadv

ROOT = Path(mmadv.__file__).parent
# Lines of the longest function, its docstring left out: a screen.
MOST_LINES = 60
MOST_ARGUMENTS = 6
SETTINGS = 'model, images and labels, and settings that are keyword-only'
# Function -> why it takes more arguments. Constructors of registered components take as many as a config has keys.
MANY_ARGUMENTS = {
    'mmadv.attacks.pixel_scores.PixelScores.__init__': 'logits and labels, and facts that save passes, keyword-only',
    'mmadv.attacks.attack.Attack.__call__': SETTINGS,
    'mmadv.models.segmentors.imported_segmentor.ImportedSegmentor.__init__': 'base of components: facts, keyword-only',
    'mmadv.models.backbones.conversion.convert_file': 'two files, and settings that are keyword-only',
    'mmadv.robustness.aligned_gradients.measure_gradients': SETTINGS,
    'mmadv.robustness.certification.two_sided_radii': 'shares of the draws, and settings that are keyword-only',
    'mmadv.robustness.smoothing.SmoothedModel.__init__': 'a model, and settings that are keyword-only',
    'mmadv.robustness.sanity_checks.measure': SETTINGS,
    'mmadv.synthesis.painting.generate': SETTINGS,
    'mmadv.synthesis.painting.inpaint': SETTINGS,
}
# So many lines in a row may not stand in two places.
REPEATED_LINES = 6
HANDED_ON = re.compile(r'(\w+)=\1,')

SOURCES = {
    path.relative_to(ROOT.parent).as_posix(): path.read_text(encoding='utf-8')
    for path in ROOT.rglob('*.py')
    if '.mim' not in path.parts
}
TREES = {name: ast.parse(text) for name, text in SOURCES.items()}


def named(tree, file, *kinds):
    """Yields (qualified name, node) of every function or class of a file, inner ones too."""
    waiting = [(file.removesuffix('.py').removesuffix('/__init__').replace('/', '.'), tree)]
    while waiting:
        name, node = waiting.pop()
        for child in ast.iter_child_nodes(node):
            inner = f'{name}.{child.name}' if isinstance(child, (*FUNCTION, ast.ClassDef)) else name
            if isinstance(child, kinds):
                yield inner, child
            waiting.append((inner, child))


FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
FUNCTIONS = {qualified: node for name, tree in TREES.items() for qualified, node in named(tree, name, *FUNCTION)}
# Constructors of the components that configs name.
REGISTERED = {
    f'{qualified}.__init__'
    for name, tree in TREES.items()
    for qualified, node in named(tree, name, ast.ClassDef)
    if any('register' in ast.unparse(decorator) for decorator in node.decorator_list)
}


def lines_of_docstring(node):
    """Returns the numbers of the lines of a node's docstring."""
    has_one = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None
    return set(range(node.body[0].lineno, node.body[0].end_lineno + 1)) if has_one else set()


def lines(node):
    return node.end_lineno - node.lineno + 1 - len(lines_of_docstring(node))


def number_of_arguments(node):
    known = node.args
    return sum(argument.arg not in ('self', 'cls') for argument in [*known.posonlyargs, *known.args, *known.kwonlyargs])


def test_a_function_fits_a_screen():
    assert {name: lines(node) for name, node in FUNCTIONS.items() if lines(node) > MOST_LINES} == {}


def test_a_function_takes_few_arguments_or_has_a_reason():
    many = {name for name, node in FUNCTIONS.items() if number_of_arguments(node) > MOST_ARGUMENTS}
    assert many - REGISTERED == MANY_ARGUMENTS.keys()


@pytest.mark.parametrize('name', MANY_ARGUMENTS)
def test_what_many_arguments_set_is_keyword_only(name):
    assert len(FUNCTIONS[name].args.args) - FUNCTIONS[name].name.startswith('__') <= MOST_ARGUMENTS


def code_lines(name):
    """Returns (number, text) of the lines that one function could hold for two places.

    Those are all but docstrings, comments, imports, signatures, and arguments that are handed on under their names.
    """
    left_out = set()
    for node in ast.walk(TREES[name]):
        left_out |= lines_of_docstring(node)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            left_out |= set(range(node.lineno, node.end_lineno + 1))
        if isinstance(node, FUNCTION):
            left_out |= set(range(node.lineno, node.body[0].lineno))
    actual = []
    for number, line in enumerate(SOURCES[name].splitlines(), start=1):
        text = line.strip()
        if number not in left_out and text and not text.startswith('#') and not HANDED_ON.fullmatch(text):
            actual.append((number, text))
    return actual


def repeated(sources):
    """Returns the places, as 'file:line and file:line', where the same lines begin.

    Args:
        sources: name -> (number, text) of lines.
    """
    places = defaultdict(list)
    for name, actual in sources.items():
        for start in range(len(actual) - REPEATED_LINES + 1):
            window = actual[start : start + REPEATED_LINES]
            places[tuple(text for _, text in window)].append(f'{name}:{window[0][0]}')
    return [' and '.join(same) for same in places.values() if len(same) > 1]


def test_no_lines_stand_in_two_places():
    assert repeated({name: code_lines(name) for name in SOURCES}) == []


def test_repeated_lines_are_seen():
    block = [(number, f'x = {number}') for number in range(1, 8)]
    assert repeated({'a.py': block, 'b.py': [(9, 'y = 0'), *block]}) == ['a.py:1 and b.py:1', 'a.py:2 and b.py:2']
    assert repeated({'a.py': block, 'b.py': block[:5]}) == []
