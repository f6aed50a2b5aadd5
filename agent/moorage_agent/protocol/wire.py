"""Dataclass to JSON and back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


class ProtocolError(Exception):
    """The peer sent bytes that are no frame of this protocol, or a value of another shape."""


def to_wire(value: Any) -> Any:
    """JSON form of a protocol value: camelCase names, fields that hold their default left out."""
    if dataclasses.is_dataclass(value):
        items = ((wire, getattr(value, name), default) for name, wire, default in _fields_out(value.__class__))
        return {wire: to_wire(item) for wire, item, default in items if item != default}
    if isinstance(value, tuple):
        return [to_wire(item) for item in value]
    return value


def from_wire(kind: type[T], data: Any) -> T:
    """The protocol value of class `kind` in `data`; unknown names are ignored.

    Raises ProtocolError naming the field when a required one is missing or a value has another type.
    """
    return typing.cast(T, _read(kind, data, kind.__name__))


def content_hash(value: Any) -> str:
    """sha256 over the canonical JSON of a protocol value or plain JSON data."""
    return hashlib.sha256(json.dumps(to_wire(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.title() for part in tail)


@cache
def _fields_out(kind: type) -> tuple[tuple[str, str, Any], ...]:
    return tuple((f.name, _camel(f.name), _default(f)) for f in dataclasses.fields(kind))


def _default(f: Any) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


@cache
def _fields_in(kind: type) -> tuple[tuple[str, str, Any, bool], ...]:
    hints = typing.get_type_hints(kind)
    return tuple((f.name, _camel(f.name), hints[f.name], _default(f) is dataclasses.MISSING) for f in dataclasses.fields(kind))


def _read(hint: Any, data: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is typing.Union:
        return None if data is None else _read(typing.get_args(hint)[0], data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise ProtocolError(f"{where}: expected a list, got {type(data).__name__}")
        item = typing.get_args(hint)[0]
        return tuple(_read(item, entry, f"{where}[{index}]") for index, entry in enumerate(data))
    if dataclasses.is_dataclass(hint):
        return _read_object(typing.cast(type, hint), data, where)
    if origin is dict:
        hint = dict
    if hint is float and type(data) is int:
        return float(data)
    if type(data) is not hint:
        raise ProtocolError(f"{where}: expected {hint.__name__}, got {type(data).__name__}")
    return data


def _read_object(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ProtocolError(f"{where}: expected an object, got {type(data).__name__}")
    values = {}
    for name, wire, hint, required in _fields_in(kind):
        if wire in data:
            values[name] = _read(hint, data[wire], f"{where}.{wire}")
        elif required:
            raise ProtocolError(f"{where}: {wire} is missing")
    return kind(**values)
