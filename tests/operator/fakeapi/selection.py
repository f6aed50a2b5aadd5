"""Label and field selectors (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/), as predicates."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.operator.fakeapi.patching import at
from tests.operator.fakeapi.refusal import bad_request

Obj = dict[str, Any]
Predicate = Callable[[Obj], bool]

SET = re.compile(r"^([^\s!=]+)\s+(in|notin)\s+\(([^)]*)\)$")
EQUAL = re.compile(r"^([^\s!=]+)\s*(==|=|!=)\s*(\S*)$")
TERMS = re.compile(r",(?![^(]*\))")


def selects(labels: str, fields: str, *, selectable: tuple[str, ...] = ()) -> Predicate | None:
    """None when everything is selected. Fields other than metadata.name, metadata.namespace and `selectable` are refused."""
    tests = [_label(term.strip()) for term in TERMS.split(labels) if term.strip()]
    tests += [_field(term.strip(), selectable) for term in fields.split(",") if term.strip()]
    return (lambda obj: all(test(obj) for test in tests)) if tests else None


def _label(term: str) -> Predicate:
    if found := SET.match(term):
        name, kind, values = found[1], found[2], {value.strip() for value in found[3].split(",")}
        if kind == "in":
            return lambda obj: _labels(obj).get(name) in values
        return lambda obj: _labels(obj).get(name) not in values
    if found := EQUAL.match(term):
        name, kind, value = found[1], found[2], found[3]
        if kind == "!=":
            return lambda obj: _labels(obj).get(name) != value
        return lambda obj: _labels(obj).get(name) == value
    if term.startswith("!"):
        return lambda obj: term[1:].strip() not in _labels(obj)
    return lambda obj: term in _labels(obj)


def _field(term: str, selectable: tuple[str, ...]) -> Predicate:
    found = EQUAL.match(term)
    if found is None or found[1].lstrip(".") not in ("metadata.name", "metadata.namespace", *selectable):
        raise bad_request(f"field label not supported: {term}")
    path, value = tuple(found[1].lstrip(".").split(".")), found[3]
    if found[2] == "!=":
        return lambda obj: str(at(obj, path) or "") != value
    return lambda obj: str(at(obj, path) or "") == value


def _labels(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}
