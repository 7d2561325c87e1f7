"""Frozen dataclasses that are written as JSON and read again; what does not fit is named by its key."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Container, Mapping
from functools import cache
from typing import Any, TypeVar

from mmadv.errors import UserError

T = TypeVar('T', bound='Schema')


class InvalidValue(UserError):
    """A JSON value that does not fit its schema; the message names its key."""


def entry(
    *,
    key: str | None = None,
    omit: bool = False,
    keys: Container[str] | None = None,
    default: Any = dataclasses.MISSING,
) -> Any:
    """Returns a field of a ``Schema``.

    Args:
        key: in JSON, where it is not the field's name.
        omit: leave the key out where the value is None.
        keys: the field is a dict of these keys, as far as there are any; they stand beside those of the other fields.
        default: of an absent key.
    """
    return dataclasses.field(default=default, metadata={'key': key, 'omit': omit, 'keys': keys})  # type: ignore[call-overload]


class Schema:
    """Base of frozen dataclasses that JSON holds.

    Fields are texts, numbers, booleans, tuples, dicts with text keys, other schemas, ``None`` beside one of these, and
    ``Any`` for what is left as it is. A field with a default may be absent. Keys that no field has are ignored, so that
    results of a later version can be read.
    """

    @classmethod
    def from_json(cls: type[T], value: Any, where: str = '') -> T:
        """Returns the object of a JSON value.

        Args:
            value: what ``to_json`` returned, perhaps of an earlier version.
            where: key of the value in the whole, for messages.

        Raises:
            InvalidValue: a key is missing, or its value is of another type; names the key.
        """
        if not isinstance(value, Mapping):
            raise InvalidValue(f'{where or "the whole"} must be an object; found {_short(value)}')
        arguments: dict[str, Any] = {}
        for field, hint in _fields(cls):
            name, keys = field.metadata.get('key') or field.name, field.metadata.get('keys')
            path = f'{where}.{name}' if where else name
            if keys is not None:
                chosen = {key: item for key, item in value.items() if key in keys}
                arguments[field.name] = _read(chosen, hint, where)
            elif name in value:
                arguments[field.name] = _read(value[name], hint, path)
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise InvalidValue(f'{path} is missing')
        return cls(**arguments)

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON value of the object, made of dicts, lists, texts and numbers."""
        result: dict[str, Any] = {}
        for field, _ in _fields(type(self)):
            value = getattr(self, field.name)
            if field.metadata.get('keys') is not None:
                result.update(_write(value))
            elif not (field.metadata.get('omit') and value is None):
                result[field.metadata.get('key') or field.name] = _write(value)
        return result


def json_keys(schema: type[Schema]) -> list[str]:
    """Returns the JSON keys of a schema's fields, in order, without those that a field holds as ``keys``."""
    fields = [field for field, _ in _fields(schema) if field.metadata.get('keys') is None]
    return [field.metadata.get('key') or field.name for field in fields]


def inner_schemas(schema: type[Schema]) -> list[type[Schema]]:
    """Returns the schemas that the fields of a schema hold, directly or inside containers."""
    inner: list[type[Schema]] = []
    waiting = [hint for _, hint in _fields(schema)]
    while waiting:
        hint = waiting.pop(0)
        if isinstance(hint, type) and issubclass(hint, Schema):
            inner.append(hint)
        waiting += typing.get_args(hint)
    return inner


@cache
def _fields(schema: type) -> tuple[tuple[dataclasses.Field, Any], ...]:
    hints = typing.get_type_hints(schema)
    return tuple((field, hints[field.name]) for field in dataclasses.fields(schema))


def _read(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (one for one in arguments if one is not type(None))
        return _read(value, inner, where)
    if isinstance(hint, type) and issubclass(hint, Schema):
        return hint.from_json(value, where)
    if origin is tuple:
        size = None if arguments[-1] is Ellipsis else len(arguments)
        if not isinstance(value, (list, tuple)) or size not in (None, len(value)):
            raise InvalidValue(f'{where} must be a list{f" of {size}" if size else ""}; found {_short(value)}')
        return tuple(_read(item, arguments[0], f'{where}[{n}]') for n, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise InvalidValue(f'{where} must be an object; found {_short(value)}')
        return {name: _read(item, arguments[1], f'{where}.{name}') for name, item in value.items()}
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise InvalidValue(f'{where} must be {KINDS[hint]}; found {_short(value)}')
    return value


KINDS = {str: 'a text', int: 'an integer', float: 'a number', bool: 'true or false'}


def _write(value: Any) -> Any:
    if isinstance(value, Schema):
        return value.to_json()
    if isinstance(value, Mapping):
        return {name: _write(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_write(item) for item in value]
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
