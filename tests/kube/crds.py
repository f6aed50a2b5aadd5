"""Putting custom resource definitions onto a control plane and waiting until they can be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import yaml

from tests.kube.client import SERVER_SIDE_APPLY, Answer
from tests.machine.waiting import eventually

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Plane(Protocol):
    def request(self, method: str, path: str, body: object = None, **options: Any) -> Answer: ...


def install_crds(plane: Plane, folder: Path) -> None:
    """Raises AssertionError when the API server refuses one (unknown fields included) or does not establish it."""
    installed = [apply_definition(plane, definition) for definition in definitions(folder)]
    assert installed, f"no custom resource definitions in {folder}"
    for name in installed:
        eventually(f"{name} is established", partial(is_established, plane, name))
    for definition in definitions(folder):
        for path in served_paths(definition):
            eventually(f"{path} is served", partial(is_served, plane, path))


def definitions(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("*.yaml")):
        yield from (document for document in yaml.safe_load_all(file.read_text()) if document)


def apply_definition(plane: Plane, definition: Mapping[str, Any]) -> str:
    name: str = definition["metadata"]["name"]
    query = "fieldManager=bench&force=true&fieldValidation=Strict"
    answer = plane.request("PATCH", f"{DEFINITIONS}/{name}?{query}", definition, content_type=SERVER_SIDE_APPLY)
    assert answer.ok, f"{name}: {answer.status}: {answer.body.get('message')}"
    return name


def is_established(plane: Plane, name: str) -> bool:
    conditions = plane.request("GET", f"{DEFINITIONS}/{name}").body.get("status", {}).get("conditions") or []
    refused = [condition for condition in conditions if condition["type"] == "NamesAccepted" and condition["status"] == "False"]
    assert not refused, f"{name}: {refused}"
    return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions)


def is_served(plane: Plane, path: str) -> bool:
    """Established is not served: the first lists of a fresh kind are answered with 404, then with 429 while its watch cache fills."""
    return plane.request("GET", path).ok


def served_paths(definition: Mapping[str, Any]) -> list[str]:
    spec = definition["spec"]
    return [f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}" for version in spec["versions"] if version["served"]]
