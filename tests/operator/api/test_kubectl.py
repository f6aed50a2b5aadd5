"""What people do with our kinds: apply, diff, scale, get, explain. With kubectl and the real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from moorage_operator.api import KINDS, Stack

from tests.operator.api.cases import ROOT, documents
from tests.operator.api.door import Door

pytestmark = pytest.mark.kube

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
KIND_OF = {model.KIND.name: model.KIND for model in KINDS}


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.name)
def example(request: pytest.FixtureRequest, door: Door, tmp_path: Path) -> Iterator[Path]:
    """An example, in the namespace of this run. What it made is deleted afterwards."""
    path = tmp_path / request.param.name
    moved = [move(document, door.namespace) for document in documents(request.param) if document["kind"] != "Namespace"]
    path.write_text(yaml.safe_dump_all(moved))
    yield path
    door.plane.kubectl("delete", "--wait=false", "--ignore-not-found", "-f", path)


def move(document: dict[str, Any], namespace: str) -> dict[str, Any]:
    kind = KIND_OF.get(document["kind"])
    scope = {"namespace": namespace} if kind is None or kind.namespaced else {}
    return {**document, "metadata": {**document["metadata"], **scope}}


def test_an_example_applies_and_then_nothing_is_left_to_change(door: Door, example: Path) -> None:
    door.plane.kubectl("apply", "--validate=strict", "-f", example)
    again = door.plane.kubectl("apply", "--validate=strict", "-f", example).stdout.splitlines()
    assert again
    assert [line for line in again if not line.endswith(" unchanged") and not line.startswith("secret/")] == []
    door.plane.kubectl("diff", "-f", without_secrets(example))


def test_an_example_applies_on_the_server_side_and_then_nothing_changes(door: Door, example: Path) -> None:
    def versions() -> str:
        path = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion} {end}{.metadata.resourceVersion}"
        return door.plane.kubectl("get", "-f", example, "-o", path).stdout

    door.plane.kubectl("apply", "--server-side", "--validate=strict", "-f", example)
    before = versions()
    door.plane.kubectl("apply", "--server-side", "--validate=strict", "-f", example)
    assert versions() == before
    door.plane.kubectl("diff", "--server-side", "-f", without_secrets(example))


@pytest.mark.parametrize(
    "labels", [{"commonLabels": {"team": "shop"}}, {"labels": [{"pairs": {"team": "shop"}, "includeSelectors": True}]}]
)
def test_a_kustomization_with_common_labels_changes_labels_alone(door: Door, example: Path, labels: dict[str, Any]) -> None:
    """Kustomize knows selectors of Kubernetes' own Service and Deployment; ours must not be taken for one."""
    (example.parent / "kustomization.yaml").write_text(yaml.safe_dump({"resources": [example.name], **labels}))
    built = list(yaml.safe_load_all(door.plane.kubectl("kustomize", example.parent).stdout))
    assert all(document["metadata"]["labels"]["team"] == "shop" for document in built)
    assert sorted(map(spec_of, built)) == sorted(map(spec_of, documents(example)))
    door.plane.kubectl("apply", "--validate=strict", "-k", example.parent)
    door.plane.kubectl("apply", "--validate=strict", "-k", example.parent)


def spec_of(document: dict[str, Any]) -> str:
    return json.dumps([document["kind"], document["metadata"]["name"], document.get("spec")], sort_keys=True)


def without_secrets(example: Path) -> Path:
    """kubectl diff always differs where stringData is written."""
    path = example.with_suffix(".visible.yaml")
    visible = [document for document in documents(example) if document["kind"] != "Secret"]
    path.write_text(yaml.safe_dump_all(visible or [{"apiVersion": "v1", "kind": "List", "items": []}]))
    return path


def test_a_service_is_scaled_and_shown_in_columns(door: Door) -> None:
    made = door.create(door.manifest("Service", "columns", {"task": {"image": "app:1"}}))
    assert made["spec"] == {"mode": "Replicated", "replicas": 1, "task": {"image": "app:1"}}
    door.plane.kubectl("-n", door.namespace, "scale", "ssvc/columns", "--replicas=4")
    status = {"replicas": 4, "replicasReady": "3/4", "image": "app:1", "ports": "80/TCP", "selector": "moorage.dev/service=columns"}
    condition = {"type": "Ready", "status": "False", "reason": "TasksNotReady", "message": "one waits"}
    patch = {"status": {**status, "conditions": [condition]}}
    path = f"{door.path('Service')}/columns/status"
    assert door.plane.request("PATCH", path, patch, content_type="application/merge-patch+json").ok
    header, row = door.plane.kubectl("-n", door.namespace, "get", "ssvc", "columns").stdout.splitlines()
    assert header.split() == ["NAME", "MODE", "REPLICAS", "IMAGE", "PORTS", "READY", "AGE"]
    assert row.split()[:-1] == ["columns", "Replicated", "3/4", "app:1", "80/TCP", "False"]
    assert "one waits" in door.plane.kubectl("-n", door.namespace, "get", "ssvc", "columns", "-o", "wide").stdout
    scale = door.plane.request("GET", f"{door.path('Service')}/columns/scale").body
    assert scale["spec"] == {"replicas": 4}
    assert scale["status"] == {"replicas": 4, "selector": "moorage.dev/service=columns"}


