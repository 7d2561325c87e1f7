"""Checks that some code reads every key of a config, so that a misspelt key is an error and not ignored."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import mmseg.registry as registries
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmadv.errors import UserError, nearest
from mmadv.fields import check
from mmadv.models.building import model_settings
from mmadv.models.requirements import check_requirements

# A dict of a config, the keys that its type reads, and whether the type also takes any other key.
Part = tuple[Mapping[str, Any], set[str], bool]
MARKS = {'type', '_scope_', '_delete_'}
# Keys that mmengine's runner and the commands read beside the runner's arguments.
TOP_LEVEL = (set(inspect.signature(Runner).parameters) - {'cfg'}) | {
    'custom_imports',
    'runner_type',
    'model_wrapper_cfg',
    'sync_bn',
    'find_unused_parameters',
    'compile',
    'activation_checkpointing',
    'tta_model',
}
DATALOADER = set(inspect.signature(DataLoader).parameters) | {'num_batch_per_epoch'}
SCHEMAS = {
    'train_dataloader': DATALOADER,
    'val_dataloader': DATALOADER,
    'test_dataloader': DATALOADER,
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'randomness': set(inspect.signature(Runner.set_randomness).parameters) - {'self'},
    'auto_scale_lr': {'base_batch_size', 'enable'},
}
# Keys of model.test_cfg and model.train_cfg that mmseg's segmentors and heads read.
MODEL_CFG = {
    'test_cfg': {'mode', 'crop_size', 'stride', 'subdivision_steps', 'subdivision_num_points', 'scale_factor'},
    'train_cfg': {'num_points', 'oversample_ratio', 'importance_sample_ratio', 'assigner', 'sampler'},
}
# Keys at the top level -> the types of their values; with None the key counts as absent.
KINDS: dict[str, Any] = {
    **dict.fromkeys(('model', 'data_preprocessor', 'train_dataloader', 'val_dataloader', 'test_dataloader'), dict),
    **dict.fromkeys(('train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'custom_imports', 'auto_scale_lr'), dict),
    **dict.fromkeys(('env_cfg', 'log_processor', 'visualizer', 'randomness'), dict),
    'default_hooks': dict[str, dict | None],
    'custom_hooks': list[dict] | tuple[dict, ...],
    **dict.fromkeys(('param_scheduler', 'val_evaluator', 'test_evaluator'), dict | list[dict] | tuple[dict, ...]),
    **dict.fromkeys(('default_scope', 'work_dir', 'load_from', 'launcher', 'experiment_name'), str),
    'log_level': str | int,
    'resume': bool,
}
# Configs of layers in models -> the keys that mmcv reads beside the arguments of the layer.
LAYERS = {'norm_cfg': {'requires_grad'}, 'act_cfg': set(), 'conv_cfg': set()}
LOOPS = {
    'train_cfg': (
        {'by_epoch'},
        lambda cfg: 'IterBasedTrainLoop' if cfg.get('by_epoch') is False else 'EpochBasedTrainLoop',
    ),
    'val_cfg': (set(), lambda cfg: 'ValLoop'),
    'test_cfg': (set(), lambda cfg: 'TestLoop'),
}


def check_kinds(config: Mapping[str, Any], path: str) -> None:
    """Raises UserError if the value of a top-level key has another type than its reader expects.

    Args:
        config: a whole config.
        path: path of the config file, for the message.
    """
    for key, hint in KINDS.items():
        if config.get(key) is not None:
            check(config[key], hint, f'config {path}: {key}')


def check_config(config: Mapping[str, Any], path: str) -> None:
    """Raises UserError for a key that nothing reads: a misspelt top-level key, or an argument that its type lacks.

    It also raises UserError for a model that does not segment, or that needs a package that is not installed.
    A top-level name that resembles no known key is a variable of the file. A key whose value is None does no harm.

    Args:
        config: a whole config.
        path: path of the config file, for the message.
    """
    check_requirements(config.get('model'), f'config {path}: model')
    known = TOP_LEVEL - {'self'}
    for key, value in config.items():
        if value is not None and key not in known and not _is_derived(key, known):
            _refuse_misspelt(key, known, f'config {path}: nothing reads the key')
    with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmseg'):
        for where, value in _parts(config):
            _check_arguments(value, where, path)
    for key, keys in MODEL_CFG.items():
        for option in (config.get('model') or {}).get(key) or {}:
            if option not in keys:
                _refuse_misspelt(option, keys, f'config {path}: nothing reads', f'model.{key}.')


def check_options(options: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raises UserError for a ``--cfg-options`` key that nothing reads.

    Args:
        options: dotted key -> value.
        before: the config without them.
        after: the config with them.
    """
    for key, value in options.items():
        first, *rest = key.split('.')
        if first not in TOP_LEVEL:
            raise UserError(f'--cfg-options {key}: nothing reads it{_nearest_path(key, before)}')
        if first == 'data_preprocessor' and isinstance((after.get('model') or {}).get(first), Mapping):
            _check_reaches_model(key, rest, value, after)
        parent: Any = dict(before.items())
        for n, part in enumerate((first, *rest)):
            if not isinstance(parent, Mapping):
                break
            if part not in parent:
                # A new key may be right. A new key that resembles its neighbours is misspelt.
                allowed = MARKS | (TOP_LEVEL if n == 0 else MODEL_CFG.get(rest[0], set()))
                if part not in allowed:
                    above = ''.join(f'{one}.' for one in (first, *rest)[:n])
                    _refuse_misspelt(part, set(parent), f'--cfg-options {key}: nothing reads', above)
                break
            parent = parent[part]
        if first == 'model' and len(rest) > 1 and rest[0] in MODEL_CFG:
            keys = MODEL_CFG[rest[0]] | set(before['model'].get(rest[0]) or {})
            if rest[1] not in keys:
                _refuse_misspelt(rest[1], keys, f'--cfg-options {key}: nothing reads', f'model.{rest[0]}.')
                raise UserError(f'--cfg-options {key}: nothing reads it{nearest(rest[1], keys)}')


