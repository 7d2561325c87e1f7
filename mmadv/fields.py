"""Values checked against type annotations: fields of components, arguments of functions, content of JSON files.

The module is pure Python. ``checked`` makes a class, function or method compare its arguments with its annotations.
The check runs in every call: in Python, from a config, or from the text of a command line. Python itself takes
``random_start='no'`` for true. ``mmadv.shapes`` has the annotations of tensors and arrays.
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

# A larger number is a typing error: no seed has more than 64 bits, and no size or weight is as large.
LARGEST_INTEGER = 2**64 - 1
LARGEST_NUMBER = 1e12


@dataclass(frozen=True)
class Range:
    """In ``Annotated``: the numbers from ``low`` to ``high``; ``open_low`` and ``open_high`` exclude the ends."""

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
    """Returns a number as text, without an exponent if it is a whole number."""
    return str(int(number)) if float(number).is_integer() and abs(number) < 1e15 else f'{number:g}'


@dataclass(frozen=True)
class Prefix:
    """In ``Annotated``: a text that begins with ``text``."""

    text: str

    def fits(self, value: Any) -> bool:
        """Returns whether a text begins with the prefix."""
        return value.startswith(self.text)

    def __str__(self) -> str:
        return f"that begins with '{self.text}'"


@dataclass(frozen=True)
class Filled:
    """In ``Annotated``, for a container: it has at least one item."""

    def fits(self, value: Any) -> bool:
        """Returns whether a container has an item."""
        return len(value) > 0

    def __str__(self) -> str:
        return 'at least one'


@dataclass(frozen=True)
class Parsed:
    """In ``Annotated``: the class itself parses the given text or number, and reports what is wrong with it."""


@dataclass(frozen=True)
class MayBeAbsent:
    """In ``Annotated``, for an entry of a ``TypedDict``: the key may be missing."""


@dataclass(frozen=True)
class Mismatch:
    """A place where a value does not fit: its path below the value, the expected value, and the value found.

    Attributes:
        path: path of the place below the value.
        expected: the expected value in words.
        value: the value found.
        text: text for the value found, if not its repr.
    """

    path: str
    expected: str
    value: Any
    text: str | None = None

    def __str__(self) -> str:
        return f'must be {self.expected}; found {shown(self.value) if self.text is None else self.text}'


# Sizes of the arguments of one call: letter -> (size, the argument that has it).
Sizes = dict[str, tuple[Any, str]]


class Sized:
    """In ``Annotated``: the value has sizes that other arguments of the call must have too."""

    def compare(self, value: Any, name: str, sizes: Sizes) -> Mismatch | None:
        """Returns where a value's sizes differ from those of earlier arguments; adds the value's to ``sizes``."""
        raise NotImplementedError


class Judge(Sized):
    """In ``Annotated``: checks more than a value's type, as tensors need it; ``expected`` ends with its text."""

    def judge(self, value: Any, path: str, hint: Any) -> Mismatch | None:
        """Returns where a value of the right type does not fit the annotation, None if it fits."""
        raise NotImplementedError


# Same meaning as in typing of Python 3.11; Python 3.10 does not have it.
NotRequired = typing.Annotated[V, MayBeAbsent()]
Share = typing.Annotated[float, Range(0, 1)]
Probability = typing.Annotated[float, Range(0, 1, open_low=True, open_high=True)]
Positive = typing.Annotated[int, Range(1)]
NotNegative = typing.Annotated[int, Range(0)]
PositiveNumber = typing.Annotated[float, Range(0, open_low=True)]
NotNegativeNumber = typing.Annotated[float, Range(0)]
# A value of an 8-bit label map.
Label = typing.Annotated[int, Range(0, 255)]
# A stage of a backbone with four stages.
Stage = typing.Annotated[int, Range(0, 3)]
# Name of a term of the training loss. MMSeg logs a term with another name, but leaves it out of the sum.
LossName = typing.Annotated[str, Prefix('loss_')]
# A label, or a value that means no label.
IgnoreIndex = typing.Annotated[int, Range(-(2**31), 2**31 - 1)]
# A seed that generators accept.
Seed = typing.Annotated[int, Range(0, LARGEST_INTEGER)]
# The stages that output their features.
Stages = typing.Annotated[Sequence[Stage], Filled()]
# A radius or step size in its written form, such as '4/255'; the class converts it into a number.
Radius = typing.Annotated[float, Parsed()]
# The same for an argument of a function; a type checker accepts a text too.
WrittenRadius = typing.Annotated[str | float, Parsed()]


