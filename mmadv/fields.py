"""Values checked against type annotations: fields of components, arguments of functions, content of JSON files.

Pure Python. ``checked`` makes a class, function or method compare what it is given with its own annotations, wherever
it is called: in Python, from a config, or from text of a command line. Python itself takes ``random_start='no'`` for
true. ``mmadv.shapes`` has the annotations of tensors and arrays.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, TypeVar

from mmadv.errors import UserError, nearest
from mmadv.printing import printable, shown

T = TypeVar('T', bound=Callable[..., Any])
V = TypeVar('V')

# Beyond these a number is a slip of the keyboard: no seed has more than 64 bits, no size or weight is as large.
LARGEST_INTEGER = 2**64 - 1
LARGEST_NUMBER = 1e12


@dataclass(frozen=True)
class Range:
    """In ``Annotated``: the numbers from ``low`` to ``high``, each end with or without itself."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def fits(self, value: Any) -> bool:
        """Returns whether a number, or text to be parsed later, is in the range."""
        if not isinstance(value, (int, float)):
            return True
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        if self.high == math.inf:
            return f'{"more than" if self.open_low else "at least"} {_plain(self.low)}'
        ends = '(' if self.open_low else '[', ')' if self.open_high else ']'
        return f'in {ends[0]}{_plain(self.low)}, {_plain(self.high)}{ends[1]}'


def _plain(number: float) -> str:
    """Returns a number without an exponent where it is a whole one."""
    return str(int(number)) if float(number).is_integer() and abs(number) < 1e15 else f'{number:g}'


@dataclass(frozen=True)
class Prefix:
    """In ``Annotated``: a text that begins with another one."""

    text: str

    def fits(self, value: Any) -> bool:
        """Returns whether a text begins so."""
        return value.startswith(self.text)

    def __str__(self) -> str:
        return f"that begins with '{self.text}'"


@dataclass(frozen=True)
class Filled:
    """In ``Annotated``, of a container: it holds something."""

    def fits(self, value: Any) -> bool:
        """Returns whether it does."""
        return len(value) > 0

    def __str__(self) -> str:
        return 'at least one'


@dataclass(frozen=True)
class Parsed:
    """In ``Annotated``: the class itself parses what it is given, text or number, and says what is wrong with it."""


@dataclass(frozen=True)
class MayBeAbsent:
    """In ``Annotated``, of an entry of a ``TypedDict``: the key may be missing."""


@dataclass(frozen=True)
class Mismatch:
    """Where a value does not fit: the path below the value, what is expected there, and what is there.

    Attributes:
        path: below the value.
        expected: in words.
        value: what is there.
        text: what to call it, if not by its repr.
    """

    path: str
    expected: str
    value: Any
    text: str | None = None

    def __str__(self) -> str:
        return f'must be {self.expected}; found {shown(self.value) if self.text is None else self.text}'


# Of the arguments of one call: letter -> (size, the argument that has it).
Sizes = dict[str, tuple[Any, str]]


class Sized:
    """In ``Annotated``: has sizes that other arguments of the call must have too."""

    def compare(self, value: Any, name: str, sizes: Sizes) -> Mismatch | None:
        """Returns where a value has other sizes than arguments before it; adds its own to ``sizes``."""
        raise NotImplementedError


class Judge(Sized):
    """In ``Annotated``: judges more of a value than its type, as tensors need it; its text ends what is expected."""

    def judge(self, value: Any, path: str, hint: Any) -> Mismatch | None:
        """Returns where a value of the right type does not fit the annotation, None where it does."""
        raise NotImplementedError


# As that of Python 3.11, for 3.10 too.
NotRequired = typing.Annotated[V, MayBeAbsent()]
Share = typing.Annotated[float, Range(0, 1)]
Probability = typing.Annotated[float, Range(0, 1, open_low=True, open_high=True)]
Positive = typing.Annotated[int, Range(1)]
NotNegative = typing.Annotated[int, Range(0)]
PositiveNumber = typing.Annotated[float, Range(0, open_low=True)]
NotNegativeNumber = typing.Annotated[float, Range(0)]
# A value of a label map of 8 bits.
Label = typing.Annotated[int, Range(0, 255)]
# A stage of a backbone with four of them.
Stage = typing.Annotated[int, Range(0, 3)]
# Of a term of a training loss: others MMSeg logs, and drops from the sum.
LossName = typing.Annotated[str, Prefix('loss_')]
# A label, or what stands for none.
IgnoreIndex = typing.Annotated[int, Range(-(2**31), 2**31 - 1)]
# What generators take.
Seed = typing.Annotated[int, Range(0, LARGEST_INTEGER)]
# Which stages hand on their features.
Stages = typing.Annotated[Sequence[Stage], Filled()]
# A radius or step size as it is written, '4/255', which the class turns into a number.
Radius = typing.Annotated[float, Parsed()]
# The same as an argument of a function: a type checker takes a text too.
WrittenRadius = typing.Annotated[str | float, Parsed()]


