"""Frozen dataclasses that are written as JSON and read again; an error names the key of the invalid value."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Container, Mapping
from functools import cache
from typing import Any, TypeVar

from mmadv.errors import UserError
from mmadv.fields import expected, mismatch
from mmadv.printing import printable, shown

T = TypeVar('T', bound='Schema')


class InvalidValue(UserError):
    """A JSON value that does not fit its schema; the message names its key."""


class _Others:
    """The set of all keys that no other field of the schema has."""

    def __contains__(self, key: object) -> bool:
        return True


OTHERS = _Others()


def entry(
    *,
    key: str | None = None,
    omit: bool = False,
    keys: Container[str] | None = None,
    default: Any = dataclasses.MISSING,
    factory: Any = dataclasses.MISSING,
) -> Any:
    """Returns a field of a ``Schema``.

    Args:
        key: the key in JSON, if it is not the field's name.
        omit: leave the key out if the value is None.
        keys: if given, the field is a dict of those of these keys that the JSON has. In JSON, these keys are beside the
            keys of the other fields. ``OTHERS`` means all keys that no other field has.
        default: the value if the key is absent.
        factory: the function that makes the default.
    """
    metadata = {'key': key, 'omit': omit, 'keys': keys}
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata)


class Schema:
    """Base of frozen dataclasses that JSON can hold.

    The annotations of the fields are those that ``mmadv.fields.mismatch`` understands, and other schemas. A field with
    a default may be absent. Keys that no field has are ignored, so that results of a later version can be read.
    """

    @classmethod
    def from_json(cls: type[T], value: Any, where: str = 'the whole') -> T:
        """Returns the object of a JSON value.

        Args:
            value: the value that ``to_json`` returned, perhaps in an earlier version.
            where: the name of the value in messages.

        Raises:
            InvalidValue: a key is missing, or its value is of another type or range; the message names the key.
        """
        if not isinstance(value, Mapping):
            raise InvalidValue(f'{where} must be a dict; found {shown(value)}')
        arguments: dict[str, Any] = {}
        known = json_keys(cls)
        for field, hint in _fields(cls):
            name, keys = _key(field), field.metadata.get('keys')
            if keys is not None:
                chosen = {key: item for key, item in value.items() if key in keys and key not in known}
                arguments[field.name] = read_json(chosen, hint, where)
            elif name in value:
                arguments[field.name] = read_json(value[name], hint, f'{where}.{name}')
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise InvalidValue(f"{where} must be a dict with '{name}'; found {shown(value)}")
        return cls(**arguments)

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON value of the object, made of dicts, lists, texts and numbers."""
        result: dict[str, Any] = {}
        for field, _ in _fields(type(self)):
            value = getattr(self, field.name)
            if field.metadata.get('keys') is not None:
                result.update(write_json(value))
            elif not (field.metadata.get('omit') and value is None):
                result[_key(field)] = write_json(value)
        return result


def json_keys(schema: type[Schema]) -> list[str]:
    """Returns the JSON keys of a schema's fields, in order, without the fields that have ``keys``."""
    return [_key(field) for field, _ in _fields(schema) if field.metadata.get('keys') is None]


def inner_schemas(schema: Any) -> list[type[Schema]]:
    """Returns the schemas in an annotation or in the fields of a schema, directly or inside containers."""
    inner: list[type[Schema]] = []
    waiting = [hint for _, hint in _fields(schema)] if _is_schema(schema) else [schema]
    while waiting:
        hint = waiting.pop(0)
        if _is_schema(hint):
            inner.append(hint)
        waiting += typing.get_args(hint)
    return inner


def read_json(value: Any, hint: Any, where: str) -> Any:
    """Returns a JSON value as an object of the annotated type; see ``Schema.from_json`` for arguments and errors."""
    if _is_schema(hint):
        return hint.from_json(value, where)
    if not inner_schemas(hint):
        misfit = mismatch(value, hint)
        if misfit is not None:
            raise InvalidValue(f'{where}{misfit.path} must be {misfit.expected}; found {shown(misfit.value)}')
        return _tuples(value, hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (one for one in arguments if one is not types.NoneType)
        return None if value is None else read_json(value, inner, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(read_json(item, arguments[0], f'{where}[{n}]') for n, item in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return {name: read_json(item, arguments[1], f'{where}.{printable(name)}') for name, item in value.items()}
    raise InvalidValue(f'{where} must be {expected(hint)}; found {shown(value)}')


def write_json(value: Any) -> Any:
    """Returns the JSON value of an object."""
    if isinstance(value, Schema):
        return value.to_json()
    if isinstance(value, Mapping):
        return {name: write_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [write_json(item) for item in value]
    return value


def _read_fields(schema: type) -> tuple[tuple[dataclasses.Field, Any], ...]:
    hints = typing.get_type_hints(schema, include_extras=True)
    return tuple((field, hints[field.name]) for field in dataclasses.fields(schema))


_fields: Callable[[type], tuple[tuple[dataclasses.Field, Any], ...]] = cache(_read_fields)


def _key(field: dataclasses.Field) -> str:
    return field.metadata.get('key') or field.name


def _is_schema(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Schema)


def _tuples(value: Any, hint: Any) -> Any:
    """Returns a value with its lists as tuples if the annotation has tuples, since JSON has no tuples."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if value is None or not arguments:
        return value
    if origin in (typing.Union, types.UnionType):
        inner = [one for one in arguments if one is not types.NoneType]
        return _tuples(value, inner[0]) if len(inner) == 1 else value
    if origin is tuple:
        hints = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_tuples(item, one) for item, one in zip(value, hints, strict=True))
    if origin is dict:
        return {name: _tuples(item, arguments[1]) for name, item in value.items()}
    return value
