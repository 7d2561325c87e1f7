"""Every public call of a package with every argument spoilt: of another type, size, range or spelling."""

import inspect
import math
import types

import numpy as np
import torch

from mmadv.errors import UserError

# name -> a value of no type that an argument has, or out of the range of any.
WRONG = {
    "'no'": 'no',
    "''": '',
    '[]': [],
    '{}': {},
    '[None]': [None],
    '-1': -1,
    '-0.5': -0.5,
    '10**30': 10**30,
    '1e30': 1e30,
    'nan': math.nan,
    'inf': math.inf,
    'None': None,
    '2.5': 2.5,
    '0': 0,
    'True': True,
    'object': object(),
}


def public_calls(package):
    """Returns name -> function of everything public that can be called: functions, constructors and methods.

    Constructors that check themselves already when they are registered have tests of their own.
    """
    names = getattr(package, '__all__', None) or [
        name for name, value in vars(package).items() if getattr(value, '__module__', '') == package.__name__
    ]
    calls = {}
    for name in names:
        value = getattr(package, name)
        if inspect.isclass(value):
            calls |= _calls_of_class(value)
        elif callable(value) and not name.startswith('_'):
            calls[name] = value
    return {name: call for name, call in calls.items() if _arguments(call)}


def _calls_of_class(owner):
    # Of a class that inherits its constructor, the base's.
    calls = {owner.__name__: owner} if owner.__init__ is not object.__init__ else {}
    for name in dir(owner):
        if name.startswith('_') and name != '__call__':
            continue
        method = inspect.getattr_static(owner, name)
        method = getattr(method, '__func__', method)
        if isinstance(method, types.FunctionType) and method.__module__.startswith('mmadv.'):
            calls[method.__qualname__] = method
    return calls


def _arguments(call):
    return [name for name in inspect.signature(call).parameters if name not in ('self', 'cls')]


def spoilt(value):
    """Returns label -> value, for everything that cannot stand in place of a right value."""
    values = dict(WRONG)
    if isinstance(value, torch.Tensor):
        values |= _spoilt_tensors(value)
        values['numpy'] = value.detach().numpy()
    elif isinstance(value, np.ndarray):
        values |= {f'array {key}': one.numpy() for key, one in _spoilt_tensors(torch.from_numpy(value)).items()}
        values['tensor'] = torch.from_numpy(value)
    elif isinstance(value, str):
        values['misspelt'] = f'{value}x'
    elif isinstance(value, (list, tuple)) and value:
        values |= {
            'one less': value[:-1],
            'one more': [*value, value[-1]],
            'texts': [str(one) for one in value],
            'reals': [0.5 for _ in value],
            'nans': [math.nan for _ in value],
            'booleans': [True for _ in value],
            'negative': [-3 for _ in value],
        }
    elif isinstance(value, dict) and value:
        first = next(iter(value))
        values |= {
            'value None': {**value, first: None},
            'value text': {**value, first: 'no'},
            'key 3': {3: value[first]},
        }
    return values


def _spoilt_tensors(tensor):
    values = {'without a dimension': tensor[0] if tensor.ndim else tensor, 'another dimension': tensor[None]}
    if tensor.ndim:
        values |= {'smaller batch': tensor[:-1], 'empty': tensor[:0]}
    if tensor.ndim > 1:
        values |= {'narrower': tensor[..., :-1], 'lower': tensor[..., :-1, :] if tensor.ndim > 2 else tensor[..., :0]}
        values['without width'] = tensor[..., :0]
    if tensor.is_floating_point():
        values |= {
            'integers': (tensor * 10).long(),
            'bytes': (tensor * 255).clamp(0, 255).byte(),
            'half': tensor.half(),
            'complex': tensor.to(torch.complex64),
            'with nan': with_one(tensor, math.nan),
            'with inf': with_one(tensor, math.inf),
            'in 0..255': tensor * 255,
            'negative': tensor - 1.5,
        }
    elif tensor.dtype != torch.bool:
        values |= {
            'floats': tensor.double(),
            'booleans': tensor > 0,
            'complex': tensor.to(torch.complex64),
            'too large': with_one(tensor, 77),
            'negative': with_one(tensor, -7),
        }
    else:
        values |= {'floats': tensor.double(), 'integers': tensor.long()}
    return values


def with_one(tensor, number):
    """Returns a copy of a tensor whose first value is another number."""
    copy = tensor.clone()
    copy.view(-1)[:1] = number
    return copy


def outcomes(call, argument):
    """Returns what a call does with each spoilt value of an argument, label -> outcome.

    The outcome is None for one sentence that names an argument of the call, 'accepted', or the text of another error.

    Args:
        call: returns a callable and its right arguments.
        argument: which one is spoilt; 'misspelt' for its name.
    """
    function, arguments = call()
    if argument == 'misspelt':
        values = {'keyword': 1}
    else:
        parameter = inspect.signature(function).parameters.get(argument)
        default = parameter.default if parameter is not None else parameter
        values = spoilt(arguments[argument])
        values = {label: value for label, value in values.items() if value is not None or default is not None}
    actual = {}
    for label, value in values.items():
        function, arguments = call()
        name = argument if argument != 'misspelt' else f'{next(iter(arguments))}x'
        try:
            function(**{**arguments, name: value})
        except UserError as error:
            named = any(key.removesuffix('s') in str(error) for key in arguments)
            actual[label] = None if named and '\n' not in str(error) else f'unclear: {error}'
        except Exception as error:
            actual[label] = f'{type(error).__name__}: {error}'[:150]
        else:
            actual[label] = 'accepted'
    return actual


def rights(*groups):
    """Returns (name, argument) -> labels of the values that are right there, from groups with a reason each.

    Args:
        groups: (reason, labels with bars between them, 'name.argument' ...).
    """
    actual = {}
    for _, labels, *places in groups:
        for place in places:
            name, _, argument = place.rpartition('.')
            actual.setdefault((name, argument), set()).update(labels.split('|'))
    return actual


def check_refused(table, right, name, argument):
    """Asserts that every spoilt value is refused in a clear sentence, but for those that are right."""
    results = outcomes(table[name], argument)
    actual = {label for label, outcome in results.items() if outcome is not None}
    allowed = right.get((name, argument), set())
    assert actual <= allowed, {label: results[label] for label in actual - allowed}
    assert allowed <= actual, f'{name}.{argument} refuses {sorted(allowed - actual)}, which need no leave'


def check_complete(package, table, exempt):
    """Asserts that a table has every public call of a package but the exempt ones, and every argument of each."""
    calls = public_calls(package)
    assert sorted(set(calls) - set(table) - set(exempt)) == [], 'add a right call to the table'
    assert sorted((set(table) | set(exempt)) - set(calls)) == [], 'there is no such call any more'
    for name, call in table.items():
        given = call()[1]
        parameters = inspect.signature(calls[name]).parameters.values()
        named = [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
        assert [one for one in named if one not in ('self', 'cls', *given)] == [], name


def cases(table):
    """Returns (name of the call, argument) for every argument of a table, and 'misspelt' for each call."""
    return [(name, argument) for name, call in table.items() for argument in (*call()[1], 'misspelt')]
