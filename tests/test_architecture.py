"""Who imports whom: the layers of docs/architecture.md, and no circle anywhere."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mmadv

ROOT = Path(mmadv.__file__).parent
MM_PACKAGES = {'mmengine', 'mmcv', 'mmseg'}
# Modules beside the folders, which need nothing but each other and the standard library.
BASE = {'config_paths', 'errors', 'fields', 'files', 'locks', 'printing', 'registry', 'shapes'}
# Folder -> the folders that it may import beside itself and those modules.
LAYERS = {
    'attacks': set(),
    'checkpoints': set(),
    'corruptions': {'attacks'},
    'datasets': {'attacks', 'corruptions'},
    'report': set(),
    'robustness': {'attacks'},
    'synthesis': {'attacks', 'robustness'},
    'reproduction': {'attacks', 'robustness', 'synthesis'},
    'models': {'attacks', 'checkpoints', 'datasets', 'robustness', 'synthesis'},
    'evaluation': {'report', 'robustness'},
    'engine': {
        'attacks',
        'checkpoints',
        'corruptions',
        'datasets',
        'evaluation',
        'models',
        'report',
        'robustness',
        'synthesis',
    },
}
PURE = ('attacks', 'checkpoints', 'corruptions', 'report', 'robustness', 'synthesis', 'reproduction')


def module_name(path):
    parts = ['mmadv', *path.relative_to(ROOT).with_suffix('').parts]
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_name(path): path for path in ROOT.rglob('*.py') if '.mim' not in path.parts}


def imported(path, functions=True):
    """Yields the modules that a module imports when it runs, with or without what its functions import when called.

    What is imported for type checkers alone does not count.
    """
    waiting = [ast.parse(path.read_text(encoding='utf-8'))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and getattr(node.test, 'id', '') == 'TYPE_CHECKING':
            waiting += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f'{node.module}.{alias.name}'
                yield inner if inner in MODULES else node.module
        elif functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += ast.iter_child_nodes(node)


IMPORTS = {name: set(imported(path)) for name, path in MODULES.items()}


def folder(name):
    """Returns the folder of a module of mmadv, or the module where it is in none; the empty text for mmadv itself."""
    return name.split('.')[1] if '.' in name else ''


def test_every_folder_has_its_place():
    assert {folder(name) for name in MODULES} - BASE == {*LAYERS, 'commands', 'mm_registry', '__main__', ''}


@pytest.mark.parametrize('layer', LAYERS)
def test_a_folder_imports_only_those_below(layer):
    allowed = LAYERS[layer] | BASE | {layer}
    wrong = [
        f'{name} imports {other}'
        for name, others in IMPORTS.items()
        for other in others
        if folder(name) == layer and other.startswith('mmadv.') and folder(other) not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize('layer', PURE)
def test_a_pure_folder_imports_no_package_of_openmmlab(layer):
    """Loading with mmengine's own loader made safe is a function of ``checkpoints`` that imports it when called."""
    wrong = [
        f'{name} imports {other}'
        for name, path in MODULES.items()
        if folder(name) == layer
        for other in imported(path, functions=False)
        if other.split('.')[0] in MM_PACKAGES
    ]
    assert wrong == []


def test_the_modules_beside_the_folders_import_no_folder():
    wrong = [
        f'{name} imports {other}'
        for name in MODULES
        if folder(name) in BASE
        for other in IMPORTS[name]
        if other.startswith('mmadv.') and folder(other) not in BASE
    ]
    assert wrong == []


def test_nothing_imports_the_commands():
    wrong = [
        name
        for name, others in IMPORTS.items()
        for other in others
        if other.startswith('mmadv.commands') and folder(name) not in ('commands', '__main__')
    ]
    assert wrong == []


def test_no_module_imports_itself_over_others():
    """A package's ``__init__`` gathers names; whoever imports a name from it imports the module behind it."""
    graph = {name: others & MODULES.keys() - {'mmadv'} for name, others in IMPORTS.items() if name != 'mmadv'}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(' -> '.join(reversed(error.args[1])))