def test_scaling_a_global_service_is_refused_with_the_reason(door: Door) -> None:
    door.create(door.manifest("Service", "global", {"mode": "Global", "task": {"image": "app:1"}}))
    answer = door.plane.kubectl("-n", door.namespace, "scale", "ssvc/global", "--replicas=4", check=False)
    assert "a Global service runs one task on each eligible node" in answer.stderr


def test_tasks_are_found_by_node_and_state(door: Door) -> None:
    for name, node in (("a-1-x", "n1"), ("a-2-x", "n2")):
        spec = {"service": "a", "slot": "1", "version": "v", "container": {}, "nodeName": node}
        door.create(door.manifest("Task", name, spec))
    rows = door.plane.kubectl("-n", door.namespace, "get", "stask", "--field-selector=spec.nodeName=n2", "-o", "name").stdout.split()
    assert rows == ["task.moorage.dev/a-2-x"]
    assert not door.plane.kubectl("-n", door.namespace, "get", "stask", "--field-selector=status.state=Running", "-o", "name").stdout


def test_all_kinds_are_listed_together(door: Door) -> None:
    listed = door.plane.kubectl("api-resources", "--categories=swarm", "-o", "name").stdout.split()
    assert set(listed) == {f"{model.KIND.plural}.moorage.dev" for model in KINDS}


def test_a_short_name_means_ours_and_kubernetes_own_names_do_not(door: Door) -> None:
    shorts = {
        line.split()[1]: line.split()[0] for line in door.plane.kubectl("api-resources", "--api-group=moorage.dev").stdout.splitlines()
    }
    assert {model.KIND.short for model in KINDS} <= shorts.keys()
    for word in ("services", "nodes"):
        assert "moorage.dev" not in door.plane.kubectl("get", word, "-A", "-o", "jsonpath={.items[*].apiVersion}").stdout


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("ssvc", ["One or more identical containers", "GROUP:      moorage.dev"]),
        ("ssvc.spec.task", ["The container that each task runs.", "mounts", "Volumes, paths of the host and memory"]),
        ("ssvc.spec.task.stopGracePeriod", ["After this time the process is killed. Default: 10s."]),
        ("ssvc.spec.update.order", ["ENUM: StopFirst StartFirst", "Default: StopFirst.", "StopFirst: the old task ends before"]),
        ("ssvc.spec.replicas", ["Number of tasks of a Replicated service."]),
        ("sstk.spec.services.task.env.valueFrom", ["secretKeyRef", "An entry of a Secret."]),
        ("simg.spec.registry.reference", ["Such as registry.example/app:1.2"]),
        (
            "snode.spec.ssh.hostKeyPolicy",
            ["Pinned: only hostKeys.", "ENUM: Pinned TrustOnFirstUse CertificateAuthority", "Default: Pinned."],
        ),
        ("stask.status.state", ["Pending, Assigned, Preparing, Ready"]),
    ],
)
def test_explain_reads_well(door: Door, path: str, says: list[str]) -> None:
    text = " ".join(door.plane.kubectl("explain", path).stdout.split())
    missing = [fragment for fragment in says if " ".join(fragment.split()) not in text]
    assert not missing, f"{missing} not in: {text}"


def test_the_largest_stack_the_schema_allows_is_accepted(door: Door) -> None:
    """The server's running cost of the rules is bounded too: many services, each with much in it."""
    env = [{"name": f"VARIABLE_{number:03}", "value": "x" * 20} for number in range(100)]
    mounts = [{"target": f"/mnt/{number}", "volume": {"name": f"volume-{number}"}} for number in range(20)]
    task = {"image": "registry.example/team/app:1.2", "env": env, "mounts": mounts, "stopGracePeriod": "1m30s"}
    services = [{"name": f"service-{number}", "task": task} for number in range(64)]
    answer = door.create(door.manifest("Stack", "largest", {"services": services}), dry_run=True)
    assert answer["kind"] == "Stack", answer["message"]
    assert len(Stack.parse(answer).spec.services) == 64
