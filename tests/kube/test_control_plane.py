"""The bench's control plane behaves as a cluster's does, faults included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kube import ControlPlane
from tests.machine.waiting import eventually

pytestmark = pytest.mark.kube

WIDGETS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.bench.moorage.dev}
spec:
  group: bench.moorage.dev
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget}
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}}
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec: {type: object, properties: {size: {type: integer}}}
            status: {type: object, properties: {seen: {type: integer}}}
"""
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> ControlPlane:
    return control_plane


@pytest.fixture
def own_plane() -> Iterator[ControlPlane]:
    """One to break."""
    with ControlPlane() as plane:
        yield plane


def config_map(name: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default", **more}}


def names_of(plane: ControlPlane) -> set[str]:
    return {item["metadata"]["name"] for item in plane.request("GET", MAPS).body["items"]}


def test_kubectl_knows_the_version_of_the_server(plane: ControlPlane) -> None:
    answer = json.loads(plane.kubectl("version", "-o", "json").stdout)
    assert answer["serverVersion"]["minor"] == "37"


def test_an_owned_object_goes_with_its_owner(plane: ControlPlane) -> None:
    plane.apply(config_map("owner"))
    owner = plane.get("configmap", "owner")
    assert owner is not None
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    plane.apply(config_map("owned", ownerReferences=[reference]))
    plane.kubectl("delete", "configmap", "owner", "--wait=false")
    eventually("the owned object is collected", lambda: "owned" not in names_of(plane))


def test_a_deleted_namespace_takes_its_objects_along(plane: ControlPlane) -> None:
    plane.kubectl("create", "namespace", "passing")
    plane.kubectl("create", "configmap", "inside", "-n", "passing")
    plane.kubectl("delete", "namespace", "passing", "--wait=false")
    eventually("the namespace is gone", lambda: plane.get("namespace", "passing") is None)


def test_a_service_account_may_do_what_its_role_says_and_nothing_else(plane: ControlPlane) -> None:
    plane.kubectl("create", "serviceaccount", "reader")
    plane.kubectl("create", "role", "reads-maps", "--verb=get,list", "--resource=configmaps")
    plane.kubectl("create", "rolebinding", "reader", "--role=reads-maps", "--serviceaccount=default:reader")
    reader = plane.kubeconfig_for("reader")
    assert plane.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", kubeconfig=reader).stdout.endswith(":reader")
    plane.kubectl("get", "configmaps", kubeconfig=reader)
    refused = plane.kubectl("get", "secrets", kubeconfig=reader, check=False)
    assert refused.returncode != 0
    assert "forbidden" in refused.stderr


def test_an_admission_policy_refuses_what_it_should(plane: ControlPlane) -> None:
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "no-forbidden-names"},
        "spec": {
            "matchConstraints": {
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]
            },
            "validations": [{"expression": "object.metadata.name != 'forbidden'", "message": "this name is not allowed"}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "no-forbidden-names"},
        "spec": {"policyName": "no-forbidden-names", "validationActions": ["Deny"]},
    }
    plane.apply([policy, binding])

    def refused() -> bool:
        answer = plane.request("POST", f"{MAPS}?dryRun=All", config_map("forbidden"))
        return answer.status == 422 and "this name is not allowed" in answer.body["message"]

    eventually("the policy is enforced", refused)
    assert plane.request("POST", f"{MAPS}?dryRun=All", config_map("allowed")).ok


def test_definitions_are_served_once_installed(plane: ControlPlane, tmp_path: Path) -> None:
    (tmp_path / "widgets.yaml").write_text(WIDGETS)
    plane.install_crds(tmp_path)
    plane.apply({"apiVersion": "bench.moorage.dev/v1", "kind": "Widget", "metadata": {"name": "one"}, "spec": {"size": 3}})
    widget = plane.get("widget", "one")
    assert widget is not None
    assert widget["spec"] == {"size": 3}


def test_a_definition_with_an_unknown_field_is_refused(plane: ControlPlane, tmp_path: Path) -> None:
    (tmp_path / "widgets.yaml").write_text(WIDGETS.replace("served: true", "served: true\n      sirved: true"))
    with pytest.raises(AssertionError, match="sirved"):
        plane.install_crds(tmp_path)


def test_objects_survive_a_restart_of_each_server(own_plane: ControlPlane) -> None:
    own_plane.apply(config_map("kept"))
    for restart in (own_plane.restart_controllers, own_plane.restart_api, own_plane.restart_etcd):
        restart()
        assert "kept" in names_of(own_plane), restart.__name__


def test_a_restored_snapshot_brings_back_old_objects_and_old_resource_versions(own_plane: ControlPlane) -> None:
    own_plane.apply(config_map("before"))
    snapshot = own_plane.snapshot()
    own_plane.apply(config_map("after"))
    newest = int(own_plane.request("GET", MAPS).body["metadata"]["resourceVersion"])
    own_plane.restore(snapshot)
    listed = own_plane.request("GET", MAPS).body
    assert {"before"} <= {item["metadata"]["name"] for item in listed["items"]}
    assert "after" not in names_of(own_plane)
    own_plane.apply(config_map("again"))
    again = own_plane.get("configmap", "again")
    assert again is not None
    assert int(again["metadata"]["resourceVersion"]) <= newest + 20


def test_a_paused_api_server_accepts_and_does_not_answer(own_plane: ControlPlane) -> None:
    own_plane.pause_api()
    with pytest.raises(TimeoutError):
        own_plane.request("GET", MAPS, timeout_s=0.5)
    own_plane.resume_api()
    assert own_plane.request("GET", MAPS).ok


def test_its_servers_do_not_outlive_the_process_that_started_them() -> None:
    script = (
        "from tests.kube import ControlPlane; import os, signal\n"
        "plane = ControlPlane().start()\n"
        "print(*[plane.pid(s) for s in ('etcd', 'kube-apiserver', 'kube-controller-manager')], plane.folder, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)
    assert done.stdout, done.stderr
    *pids, folder = done.stdout.split()
    assert len(pids) == 3
    eventually("its servers are gone", lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    with ControlPlane():
        assert not Path(folder).exists(), "the next run sweeps up what a killed one left"
