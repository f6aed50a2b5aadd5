"""pydantic's JSON schema → the structural schema that the API server accepts.

What the server refuses, or without strict validation drops in silence, is rewritten or is an error here: references, null types, const,
exclusive bounds, set and tuple types. A default stays only where the model publishes it; the others are told in the description.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from moorage_operator.api.schema import PUBLISHED

Json = dict[str, Any]
_RULES: Final = "x-kubernetes-validations"
_DROPPED: Final = ("title", "propertyNames")
_REFUSED: Final = frozenset(
    ["oneOf", "allOf", "not", "discriminator", "prefixItems", "patternProperties", "examples", "deprecated", "readOnly", "writeOnly"]
)


class UnsuitableModel(Exception):
    """The model uses something that a CRD cannot say. Our own fault: the message names the field."""


def structural(model: type[BaseModel]) -> Json:
    """The schema of `model`, with every reference inlined. Raises UnsuitableModel."""
    schema = model.model_json_schema(by_alias=True)
    return _convert(schema, schema.get("$defs", {}), (), f"{model.__name__}")


def _convert(schema: Json, definitions: Json, open_definitions: tuple[str, ...], where: str) -> Json:
    schema, open_definitions = _inlined(schema, definitions, open_definitions, where)
    if refused := _REFUSED & schema.keys():
        raise UnsuitableModel(f"{where}: {min(refused)} cannot be said in a CRD")
    schema = _described(_shaped({key: value for key, value in schema.items() if key not in (*_DROPPED, "$defs")}, where))
    if "properties" in schema:
        schema["properties"] = {
            name: _convert(value, definitions, open_definitions, f"{where}.{name}") for name, value in schema["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            schema[key] = _convert(schema[key], definitions, open_definitions, f"{where}[]")
    return schema


def _inlined(schema: Json, definitions: Json, open_definitions: tuple[str, ...], where: str) -> tuple[Json, tuple[str, ...]]:
    """The schema without $ref and without "or null". What stands beside a reference wins; rules of both hold."""
    schema = _without_null(schema, where)
    while "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        if name in open_definitions:
            raise UnsuitableModel(f"{where}: {name} contains itself; a CRD has no recursion")
        open_definitions = (*open_definitions, name)
        schema = _merged(definitions[name], {key: value for key, value in schema.items() if key != "$ref"})
        schema = _without_null(schema, where)
    return schema, open_definitions


def _merged(inner: Json, outer: Json) -> Json:
    rules = [*inner.get(_RULES, ()), *outer.get(_RULES, ())]
    return {**inner, **outer, **({_RULES: rules} if rules else {})}


def _without_null(schema: Json, where: str) -> Json:
    if "anyOf" not in schema:
        return schema
    variants = [variant for variant in schema["anyOf"] if variant.get("type") != "null"]
    if len(variants) != 1:
        raise UnsuitableModel(f"{where}: a union of {len(variants)} types; write sibling fields and a rule instead")
    rest = {key: value for key, value in schema.items() if key != "anyOf" and not (key == "default" and value is None)}
    return _merged(variants[0], rest)


def _shaped(schema: Json, where: str) -> Json:
    """Keywords of JSON schema in the words of a structural one."""
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if schema.get("type") == "number":
        raise UnsuitableModel(f"{where}: a float; write an integer with a unit, or a quantity")
    if "exclusiveMinimum" in schema:
        schema["minimum"] = schema.pop("exclusiveMinimum") + 1
    if "exclusiveMaximum" in schema:
        schema["maximum"] = schema.pop("exclusiveMaximum") - 1
    if schema.get("type") == "integer" and "maximum" in schema:
        schema["format"] = "int32" if schema["maximum"] < 2**31 else "int64"
    if schema.pop("uniqueItems", False):
        schema["x-kubernetes-list-type"] = "set"
    if not isinstance(schema.get("additionalProperties"), dict):
        schema.pop("additionalProperties", None)
    if not {"type", "$ref", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"} & schema.keys():
        schema["x-kubernetes-preserve-unknown-fields"] = True
    return schema


def _described(schema: Json) -> Json:
    """One paragraph of description that tells the default too: `kubectl explain` does not."""
    published = schema.pop(PUBLISHED, False)
    default = schema.get("default")
    if not published:
        schema.pop("default", None)
    description = " ".join(schema.pop("description", "").split())
    if isinstance(default, str | int) and default not in ("", False):
        description = f"{description} Default: {'true' if default is True else default}."
    return {"description": description, **schema} if description else schema