def mismatch(value: Any, hint: Any, path: str = '', *, exact: bool = False) -> Mismatch | None:
    """Returns where a value does not fit an annotation, None where it does.

    Stricter than Python: a bool is no number, NaN and infinity are none either, a text is no sequence. A list does for
    a tuple. Unless ``exact``, anything does for a class of a package, which may be built from it.

    >>> mismatch('no', bool)
    Mismatch(path='', expected='True or False', value='no', text=None)
    >>> mismatch([1, 2.5], tuple[int, int])
    Mismatch(path='[1]', expected='an integer', value=2.5, text=None)

    Args:
        value: any.
        hint: a type, ``Literal``, ``Annotated`` with ``Range``, a union, a container of these, or a ``TypedDict``.
        path: of the value in what it is part of.
        exact: whether only its instances fit a class.
    """
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _annotated(value, hint, path, exact)
    if origin in (typing.Union, types.UnionType):
        return _union(value, hint, path, exact)
    if origin is None:
        fits = typing.is_typeddict(hint) or _fits_plain(value, hint, exact)
        if not fits:
            return Mismatch(path, expected(hint), value)
        return _entries(value, hint, path, exact) if typing.is_typeddict(hint) else None
    if origin is Literal:
        fits = any(value == one and type(value) is type(one) for one in typing.get_args(hint))
        return None if fits else Mismatch(path, expected(hint), value)
    return _container(value, hint, path, exact)


def check(value: Any, hint: Any, name: str, *, exact: bool = False) -> None:
    """Raises UserError unless a value fits an annotation.

    Args:
        value: any.
        hint: as for ``mismatch``.
        name: of the value, such as 'PGD.random_start'.
        exact: as for ``mismatch``.
    """
    misfit = mismatch(value, hint, exact=exact)
    if misfit is not None:
        raise UserError(f'{name}{misfit.path} {misfit}')


def checked(entry: T) -> T:
    """Makes a class, function or method check its annotated arguments whenever it is called; use as a decorator.

    A class is changed in place, so that its repr, pickling and subclasses stay as they are. One without an ``__init__``
    checks the arguments of the one it inherits; one that passes ``**settings`` on checks them too, as its
    bases annotate them. A class takes configs in place of other components. A function or method takes objects alone,
    and compares the sizes of its tensors with each other.

    Raises:
        UserError: when called with an argument that does not fit, is unknown or missing; names it.
    """
    return _checked(entry, exact=not inspect.isclass(entry))


def checked_exactly(entry: T) -> T:
    """As ``checked``, for a class that no config describes: it takes objects alone."""
    return _checked(entry, exact=True)


def _checked(entry: T, *, exact: bool) -> T:
    if not inspect.isclass(entry):
        hints = functools.partial(_hints_of_call, entry)
        return typing.cast(T, _guarded(entry, entry.__name__, hints, exact))
    if entry.__init__ is not object.__init__:
        hints = functools.partial(_hints, entry)
        type.__setattr__(entry, '__init__', _guarded(entry.__init__, entry.__name__, hints, exact))
    return entry


