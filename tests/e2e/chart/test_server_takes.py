"""Everything the chart can render is taken by a real API server, with strict validation and Pod Security."""

from __future__ import annotations

import json

import pytest

from tests.e2e.chart.helm import Object, Values
from tests.e2e.chart.release import NAMESPACE, Release
from tests.e2e.chart.test_rendering import EVERYTHING
from tests.kube import ControlPlane
from tests.machine.waiting import eventually

pytestmark = pytest.mark.e2e

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
# Its kind is Prometheus Operator's, and its priority class is taken in kube-system alone.
VALUES: Values = {**EVERYTHING, "metrics": {}, "priorityClassName": ""}


@pytest.fixture(scope="module")
def installed(plane: ControlPlane, release: Release) -> ControlPlane:
    for name, labels in ((NAMESPACE, RESTRICTED), ("shop", {})):
        plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    release.install(VALUES)
    return plane


def test_every_pod_passes_pod_security_admission(installed: ControlPlane, release: Release) -> None:
    pods = [pod for each in [*release.manifest(), *release.hooks()] if (pod := pod_of(each))]
    assert len(pods) == 3
    for pod in pods:
        answer = installed.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All&fieldValidation=Strict", pod)
        assert answer.ok, answer.body["message"]
    careless = {**pods[0], "spec": {**pods[0]["spec"], "hostPID": True}}
    assert installed.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All", careless).status == 403


def test_no_field_is_unknown_to_the_server(installed: ControlPlane, release: Release) -> None:
    for each in release.manifest():
        name = f"{each['kind']}/{each['metadata']['name']}"
        strictly = ("--dry-run=server", "--server-side", "--force-conflicts", "--validate=strict")
        done = installed.kubectl("apply", *strictly, "-f", "-", input=json.dumps(each), check=False)
        assert done.returncode == 0, f"{name}: {done.stderr}"


def test_the_flow_schemas_lead_somewhere(installed: ControlPlane) -> None:
    def settled() -> bool:
        found = [installed.get("flowschema", name) or {} for name in ("moorage", "moorage-lease")]
        conditions = [each for schema in found for each in schema.get("status", {}).get("conditions", [])]
        return len(conditions) == 2 and all(each["type"] == "Dangling" and each["status"] == "False" for each in conditions)

    eventually("no flow schema dangles", settled)


def pod_of(rendered: Object) -> Object | None:
    if rendered["kind"] == "Pod":
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": rendered["spec"]}
    if rendered["kind"] in ("Deployment", "Job"):
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": rendered["spec"]["template"]["spec"]}
    return None
