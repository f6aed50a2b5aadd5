"""The frame of every API type, and the words in which a field states its place in the CRD.

A type is a frozen pydantic model: snake_case in Python, camelCase on the wire. Unknown fields are ignored: a newer CRD may stand beside an
older operator. Attribute docstrings become the descriptions that `kubectl explain` shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, ErrorDetails

from moorage_operator.errors import InvalidSpec

Rule = Mapping[str, str]
"""An entry of x-kubernetes-validations."""
Rules = tuple[Rule, ...]


class Model(BaseModel):
    """A value of the API. `rules` are CEL rules on the whole object; subclasses inherit them."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )
    rules: ClassVar[Rules] = ()

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """The value in `raw`, a JSON object. Raises InvalidSpec naming each field that is missing or of another type."""
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise InvalidSpec("; ".join(_describe(problem) for problem in error.errors(include_url=False))) from error

    def wire(self) -> dict[str, Any]:
        """JSON form of what was set, camelCase."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def canonical(self) -> dict[str, Any]:
        """JSON form without the fields that hold their default: equal for two manifests that mean the same."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core_schema))
        rules = [dict(rule) for base in reversed(cls.__mro__) for rule in base.__dict__.get("rules", ())]
        if rules:
            schema["x-kubernetes-validations"] = rules
        return schema


def _describe(problem: ErrorDetails) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
    return f"{path or 'the object'}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def rule(expression: str, message: str, *, field: str = "") -> Rule:
    """A CEL rule; `message` says what to write, `field` (".name") is where the server points to."""
    entry = {"rule": expression, "message": message}
    return {**entry, "fieldPath": field} if field else entry


def one_of(*fields: str, hint: str) -> Rule:
    """Exactly one of sibling fields. The cost is linear: no comprehension."""
    count = " + ".join(f"(has(self.{field}) ? 1 : 0)" for field in fields)
    return rule(f"{count} == 1", f"exactly one of {' and '.join(fields) if len(fields) == 2 else ', '.join(fields)} is needed: {hint}")


def text(most: int, *rules: Rule, least: int = 1, pattern: str | None = None) -> Any:
    """A string of `least` to `most` characters."""
    return Field(min_length=least or None, max_length=most, pattern=pattern, json_schema_extra=_validations(rules))


def list_map(key: str, most: int) -> Any:
    """A list whose entries are told apart by `key`: the server refuses doubles, appliers may own single entries."""
    return Field(max_length=most, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]})


def atomic_list(most: int, least: int = 0) -> Any:
    """A list that is replaced as a whole."""
    return Field(min_length=least or None, max_length=most, json_schema_extra={"x-kubernetes-list-type": "atomic"})


def set_list(most: int) -> Any:
    """A list of different scalars."""
    return Field(max_length=most, json_schema_extra={"x-kubernetes-list-type": "set"})


def opaque() -> Any:
    """An object whose inside the server neither knows nor checks, owned and replaced as a whole."""
    return Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True, "x-kubernetes-map-type": "atomic"})


def published(default: Any) -> Any:
    """A default that the CRD carries, so that it is visible in the stored object and to subresources.

    All other defaults live in the operator: they may be improved, and they make no difference between a manifest and its object.
    """
    return Field(default=default, json_schema_extra={PUBLISHED: True})


PUBLISHED = "x-moorage-published"


def _validations(rules: Rules) -> dict[str, Any] | None:
    return {"x-kubernetes-validations": [dict(entry) for entry in rules]} if rules else None