def mismatch(value: Any, hint: Any, path: str = '', *, exact: bool = False) -> Mismatch | None:
    """Returns where a value does not fit an annotation, None if it fits.

    The check is stricter than Python: bool, NaN and infinity are not numbers, and a text is not a sequence. A list fits
    a tuple. Unless ``exact``, any value fits a class of a package, as the class may be built from the value.

    >>> mismatch('no', bool)
    Mismatch(path='', expected='True or False', value='no', text=None)
    >>> mismatch([1, 2.5], tuple[int, int])
    Mismatch(path='[1]', expected='an integer', value=2.5, text=None)

    Args:
        value: any value.
        hint: a type, ``Literal``, ``Annotated`` with ``Range``, a union, a container of these, or a ``TypedDict``.
        path: path of the value in the whole that it is part of.
        exact: whether a class accepts only its own instances.
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
        value: any value.
        hint: as for ``mismatch``.
        name: the value's name in the message, such as 'PGD.random_start'.
        exact: as for ``mismatch``.
    """
    misfit = mismatch(value, hint, exact=exact)
    if misfit is not None:
        raise UserError(f'{name}{misfit.path} {misfit}')


def checked(entry: T) -> T:
    """Makes a class, function or method check its annotated arguments whenever it is called; use as a decorator.

    The decorator changes a class in place, so its repr, pickling and subclasses stay the same. A class without an
    ``__init__`` checks the arguments of the inherited one. A class that passes ``**settings`` on checks them too, with
    the annotations of its bases. A class accepts configs in place of other components. A function or method accepts
    only objects, and compares the sizes of its tensors with each other.

    Raises:
        UserError: a call has an argument that does not fit, is unknown or is missing. The message names the argument.
    """
    return _checked(entry, exact=not inspect.isclass(entry))


def checked_exactly(entry: T) -> T:
    """Does the same as ``checked``, for a class that no config describes: it accepts only objects."""
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
    """Returns the annotations of a class's arguments; each is resolved in the module that defines it."""
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
            # An argument whose default is None accepts None, even if its annotation does not say so.
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
    """Returns an annotation's note on sizes, also from a union with None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(filter(None, map(_sized, typing.get_args(hint))), None)
    return next((note for note in getattr(hint, '__metadata__', ()) if isinstance(note, Sized)), None)


def _name_of_method(owner: Any, name: str) -> str:
    """Returns a method's name in messages: class and name, or only the class for ``__call__`` and ``forward``."""
    kind = (owner if inspect.isclass(owner) else type(owner)).__name__
    return kind if name in ('__call__', 'forward') else f'{kind}.{name}'


def _misfit(signature: inspect.Signature, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Returns which argument of a call is unknown or missing, None if something else is wrong."""
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
    """Returns a description of the values that fit an annotation.

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


# The keys are names, so that this module need not import torch or numpy.
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
    # A config may stand for the component that is built from it. An error in the config is reported when it is built.
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
    # An error inside a container says more than the message that the value is not None.
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
    if not issubclass(origin, Iterable):  # a type has no items to check
        return None
    # An iterator yields its items only once, so they cannot be checked.
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
    """Checks a value against a ``TypedDict``; ignores keys that the ``TypedDict`` does not have."""
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