def _hints_of_call(call: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(call, include_extras=True)


def _hints(owner: type) -> dict[str, Any]:
    """Returns the annotations of a class's arguments; of a dataclass each in the terms of the module that wrote it."""
    try:
        if is_dataclass(owner):
            return typing.get_type_hints(owner, include_extras=True)
        hints: dict[str, Any] = {}
        for base in owner.__mro__:
            if '__init__' not in vars(base) or base is object:
                continue
            call = inspect.unwrap(vars(base)['__init__'])
            hints = {**typing.get_type_hints(call, include_extras=True), **hints}
            if not any(one.kind is one.VAR_KEYWORD for one in inspect.signature(call).parameters.values()):
                break
        return hints
    except NameError as error:
        raise TypeError(f'{owner.__name__}: an annotation cannot be read ({error}); import it at run time') from error


def _guarded(
    call: Callable[..., Any], name: str, hints: Callable[[], dict[str, Any]], exact: bool
) -> Callable[..., Any]:
    signature = inspect.signature(call)
    parameters = signature.parameters.values()
    defaults = {one.name: one.default for one in parameters}
    positional = next((one.name for one in parameters if one.kind is one.VAR_POSITIONAL), '')
    keywords = next((one.name for one in parameters if one.kind is one.VAR_KEYWORD), '')
    owned = name == call.__name__ and next(iter(defaults), None) in ('self', 'cls')
    known: dict[str, Any] = {}
    sized: dict[str, Sized] = {}

    @functools.wraps(call)
    def checking(*args: Any, **kwargs: Any) -> Any:
        if not known:
            known.update(hints())
            sized.update((key, note) for key, hint in known.items() if (note := _sized(hint)) is not None)
        whose = _name_of_method(args[0], name) if owned and args else name
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise UserError(_misfit(signature, whose, args, kwargs) or f'{whose}: {error}') from None
        bound.pop(positional, None)
        bound.update(bound.pop(keywords, {}))
        sizes: Sizes = {}
        for argument, value in bound.items():
            # A default of None stands for None in annotations of others.
            if argument not in known or (value is None and defaults.get(argument) is None):
                continue
            check(value, known[argument], f'{whose}.{argument}', exact=exact)
            if argument in sized and value is not None:
                misfit = sized[argument].compare(value, argument, sizes)
                if misfit is not None:
                    raise UserError(f'{whose}.{argument} {misfit}')
        return call(*args, **kwargs)

    return checking


def _sized(hint: Any) -> Sized | None:
    """Returns the note on the sizes of an annotation, also beside None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(filter(None, map(_sized, typing.get_args(hint))), None)
    return next((note for note in getattr(hint, '__metadata__', ()) if isinstance(note, Sized)), None)


def _name_of_method(owner: Any, name: str) -> str:
    """Returns what messages call a method: by its class and name, one that stands for a call by its class alone."""
    kind = (owner if inspect.isclass(owner) else type(owner)).__name__
    return kind if name in ('__call__', 'forward') else f'{kind}.{name}'


def _misfit(signature: inspect.Signature, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Returns which argument of a call is unknown or missing, None where something else is wrong."""
    parameters = [one for one in signature.parameters.values() if one.name not in ('self', 'cls')]
    known = [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    unknown = [] if takes_any else [key for key in kwargs if key not in known]
    if unknown:
        return f"{name} has no argument '{printable(unknown[0])}'{nearest(unknown[0], known)}"
    try:
        bound = signature.bind_partial(*args, **kwargs).arguments
    except TypeError:
        return None
    missing = [
        one.name for one in parameters if one.default is one.empty and one.name in known and one.name not in bound
    ]
    return f'{name} needs the argument {", ".join(missing)}' if missing else None


def expected(hint: Any) -> str:
    """Returns what fits an annotation, in words.

    >>> expected(bool | None), expected(tuple[float, ...]), expected(Literal['last', 'best_loss'])
    ('True or False, or None', 'a list of numbers', "'last' or 'best_loss'")
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        inner, *notes = arguments
        judge = next((note for note in notes if isinstance(note, Judge)), None)
        ranges = [str(note) for note in notes if isinstance(note, (Range, Prefix, Filled))]
        return ' '.join([expected(inner), *([str(judge)] if judge else ranges)])
    if origin in (typing.Union, types.UnionType):
        some = [expected(one) for one in arguments if one is not types.NoneType]
        joined = ' or '.join(some)
        return f'{joined}, or None' if len(some) < len(arguments) else joined
    if origin is Literal:
        return ' or '.join(map(repr, arguments))
    if origin is tuple and Ellipsis not in arguments:
        return f'{len(arguments)} {_plural(arguments[0])}'
    if origin is not None and issubclass(origin, Mapping):
        return f'a dict of {_plural(arguments[1])}'
    if origin is Callable:
        return 'a function'
    if origin is not None and issubclass(origin, Iterable):
        return f'a list of {_plural(arguments[0])}'
    if hint in NAMES or typing.is_typeddict(hint):
        return NAMES.get(hint, 'a dict')
    name = getattr(hint, '__name__', str(hint))
    return ARRAYS.get(name) or f'{"an" if name[:1] in "AEIOU" else "a"} {name}'


# By name, to import neither torch nor numpy here.
ARRAYS = {'Tensor': 'a tensor', 'ndarray': 'an array'}
NAMES: dict[Any, str] = {
    bool: 'True or False',
    int: 'an integer',
    float: 'a finite number',
    str: 'a text',
    dict: 'a dict',
    list: 'a list',
    tuple: 'a list',
    types.NoneType: 'None',
    Callable: 'a function',
}
PLURALS = {int: 'integers', float: 'numbers', str: 'texts', bool: 'times True or False'}


def _plural(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Annotated:
        inner, *notes = typing.get_args(hint)
        return ' '.join([_plural(inner), *(str(note) for note in notes if isinstance(note, Range))])
    name = PLURALS.get(hint)
    return name if name else f'items, each {expected(hint)}'


def _fits_plain(value: Any, hint: Any, exact: bool) -> bool:
    if hint is Any or hint is object or isinstance(hint, (TypeVar, str)):
        return True
    if hint is None or hint is types.NoneType:
        return value is None
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_INTEGER
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and abs(value) <= LARGEST_NUMBER  # NaN is not
    if hint is tuple:
        return isinstance(value, (list, tuple))
    if not inspect.isclass(hint):
        return True
    # A component may be given as the config that it is built from; building says what is wrong with that.
    builtin = hint.__module__ in ('builtins', 'collections.abc')
    return isinstance(value, hint) or not (builtin or exact)


def _annotated(value: Any, hint: Any, path: str, exact: bool) -> Mismatch | None:
    inner, notes = hint.__origin__, hint.__metadata__
    if isinstance(notes[0], Parsed):
        return None
    if isinstance(notes[0], Judge):
        misfit = mismatch(value, inner, path, exact=True)
        return Mismatch(path, expected(hint), value) if misfit else notes[0].judge(value, path, hint)
    misfit = mismatch(value, inner, path, exact=exact)
    ranged = any(isinstance(note, Range) for note in notes)
    if misfit is not None:
        return Mismatch(path, expected(hint), value) if ranged and misfit.path == path else misfit
    fits = all(note.fits(value) for note in notes if hasattr(note, 'fits'))
    return None if fits else Mismatch(path, expected(hint), value)


def _union(value: Any, hint: Any, path: str, exact: bool) -> Mismatch | None:
    misfits = []
    for one in typing.get_args(hint):
        misfits.append(mismatch(value, one, path, exact=exact))
        if misfits[-1] is None:
            return None
    # What is wrong within a container says more than that it is no None.
    inner = [one for one in misfits if one and (one.path != path or one.text or one.expected.startswith('a dict with'))]
    return inner[0] if inner else Mismatch(path, expected(hint), value)


def _container(value: Any, hint: Any, path: str, exact: bool) -> Mismatch | None:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            return Mismatch(path, expected(hint), value)
        for key, item in value.items():
            misfit = mismatch(key, arguments[0], f'{path}, a key of it,', exact=exact)
            misfit = misfit or mismatch(item, arguments[1], f'{path}.{printable(str(key))}', exact=exact)
            if misfit:
                return misfit
        return None
    if origin is Callable:
        return None if callable(value) else Mismatch(path, expected(hint), value)
    if not issubclass(origin, Iterable):  # a type: nothing to look into
        return None
    # What is passed once cannot be looked into.
    kinds = (Sequence, Set) if issubclass(origin, Collection) else Iterable
    if isinstance(value, (str, bytes)) or not isinstance(value, kinds):
        return Mismatch(path, expected(hint), value)
    if not isinstance(value, Collection):
        return None
    if origin is tuple and Ellipsis not in arguments:
        if len(value) != len(arguments):
            return Mismatch(path, expected(hint), value)
        hints: Sequence[Any] = arguments
    else:
        hints = [arguments[0]] * len(value)
    pairs = enumerate(zip(value, hints, strict=True))
    return next(filter(None, (mismatch(item, one, f'{path}[{n}]', exact=exact) for n, (item, one) in pairs)), None)


def _may_be_absent(hint: Any) -> bool:
    return any(isinstance(note, MayBeAbsent) for note in getattr(hint, '__metadata__', ()))


@functools.cache
def _typed_dict_hints(hint: Any) -> dict[str, Any]:
    return typing.get_type_hints(hint, include_extras=True)


def _entries(value: Any, hint: Any, path: str, exact: bool) -> Mismatch | None:
    """Checks a ``TypedDict``; keys that it does not have are left to those who know them."""
    if not isinstance(value, Mapping):
        return Mismatch(path, 'a dict', value)
    for key, inner in _typed_dict_hints(hint).items():
        if key in value:
            misfit = mismatch(value[key], inner, f'{path}.{key}', exact=exact)
            if misfit:
                return misfit
        elif not _may_be_absent(inner):
            return Mismatch(path, f"a dict with '{key}'", value)
    return None
