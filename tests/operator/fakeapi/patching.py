"""Patches as functions: the old value in, a new one out, the old one untouched."""

from __future__ import annotations

from typing import Any

from tests.operator.fakeapi.refusal import Refusal, bad_request

Obj = dict[str, Any]
Path = tuple[str, ...]


def merged(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    base = old if isinstance(old, dict) else {}
    new = {name: value for name, value in base.items() if not (name in patch and patch[name] is None)}
    for name, value in patch.items():
        if value is not None:
            new[name] = merged(base.get(name), value)
    return new


def json_patched(old: Obj, operations: list[Obj]) -> Obj:
    """RFC 6902: add, remove, replace, test. A failed test or a missing path is a 422, as from the API server."""
    new: Any = old
    for operation in operations:
        steps = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
        new = _one(new, steps, operation)
    return new if isinstance(new, dict) else old


def applied(old: Obj, wish: Obj, *, owned: set[Path]) -> Obj:
    """Server-side apply without its schema: dicts are merged, every list is atomic, what was `owned` and is not wished any more goes."""
    new = old
    for path in sorted(owned - leaves(wish), key=len, reverse=True):
        new = _without(new, path)
    return merged(new, wish) if wish else new


def leaves(value: Obj, prefix: Path = ()) -> set[Path]:
    """The paths of all values that are not dicts (an empty dict is a value)."""
    found: set[Path] = set()
    for name, inner in value.items():
        path = (*prefix, name)
        found |= leaves(inner, path) if isinstance(inner, dict) and inner else {path}
    return found


def at(value: Any, path: Path) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _without(value: Any, path: Path) -> Any:
    if not isinstance(value, dict) or path[0] not in value:
        return value
    if len(path) == 1:
        return {name: inner for name, inner in value.items() if name != path[0]}
    inner = _without(value[path[0]], path[1:])
    rest = {name: kept for name, kept in value.items() if name != path[0]}
    return {**rest, path[0]: inner} if inner != {} else rest


def _one(value: Any, steps: list[str], operation: Obj) -> Any:
    if not steps:
        return _whole(value, operation)
    name, rest = steps[0], steps[1:]
    if isinstance(value, list):
        return _in_list(value, name, rest, operation)
    if not isinstance(value, dict):
        raise _failed(operation, "the path leads through a value that is no object")
    if rest:
        if name not in value:
            raise _failed(operation, "the path does not exist")
        return {**value, name: _one(value[name], rest, operation)}
    return _in_dict(value, name, operation)


def _in_dict(value: Obj, name: str, operation: Obj) -> Obj:
    kind = operation["op"]
    if kind == "test":
        if value.get(name) != operation.get("value"):
            raise _failed(operation, "the test failed")
        return value
    if kind == "add":
        return {**value, name: operation["value"]}
    if name not in value:
        raise _failed(operation, "the path does not exist")
    if kind == "replace":
        return {**value, name: operation["value"]}
    return {key: inner for key, inner in value.items() if key != name}


def _in_list(value: list[Any], name: str, rest: list[str], operation: Obj) -> list[Any]:
    index = len(value) if name == "-" else int(name)
    if rest:
        return [*value[:index], _one(value[index], rest, operation), *value[index + 1 :]]
    kind = operation["op"]
    if kind == "add":
        return [*value[:index], operation["value"], *value[index:]]
    if index >= len(value):
        raise _failed(operation, "the path does not exist")
    if kind == "test":
        if value[index] != operation.get("value"):
            raise _failed(operation, "the test failed")
        return value
    return [*value[:index], *([operation["value"]] if kind == "replace" else []), *value[index + 1 :]]


def _whole(value: Any, operation: Obj) -> Any:
    if operation["op"] == "test" and value == operation.get("value"):
        return value
    raise bad_request(f"unsupported operation on the whole document: {operation['op']}")


def _failed(operation: Obj, why: str) -> Refusal:
    return Refusal(
        422, "Invalid", f"the server rejected our request due to an error in our request: {operation['op']} {operation['path']}: {why}"
    )
