"""What the admission policies accept and refuse, by the namespace's label, in Services, Stacks and Images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.chart.release import Release
from tests.kube import ControlPlane
from tests.kube.client import Answer
from tests.machine.waiting import eventually
from tests.swarm import service, stack

pytestmark = pytest.mark.e2e

Case = dict[str, Any]
CASES: list[Case] = yaml.safe_load((Path(__file__).parent / "policy.yaml").read_text())
ENFORCED = {"unlabelled": None, "baseline": "baseline", "misspelt": "priviledged"}
PATHS = {"Service": "spec", "Stack": "spec.services[web]"}
PLURALS = {"Service": "swarmservices", "Stack": "swarmstacks", "Image": "swarmimages"}
PRIVILEGED = service("web", "registry.example/app:1", task={"security": {"privileged": True}})


@pytest.fixture(scope="module")
def guarded(plane: ControlPlane, release: Release) -> ControlPlane:
    """The chart installed and its policies in force, with a namespace for each label."""
    for name, label in {**ENFORCED, "privileged": "privileged"}.items():
        labels = {} if label is None else {"moorage.dev/enforce": label}
        plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    release.install()
    refused = (PRIVILEGED, stack("shop", PRIVILEGED), node_path("app"))
    eventually("the policies are in force", lambda: all(offered(plane, each, "unlabelled").status == 403 for each in refused))
    return plane


def offered(plane: ControlPlane, manifest: Case, namespace: str, *, dry_run: bool = True) -> Answer:
    """What the API server answers to a create."""
    moved = {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}
    path = f"/apis/moorage.dev/v1alpha1/namespaces/{namespace}/{PLURALS[manifest['kind']]}"
    return plane.request("POST", f"{path}?fieldValidation=Strict{'&dryRun=All' if dry_run else ''}", moved)


def manifest_of(case: Case, kind: str) -> Case:
    web = service("web", "registry.example/app:1", task=case.get("task", {}), **case.get("spec", {}))
    return web if kind == "Service" else stack("shop", service("db", "registry.example/db:1"), web)


def node_path(name: str) -> Case:
    source = {"archive": {"nodePath": {"nodeRef": {"name": "n1"}, "path": "/srv/app.tar"}}}
    return {"apiVersion": "moorage.dev/v1alpha1", "kind": "Image", "metadata": {"name": name}, "spec": source}


@pytest.mark.parametrize("kind", list(PATHS))
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_a_service_is_judged_alike_alone_and_in_a_stack(guarded: ControlPlane, case: Case, kind: str) -> None:
    manifest = manifest_of(case, kind)
    fields = ", ".join(f"{PATHS[kind]}{field}" for field in case.get("refused", ()))
    for namespace in ENFORCED:
        answer = offered(guarded, manifest, namespace)
        if fields:
            assert answer.status == 403, answer.body
            assert f"namespace {namespace} does not allow {fields}: leave it out" in answer.body["message"]
            assert f"kubectl label namespace {namespace} moorage.dev/enforce=privileged" in answer.body["message"]
        else:
            assert answer.status == 201, answer.body
    assert offered(guarded, manifest, "privileged").status == 201


def test_an_archive_on_a_nodes_disk_is_refused(guarded: ControlPlane) -> None:
    answer = offered(guarded, node_path("app"), "unlabelled")
    assert answer.status == 403
    assert "does not allow spec.archive.nodePath" in answer.body["message"]
    assert offered(guarded, node_path("app"), "privileged").status == 201
    registry = {**node_path("app"), "spec": {"registry": {"reference": "registry.example/app:1"}}}
    assert offered(guarded, registry, "unlabelled").status == 201


def test_kubectl_shows_the_field_and_the_way_out(guarded: ControlPlane) -> None:
    done = guarded.kubectl("create", "-n", "unlabelled", "-f", "-", input=yaml.safe_dump(_in(PRIVILEGED, "unlabelled")), check=False)
    assert done.returncode != 0
    assert "spec.task.security.privileged" in done.stderr
    assert "kubectl label namespace unlabelled moorage.dev/enforce=privileged" in done.stderr


def test_a_change_is_judged_too_and_what_was_there_before_can_be_labelled_and_deleted(guarded: ControlPlane) -> None:
    kubectl = guarded.kubectl
    kubectl("create", "namespace", "tightened")
    kubectl("label", "namespace", "tightened", "moorage.dev/enforce=privileged")
    eventually("the label is known", lambda: offered(guarded, PRIVILEGED, "tightened").status == 201)
    assert offered(guarded, PRIVILEGED, "tightened", dry_run=False).status == 201
    kubectl("label", "namespace", "tightened", "moorage.dev/enforce-")
    eventually("the label is forgotten", lambda: offered(guarded, PRIVILEGED, "tightened").status == 403)

    kubectl("annotate", "ssvc/web", "-n", "tightened", "seen=yes")
    kubectl("scale", "ssvc/web", "-n", "tightened", "--replicas=0")
    changed = kubectl("patch", "ssvc/web", "-n", "tightened", "--type=merge", "-p", '{"spec": {"restartToken": "now"}}', check=False)
    assert "spec.task.security.privileged" in changed.stderr
    kubectl("delete", "ssvc/web", "-n", "tightened")


def test_the_largest_stack_is_judged_within_the_servers_budget(guarded: ControlPlane) -> None:
    assert offered(guarded, largest_stack({"tmpfs": {}}, "net.a.b"), "unlabelled").status == 201
    answer = offered(guarded, largest_stack({"bind": {"path": "/srv"}}, "vm.b"), "unlabelled")
    assert answer.status == 403, answer.body
    assert "an administrator may allow them by its label moorage.dev/enforce=privileged" in answer.body["message"]  # all names: > 5 kB


def largest_stack(mount: Case, sysctl: str) -> Case:
    """As many services, mounts and sysctls as the schema lets in."""
    task = {
        "mounts": [{"target": f"/m{number}", **mount} for number in range(64)],
        "security": {
            "capAdd": ["CHOWN", "FOWNER", "KILL", "SETUID", "SETGID", "MKNOD", "NET_RAW"],
            "sysctls": [{"name": f"{sysctl}{number}", "value": "1"} for number in range(32)],
        },
    }
    return stack("shop", *(service(f"s{number}", "registry.example/app:1", task=task) for number in range(64)))


def test_the_api_servers_type_checker_finds_nothing(guarded: ControlPlane) -> None:
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"

    def checked() -> list[Case]:
        items: list[Case] = guarded.request("GET", path).body["items"]
        assert len(items) == 4
        return items if all(each.get("status", {}).get("observedGeneration") for each in items) else []

    for policy in eventually("the policies are checked", checked, timeout_s=60):
        assert not policy["status"].get("typeChecking", {}).get("expressionWarnings"), policy["metadata"]["name"]


def test_warning_instead_of_refusing(guarded: ControlPlane, release: Release) -> None:
    release.upgrade({"admissionPolicy": {"actions": ["Warn"]}})
    eventually("the policies warn", lambda: offered(guarded, PRIVILEGED, "unlabelled").status == 201)
    manifest = yaml.safe_dump(_in(PRIVILEGED, "unlabelled"))
    done = guarded.kubectl("create", "--dry-run=server", "-f", "-", input=manifest)
    assert "spec.task.security.privileged" in done.stderr


def test_the_hosts_network_can_be_allowed_everywhere(guarded: ControlPlane, release: Release) -> None:
    release.upgrade({"admissionPolicy": {"baseline": {"hostNetwork": True}}})
    web = service("web", "registry.example/app:1", network={"mode": "Host"}, ports=[{"name": "http", "target": 80}])
    eventually("privileged is refused again", lambda: offered(guarded, PRIVILEGED, "unlabelled").status == 403)
    eventually("the host's network is allowed", lambda: offered(guarded, web, "unlabelled").status == 201)


def _in(manifest: Case, namespace: str) -> Case:
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}
