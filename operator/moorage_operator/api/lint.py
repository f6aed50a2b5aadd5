"""What must hold for every schema of ours beyond what the API server asks: bounds everywhere, a sentence for each field, words as enums."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]


def problems(schema: Json, where: str) -> Iterator[str]:
    """One line for each fault in a structural schema, naming the field."""
    yield from _own(schema, where)
    for name, value in schema.get("properties", {}).items():
        if not value.get("description") and name != "metadata":
            yield f"{where}.{name}: no description"
        if not re.fullmatch("[a-z][a-zA-Z0-9]*", name):
            yield f"{where}.{name}: not camelCase"
        yield from problems(value, f"{where}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from problems(schema[key], f"{where}[]")


def _own(schema: Json, where: str) -> Iterator[str]:
    kind = schema.get("type")
    unbounded_text = "maxLength" not in schema and "enum" not in schema and schema.get("format") != "date-time"
    if (kind == "string" or schema.get("x-kubernetes-int-or-string")) and unbounded_text:
        yield f"{where}: a string without maxLength"
    if kind == "array" and "maxItems" not in schema:
        yield f"{where}: a list without maxItems"
    if kind == "array" and "x-kubernetes-list-type" not in schema:
        yield f"{where}: a list without x-kubernetes-list-type: nobody knows how appliers share it"
    if "additionalProperties" in schema and "maxProperties" not in schema:
        yield f"{where}: a map without maxProperties"
    if kind == "integer" and not {"minimum", "maximum"} <= schema.keys():
        yield f"{where}: an integer without minimum and maximum"
    yield from _words(schema, where)


def _words(schema: Json, where: str) -> Iterator[str]:
    for key in schema.get("x-kubernetes-list-map-keys", ()):
        if key not in schema["items"].get("required", ()):
            yield f"{where}: the list's key {key} is not required"
    for entry in schema.get("x-kubernetes-validations", ()):
        if not entry.get("message"):
            yield f"{where}: a rule without a message: {entry['rule']}"
    if re.search(r"\(\?[=!<]", schema.get("pattern", "")):
        yield f"{where}: RE2 has no look-around: {schema['pattern']}"