def _check_reaches_model(key: str, rest: Sequence[str], value: Any, config: Mapping[str, Any]) -> None:
    """Raises UserError if a setting of the top-level preprocessor has no effect because the model has its own."""
    effective: Any = model_settings(config).data_preprocessor
    for part in rest:
        effective = effective.get(part) if isinstance(effective, Mapping) else None
    if not rest or effective != value:
        raise UserError(
            f'--cfg-options {key}: the model has a data preprocessor of its own, which counts; '
            f"did you mean 'model.{key}'?"
        )


def _parts(config: Mapping[str, Any]) -> Iterable[tuple[str, Part]]:
    """Yields the place of each checked dict, and the dict with the keys that it may hold."""
    for key, keys in SCHEMAS.items():
        if isinstance(config.get(key), Mapping):
            yield key, (config[key], keys, False)
    for key, (more, default) in LOOPS.items():
        loop = config.get(key)
        if isinstance(loop, Mapping):
            kind = _find(loop.get('type') or default(loop), [registries.LOOPS])
            keys, is_open = arguments_of(kind)
            yield key, (loop, keys - {'runner', 'dataloader', 'evaluator'} | more, is_open)
    yield from _typed(config)


def _typed(config: Mapping[str, Any]) -> Iterable[tuple[str, Part]]:
    data = [registries.DATASETS, registries.TRANSFORMS]
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        yield from _walk((config.get(key) or {}).get('dataset'), f'{key}.dataset', data, everywhere=True)
    models = [registries.MODELS]
    for where in (('data_preprocessor',), ('model',)):
        yield from _walk(config.get(where[0]), where[0], models)
    model = config.get('model') or {}
    for key in ('backbone', 'neck', 'decode_head', 'auxiliary_head', 'data_preprocessor'):
        if isinstance(model, Mapping):
            yield from _walk(model.get(key), f'model.{key}', models)
    yield from _layers(model, 'model')
    for key in ('val_evaluator', 'test_evaluator'):
        yield from _walk(config.get(key), key, [registries.METRICS])
    hooks = config.get('default_hooks') or {}
    for name, hook in hooks.items() if isinstance(hooks, Mapping) else ():
        yield from _walk(hook, f'default_hooks.{name}', [registries.HOOKS], {'priority'})
    yield from _walk(config.get('custom_hooks'), 'custom_hooks', [registries.HOOKS], {'priority'})
    more = {'convert_to_iter_based'}
    yield from _walk(config.get('param_scheduler'), 'param_scheduler', [registries.PARAM_SCHEDULERS], more)
    wrapper = config.get('optim_wrapper')
    if isinstance(wrapper, Mapping):
        wrapper = {'type': 'OptimWrapper', **wrapper}
        more = {'constructor', 'paramwise_cfg'}
        yield from _walk(wrapper, 'optim_wrapper', [registries.OPTIM_WRAPPERS], more)
        yield from _walk(wrapper.get('optimizer'), 'optim_wrapper.optimizer', [registries.OPTIMIZERS])


def _walk(
    value: Any, where: str, kinds: Sequence[Registry], more: Iterable[str] = (), *, everywhere: bool = False
) -> Iterable[tuple[str, Part]]:
    """Yields a typed dict, or those of a list, with the keys that their types take; ``everywhere`` adds nested ones."""
    if isinstance(value, (list, tuple)):
        for n, part in enumerate(value):
            yield from _walk(part, f'{where}.{n}', kinds, more, everywhere=everywhere)
    elif isinstance(value, Mapping):
        if value.get('type') is not None:
            keys, is_open = arguments_of(_find(value['type'], kinds))
            yield where, (value, keys | set(more), is_open)
        for key, part in value.items() if everywhere else ():
            yield from _walk(part, f'{where}.{key}', kinds, everywhere=True)


