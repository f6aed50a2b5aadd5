"""What is right is accepted, and means to the operator exactly what was written."""

from __future__ import annotations

from typing import Any

import pytest
from moorage_operator.api import KINDS

from tests.operator.api.cases import accepted
from tests.operator.api.door import Door

MODELS = {model.KIND.name: model for model in KINDS}
MANIFESTS = list(accepted())
IDS = [f"{manifest['kind']} {manifest['metadata']['name']}" for manifest in MANIFESTS]


@pytest.mark.kube
@pytest.mark.parametrize("manifest", MANIFESTS, ids=IDS)
def test_a_right_manifest_is_accepted(door: Door, manifest: dict[str, Any]) -> None:
    answer = door.create(manifest, dry_run=True)
    assert answer["kind"] == manifest["kind"], answer["message"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=IDS)
def test_parsing_and_writing_a_manifest_loses_nothing(manifest: dict[str, Any]) -> None:
    parsed = MODELS[manifest["kind"]].parse(manifest)
    assert parsed.wire()["spec"] == manifest["spec"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=IDS)
def test_the_canonical_form_means_the_same(manifest: dict[str, Any]) -> None:
    model = MODELS[manifest["kind"]]
    parsed = model.parse(manifest)
    assert model.parse(parsed.canonical()) == parsed
    assert "replicas" not in parsed.canonical()["spec"] or manifest["spec"]["replicas"] != 1


def test_every_field_is_in_a_manifest() -> None:
    """So that the tests above cover the whole schema."""
    written = {path for manifest in MANIFESTS for path in _paths(manifest["spec"], manifest["kind"])}
    known = {path for model in KINDS for path in _fields(model.model_fields["spec"].annotation, model.KIND.name)}
    assert known - written == set()


def _paths(value: Any, where: str) -> set[str]:
    if isinstance(value, list):
        return {where} | {path for item in value for path in _paths(item, where)}
    if not isinstance(value, dict):
        return {where}
    return {where} | {path for key, item in value.items() for path in _paths(item, f"{where}.{key}")}


def _fields(model: Any, where: str) -> set[str]:
    """Paths of all fields, of the models inside too."""
    found = set()
    for field in model.model_fields.values():
        path = f"{where}.{field.serialization_alias}"
        found |= {path} | {inner for part in _models(field.annotation) for inner in _fields(part, path)}
    return {path for path in found if not path.startswith("Stack.services.")}


def _models(annotation: Any) -> list[Any]:
    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]
