"""Values against annotations: what fits, what does not, and how the sentence reads."""

import math
import pickle
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypedDict

import pytest

from mmadv.errors import UserError
from mmadv.fields import NotRequired, Parsed, Range, check, checked, mismatch


class Part(TypedDict):
    share: Annotated[float, Range(0, 1)]
    name: NotRequired[str | None]


class Anything:
    """A value of no type that a field has; its text is the same in every process."""

    def __repr__(self):
        return 'anything'


OBJECT = Anything()
FITTING = [
    (True, bool),
    (3, int),
    (3, float),
    (0.5, Annotated[float, Range(0, 1)]),
    ('x', Literal['x', 'y']),
    (None, int | None),
    ([1, 2], tuple[int, int]),
    ((), tuple[int, ...]),
    ({'a': [1.5]}, dict[str, list[float]]),
    ({'share': 1, 'more': OBJECT}, Part),
    ('4/255', Annotated[float, Parsed()]),
    (OBJECT, Any),
]
UNFIT = [
    ('no', bool, "value must be True or False; found 'no' (text)"),
    (1, bool, 'must be True or False; found 1'),
    (True, int, 'must be an integer; found True'),
    (2.0, int, 'must be an integer; found 2.0'),
    (10**30, int, 'must be an integer'),
    (math.nan, float, 'must be a finite number; found nan'),
    (math.inf, float, 'must be a finite number; found inf'),
    ('0.5', float, "must be a finite number; found '0.5' (text)"),
    (1.5, Annotated[float, Range(0, 1)], r'must be a finite number in [0, 1]; found 1.5'),
    (0, Annotated[int, Range(0, open_low=True)], 'must be an integer more than 0; found 0'),
    ('z', Literal['x', 'y'], "must be 'x' or 'y'; found 'z' (text)"),
    ('ab', list[str], "must be a list of texts; found 'ab' (text)"),
    ([1], tuple[int, int], 'must be 2 integers; found [1]'),
    ([1, 'a'], tuple[int, ...], "value[1] must be an integer; found 'a' (text)"),
    ({'a': {'b': 'c'}}, dict[str, dict[str, int]], "value.a.b must be an integer; found 'c' (text)"),
    ({'a': ['b']}, dict[str, list[int]] | None, "value.a[0] must be an integer; found 'b' (text)"),
    ([], Part, 'must be a dict; found []'),
    ({}, Part, "must be a dict with 'share'; found {}"),
    ({'share': -1}, Part, 'value.share must be a finite number in [0, 1]; found -1'),
    ('\x1b[2J\n', int, r"found '\x1b[2J\n' (text)"),
]


@pytest.mark.parametrize(('value', 'hint'), FITTING, ids=repr)
def test_what_fits(value, hint):
    assert mismatch(value, hint) is None


@pytest.mark.parametrize(('value', 'hint', 'sentence'), UNFIT, ids=repr)
def test_what_does_not_fit_is_told(value, hint, sentence):
    with pytest.raises(UserError) as caught:
        check(value, hint, 'value')
    assert sentence in str(caught.value)
    assert str(caught.value).isprintable()


@checked
@dataclass(frozen=True, kw_only=True)
class Setting:
    on: bool = False
    steps: int = 3


@checked
@dataclass(frozen=True, kw_only=True)
class Further(Setting):
    share: float = 0.5


@checked
def built(steps: int, *rest: str, on: bool = False, **more: int) -> tuple:
    return steps, rest, on, more


def test_checked_components_stay_what_they_are():
    further = Further(on=True)
    assert repr(further) == 'Further(on=True, steps=3, share=0.5)'
    assert pickle.loads(pickle.dumps(further)) == further == replace(further, steps=3)
    for make, name in (
        (lambda: Setting(on='no'), 'Setting.on must be True or False'),
        (lambda: Further(steps='3'), 'Further.steps must be an integer'),
        (lambda: replace(further, share='half'), 'Further.share must be a finite number'),
        (lambda: built('3'), 'built.steps must be an integer'),
        (lambda: built(3, on=0), 'built.on must be True or False'),
    ):
        with pytest.raises(UserError, match=name):
            make()
    assert built(3, 'a', on=True, other=1) == (3, ('a',), True, {'other': 1})
    with pytest.raises(UserError, match="Setting has no argument 'stepz'"):
        Setting(stepz=3)
