"""What pydantic says and the API server refuses is rewritten; what cannot be rewritten is an error of ours that names the field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from moorage_operator.api.lint import problems
from moorage_operator.api.openapi import UnsuitableModel, structural
from moorage_operator.api.scalars import Memory
from moorage_operator.api.schema import Model, list_map, opaque, published, rule, text
from pydantic import BaseModel, Field, create_model


class Inner(Model):
    """An inner object."""

    rules = (rule("has(self.a)", "write a"),)

    a: Annotated[str, text(5)]
    """The letter."""


class Loop(Model):
    inner: Loop | None = None


def field(annotation: Any, default: Any = ...) -> dict[str, Any]:
    """The structural schema of a field `x` of that type."""
    model = create_model("Outer", __base__=Model, x=(annotation, default))
    found: dict[str, Any] = structural(model)["properties"]["x"]
    return found


def test_optional_is_the_type_itself() -> None:
    assert field(int | None, None) == {"type": "integer"}


def test_a_reference_is_inlined_and_the_words_beside_it_win() -> None:
    class Outer(Model):
        x: Inner | None = None
        """The one."""

    assert structural(Outer)["properties"]["x"] == {
        "description": "The one.",
        "type": "object",
        "required": ["a"],
        "properties": {"a": {"description": "The letter.", "type": "string", "minLength": 1, "maxLength": 5}},
        "x-kubernetes-validations": [{"rule": "has(self.a)", "message": "write a"}],
    }


def test_rules_of_a_type_and_of_its_base_both_hold() -> None:
    class Further(Inner):
        rules = (rule("self.a != ''", "write more"),)

    assert [one["message"] for one in structural(Further)["x-kubernetes-validations"]] == ["write a", "write more"]


def test_one_word_is_an_enum() -> None:
    assert field(Literal["a"])["enum"] == ["a"]
    assert "const" not in field(Literal["a"])


def test_exclusive_bounds_become_inclusive_ones() -> None:
    found = field(Annotated[int, Field(gt=0, lt=10)])
    assert (found["minimum"], found["maximum"]) == (1, 9)


def test_a_set_is_a_list_of_type_set() -> None:
    found = field(set[str])
    assert found["x-kubernetes-list-type"] == "set"
    assert "uniqueItems" not in found


def test_anything_keeps_unknown_fields() -> None:
    assert field(Any) == {"x-kubernetes-preserve-unknown-fields": True}


def test_an_opaque_object_has_no_inside() -> None:
    found = field(Annotated[dict[str, Any], opaque()])
    assert found == {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "x-kubernetes-map-type": "atomic"}


def test_a_quantity_is_an_integer_or_a_string() -> None:
    found = field(Memory | None, None)
    assert found["x-kubernetes-int-or-string"] is True
    assert "type" not in found
    assert "anyOf" not in found


def test_unknown_fields_are_the_servers_business() -> None:
    class Closed(BaseModel):
        model_config = {"extra": "forbid"}

    assert "additionalProperties" not in structural(Closed)


def test_a_default_is_told_and_stored_only_where_published() -> None:
    class Outer(Model):
        told: Literal["a", "b"] = "a"
        """Which."""
        stored: int = published(3)
        """How many."""
        off: bool = False
        """Whether."""

    properties = structural(Outer)["properties"]
    assert properties["told"] == {"description": "Which. Default: a.", "type": "string", "enum": ["a", "b"]}
    assert properties["stored"] == {"description": "How many. Default: 3.", "type": "integer", "default": 3}
    assert properties["off"] == {"description": "Whether.", "type": "boolean"}


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (int | str, "a union of 2 types"),
        (float, "a float"),
        (tuple[int, str], "prefixItems"),
        (Loop, "Loop contains itself"),
        (Annotated[str, Field(deprecated=True)], "deprecated"),
        (Annotated[str, Field(examples=["a"])], "examples"),
    ],
    ids=["union", "float", "tuple", "recursion", "deprecated", "examples"],
)
def test_what_a_crd_cannot_say_is_refused_by_name(annotation: Any, says: str) -> None:
    with pytest.raises(UnsuitableModel, match=r"Outer\.x.*: ") as refused:
        field(annotation)
    assert says in str(refused.value)


# --- lint

SOUND: dict[str, Any] = {"type": "string", "maxLength": 5, "description": "A word."}


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "string"}, "a string without maxLength"),
        ({"x-kubernetes-int-or-string": True}, "a string without maxLength"),
        ({"type": "array", "items": SOUND, "x-kubernetes-list-type": "atomic"}, "a list without maxItems"),
        ({"type": "array", "items": SOUND, "maxItems": 3}, "a list without x-kubernetes-list-type"),
        ({"type": "object", "additionalProperties": SOUND}, "a map without maxProperties"),
        ({"type": "integer", "minimum": 0}, "an integer without minimum and maximum"),
        ({"type": "string", "maxLength": 5, "pattern": "(?=a)"}, "RE2 has no look-around"),
        ({**SOUND, "x-kubernetes-validations": [{"rule": "true"}]}, "a rule without a message"),
        ({"type": "object", "properties": {"a": {"type": "boolean"}}}, "no description"),
        ({"type": "object", "properties": {"a_b": {"type": "boolean", "description": "It."}}}, "not camelCase"),
    ],
)
def test_the_lint_finds(schema: dict[str, Any], fault: str) -> None:
    outer = {"type": "object", "properties": {"x": {"description": "It.", **schema}}}
    (found,) = problems(outer, "Kind")
    assert found.startswith("Kind.x")
    assert fault in found


def test_the_lint_finds_a_key_that_may_be_absent() -> None:
    class Item(Model):
        """An item."""

        name: Annotated[str, text(5)] = "a"
        """The name."""

    found = field(Annotated[tuple[Item, ...], list_map("name", most=3)], ())
    assert list(problems(found, "x")) == ["x: the list's key name is not required"]


def test_the_lint_looks_into_lists_and_maps() -> None:
    deep = {"type": "array", "maxItems": 1, "x-kubernetes-list-type": "atomic", "items": {"type": "object", "properties": {"a": {}}}}
    assert list(problems(deep, "x")) == ["x[].a: no description"]
