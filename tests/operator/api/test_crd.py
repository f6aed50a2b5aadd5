"""The generated definitions are those of the models, and say what the API promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from moorage_operator.api import KINDS
from moorage_operator.api.crd import crd, main
from moorage_operator.api.lint import problems

from tests.operator.api.cases import ROOT

DIRECTORIES = [ROOT / "crds", ROOT / "charts/moorage/files/crds"]
DEFINITIONS = {model.KIND.name: crd(model) for model in KINDS}


def version(kind: str) -> dict[str, Any]:
    (only,) = DEFINITIONS[kind]["spec"]["versions"]
    assert isinstance(only, dict)
    return only


def schema(kind: str, path: str) -> dict[str, Any]:
    """The schema of a field such as spec.ports[].name."""
    found: dict[str, Any] = version(kind)["schema"]["openAPIV3Schema"]
    for part in path.split("."):
        found = found["properties"][part.removesuffix("[]")]
        found = found["items"] if part.endswith("[]") else found
    return found


def test_the_committed_definitions_are_those_of_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", *map(str, DIRECTORIES)]) == 0, capsys.readouterr().err


def test_what_is_stale_missing_or_left_over_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    assert main(["--check", str(tmp_path)]) == 0
    (tmp_path / "swarmtasks.yaml").write_text("old")
    (tmp_path / "swarmnodes.yaml").unlink()
    (tmp_path / "swarmjobs.yaml").write_text("gone")
    assert main(["--check", str(tmp_path)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert sorted(line.rsplit("/", 1)[1] for line in told) == [
        "swarmjobs.yaml: belongs to no kind; run make generate",
        "swarmnodes.yaml: missing; run make generate",
        "swarmtasks.yaml: stale; run make generate",
    ]


def test_writing_again_changes_nothing_and_removes_what_is_left_over(tmp_path: Path) -> None:
    main([str(tmp_path)])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "swarmjobs.yaml").write_text("gone")
    main([str(tmp_path)])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_every_field_has_a_bound_and_a_sentence(kind: str) -> None:
    assert list(problems(version(kind)["schema"]["openAPIV3Schema"], kind)) == []


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_a_sentence_ends_like_one(kind: str) -> None:
    def sentences(found: dict[str, Any]) -> list[str]:
        inner = [*found.get("properties", {}).values(), *(found[key] for key in ("items", "additionalProperties") if key in found)]
        return [found.get("description", "."), *(text for one in inner for text in sentences(one))]

    assert [text for text in sentences(version(kind)["schema"]["openAPIV3Schema"]) if not text.endswith(".")] == []


def test_the_names_of_the_kinds() -> None:
    names = {kind: (one["spec"]["names"]["plural"], *one["spec"]["names"]["shortNames"]) for kind, one in DEFINITIONS.items()}
    assert names == {
        "Image": ("swarmimages", "simg"),
        "Service": ("swarmservices", "ssvc"),
        "Stack": ("swarmstacks", "sstk"),
        "Node": ("swarmnodes", "snode"),
        "Task": ("swarmtasks", "stask"),
    }
    assert [kind for kind, one in DEFINITIONS.items() if one["spec"]["scope"] == "Cluster"] == ["Node"]
    assert all(one["spec"]["names"]["categories"] == ["swarm"] for one in DEFINITIONS.values())


def test_only_stable_defaults_are_stored() -> None:
    """Each default here is written into the objects of users: it can never be changed without changing what they meant."""

    def defaults(found: dict[str, Any], where: str) -> dict[str, Any]:
        own = {where: found["default"]} if "default" in found else {}
        for name, inner in found.get("properties", {}).items():
            own |= defaults(inner, f"{where}.{name}")
        return own | (defaults(found["items"], f"{where}[]") if "items" in found else {})

    stored = {path: value for kind in DEFINITIONS for path, value in defaults(version(kind)["schema"]["openAPIV3Schema"], kind).items()}
    assert stored == {
        "Service.spec.mode": "Replicated",
        "Service.spec.replicas": 1,
        "Node.spec.availability": "Active",
        "Node.spec.ssh.hostKeyPolicy": "Pinned",
        "Node.spec.ssh.port": 22,
        "Task.spec.attempt": 1,
        "Task.spec.desiredState": "Running",
    }


def test_lists_of_objects_are_told_apart_by_their_key() -> None:
    keys = {path: schema("Service", path)["x-kubernetes-list-map-keys"] for path in ("spec.ports", "spec.task.env", "spec.task.mounts")}
    assert keys == {"spec.ports": ["name"], "spec.task.env": ["name"], "spec.task.mounts": ["target"]}
    assert schema("Stack", "spec.services")["x-kubernetes-list-map-keys"] == ["name"]
    assert schema("Task", "status.conditions")["x-kubernetes-list-map-keys"] == ["type"]


def test_the_container_of_a_task_is_one_value_for_the_server() -> None:
    container = schema("Task", "spec.container")
    assert container["x-kubernetes-preserve-unknown-fields"] is True
    assert container["x-kubernetes-map-type"] == "atomic"
    assert "properties" not in container


def test_tasks_can_be_selected_by_node_and_state() -> None:
    assert version("Task")["selectableFields"] == [{"jsonPath": ".spec.nodeName"}, {"jsonPath": ".status.state"}]


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_a_status_of_a_newer_operator_is_not_refused(kind: str) -> None:
    """No enum and nothing required in a status, but what conditions always have."""

    def faults(found: dict[str, Any], where: str) -> list[str]:
        if where.endswith(".conditions[]"):
            return []
        keyed = {"name", "node", "digest"}
        own = [where] if "enum" in found or set(found.get("required", ())) - keyed else []
        inner = [fault for name, one in found.get("properties", {}).items() for fault in faults(one, f"{where}.{name}")]
        return own + inner + (faults(found["items"], f"{where}[]") if "items" in found else [])

    assert faults(schema(kind, "status"), "status") == []


def test_the_files_are_plain_yaml() -> None:
    for path in DIRECTORIES[0].glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["kind"] == "CustomResourceDefinition"
        assert path.read_text() == (DIRECTORIES[1] / path.name).read_text()