def _layers(value: Any, where: str) -> Iterable[tuple[str, Part]]:
    """Yields the configs of layers inside a model, with the arguments of the registered layers."""
    for key, part in _items(value):
        if key in LAYERS and isinstance(part, Mapping) and part.get('type') is not None:
            keys, is_open = arguments_of(_find(part['type'], [registries.MODELS]))
            yield f'{where}.{key}', (part, keys | LAYERS[key], is_open)
        else:
            yield from _layers(part, f'{where}.{key}')


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    """Returns the items of a dict or list with their keys or indexes; nothing for any other value."""
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, (list, tuple)) else ()


def _find(kind: Any, kinds: Sequence[Registry]) -> Any:
    """Returns the class or function of a type; None if it is not registered, which is an error when it is built."""
    if not isinstance(kind, str):
        return kind
    return next((registered for registry in kinds if (registered := registry.get(kind)) is not None), None)


def arguments_of(kind: Callable[..., Any] | None) -> tuple[set[str], bool]:
    """Returns the names of the arguments that a class or function reads, and whether it may read others.

    If ``**kwargs`` only go to ``super().__init__``, the arguments of the base class count. If no code uses them, they
    read nothing.
    """
    if kind is None:
        return set(), True
    if not inspect.isclass(kind):
        parameters = inspect.signature(kind).parameters.values()
        return {one.name for one in parameters}, any(one.kind is one.VAR_KEYWORD for one in parameters)
    names: set[str] = set()
    for base in kind.__mro__:
        if '__init__' not in vars(base) or base is object:
            continue
        constructor = inspect.unwrap(vars(base)['__init__'])
        own = list(inspect.signature(constructor).parameters.values())[1:]
        names |= {one.name for one in own if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
        rest = [one.name for one in own if one.kind is one.VAR_KEYWORD]
        use = _use_of(constructor, rest[0]) if rest else 'nothing'
        if use != 'super':
            return names, use == 'other'
    return names, False


@functools.cache
def _use_of(constructor: Callable[..., Any], name: str) -> str:
    """Returns how a constructor uses its ``**name``: 'nothing', 'super' or 'other'."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(constructor)))
    except (OSError, TypeError, SyntaxError):
        return 'other'
    uses = sum(isinstance(node, ast.Name) and node.id == name for node in ast.walk(tree))
    passed = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith('super('):
            passed += sum(word.arg is None and ast.unparse(word.value) == name for word in node.keywords)
    return 'nothing' if not uses else 'super' if uses == passed == 1 else 'other'


def _check_arguments(part: Part, where: str, path: str) -> None:
    value, keys, is_open = part
    kind = value.get('type')
    name = getattr(kind, '__name__', kind)
    whose = f'config {path}: {where}: ' + (f'{name} has no argument' if name else 'nothing reads the key')
    for key in value:
        if key in keys or key in MARKS:
            continue
        if not is_open:
            raise UserError(f"{whose} '{key}'{nearest(key, keys)}")
        _refuse_misspelt(key, keys, whose)


def _refuse_misspelt(key: str, known: Iterable[str], what: str, prefix: str = '') -> None:
    near = sorted((distance(key, name), name) for name in known if len(name) > 2)
    if near and 0 < near[0][0] <= (1 if len(near[0][1]) <= 4 else 2):
        raise UserError(f"{what} '{prefix}{key}'; did you mean '{prefix}{near[0][1]}'?")


def _is_derived(key: str, known: Iterable[str]) -> bool:
    """Returns whether a name is a known key with a prefix or suffix, such as ``model_1`` or ``base_model``."""
    return key.rstrip('0123456789') in known or any(
        key.startswith((f'{name}_', f'_{name}')) or key.endswith(f'_{name}') for name in known
    )


def _nearest_path(key: str, config: Mapping[str, Any]) -> str:
    """Returns a hint that names a key of the config with the same ending, or the nearest top-level key."""
    last = key.rpartition('.')[2]
    alike = [path for path in _paths(config) if path.rpartition('.')[2] == last and path != key]
    if alike:
        words = set(key.split('.'))
        best = max(alike, key=lambda path: (len(words & set(path.split('.'))), path.startswith('test_'), -len(path)))
        return f"; did you mean '{best}'?"
    return nearest(key.partition('.')[0], TOP_LEVEL)


def _paths(value: Any, prefix: str = '') -> Iterable[str]:
    """Yields the dotted paths of the dicts that some code reads."""
    for key, part in value.items():
        if prefix or key in TOP_LEVEL:
            yield f'{prefix}{key}'
            if isinstance(part, Mapping):
                yield from _paths(part, f'{prefix}{key}.')


def distance(one: str, other: str) -> int:
    """Returns the edit distance of two words: letters to insert, delete, replace or swap with a neighbour.

    >>> distance('trian_cfg', 'train_cfg'), distance('mod', 'mode')
    (1, 1)
    """
    rows = [list(range(len(other) + 1))]
    for i, a in enumerate(one, start=1):
        row = [i]
        for j, b in enumerate(other, start=1):
            best = min(rows[-1][j] + 1, row[j - 1] + 1, rows[-1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]
