"""The roles for people: what view, edit and admin of a namespace mean for the kinds of Moorage."""

from __future__ import annotations

import json

import pytest

from tests.e2e.chart.release import Release
from tests.e2e.chart.rights import may
from tests.kube import ControlPlane
from tests.machine.waiting import eventually
from tests.swarm import service

pytestmark = pytest.mark.e2e

READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete", "deletecollection")
USERS_KINDS = ("swarmstacks", "swarmservices", "swarmimages")
ROLES = ("view", "edit", "admin")


@pytest.fixture(scope="module")
def plane_with_people(plane: ControlPlane, release: Release) -> ControlPlane:
    """In namespace shop, `view`, `edit` and `admin` have Kubernetes' roles; `moorage-view` and so on have the chart's alone."""
    plane.kubectl("create", "namespace", "shop")
    release.install()
    for role in ROLES:
        for name in (role, f"moorage-{role}"):
            plane.kubectl("create", "rolebinding", name, "-n", "shop", f"--clusterrole={name}", f"--user={name}")
    eventually("the roles are aggregated", lambda: may(plane, "admin", "delete", "swarmtasks.moorage.dev", namespace="shop"))
    return plane


def verbs(plane: ControlPlane, user: str, kind: str, namespace: str = "shop") -> set[str]:
    return {verb for verb in READ + WRITE if may(plane, user, verb, f"{kind}.moorage.dev", namespace=namespace)}


@pytest.mark.parametrize("prefix", ["", "moorage-"], ids=["aggregated", "by itself"])
def test_view_reads_and_writes_nothing(plane_with_people: ControlPlane, prefix: str) -> None:
    for kind in (*USERS_KINDS, "swarmtasks"):
        assert verbs(plane_with_people, f"{prefix}view", kind) == set(READ)


@pytest.mark.parametrize("prefix", ["", "moorage-"], ids=["aggregated", "by itself"])
def test_edit_writes_all_but_tasks(plane_with_people: ControlPlane, prefix: str) -> None:
    for kind in USERS_KINDS:
        assert verbs(plane_with_people, f"{prefix}edit", kind) == {*READ, *WRITE}
    assert verbs(plane_with_people, f"{prefix}edit", "swarmtasks") == set(READ)
    assert may(plane_with_people, f"{prefix}edit", "patch", "swarmservices/scale.moorage.dev", namespace="shop")


@pytest.mark.parametrize("prefix", ["", "moorage-"], ids=["aggregated", "by itself"])
def test_admin_may_also_stop_a_task_but_make_none(plane_with_people: ControlPlane, prefix: str) -> None:
    assert verbs(plane_with_people, f"{prefix}admin", "swarmservices") == {*READ, *WRITE}
    assert verbs(plane_with_people, f"{prefix}admin", "swarmtasks") == {*READ, "delete", "deletecollection"}


@pytest.mark.parametrize("user", [*ROLES, *(f"moorage-{role}" for role in ROLES)])
def test_nobody_of_a_namespace_sees_nodes_writes_status_or_reaches_another_namespace(plane_with_people: ControlPlane, user: str) -> None:
    assert not verbs(plane_with_people, user, "swarmnodes", namespace="")
    assert not verbs(plane_with_people, user, "swarmservices", namespace="default")
    for kind in (*USERS_KINDS, "swarmtasks"):
        assert not set(WRITE) & verbs(plane_with_people, user, f"{kind}/status")


@pytest.mark.parametrize("user", [f"moorage-{role}" for role in ROLES])
def test_the_charts_own_roles_give_nothing_else(plane_with_people: ControlPlane, user: str) -> None:
    for resource in ("secrets", "configmaps", "pods", "serviceaccounts", "events", "rolebindings.rbac.authorization.k8s.io"):
        assert not [verb for verb in READ + WRITE if may(plane_with_people, user, verb, resource, namespace="shop")]


def test_even_an_administrator_makes_no_task_but_may_delete_one(plane_with_people: ControlPlane) -> None:
    """A Task goes to its host as it is."""
    plane = plane_with_people
    owner = {"apiVersion": "moorage.dev/v1alpha1", "kind": "Service", "name": "web", "uid": "u", "controller": True}
    task = {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": "web-1-abc", "namespace": "shop", "ownerReferences": [owner]},
        "spec": {"service": "web", "slot": "1", "version": "v", "container": {"security": {"privileged": True}}, "desiredState": "Running"},
    }
    path = "/apis/moorage.dev/v1alpha1/namespaces/shop/swarmtasks"
    eventually("the policy is in force", lambda: plane.request("POST", f"{path}?dryRun=All", task).status == 403)
    answer = plane.request("POST", path, task)
    assert answer.status == 403, answer.body
    assert "Tasks are made by the operator: change the Service" in answer.body["message"]
    made = plane.kubectl("create", "-f", "-", "--as=system:serviceaccount:moorage-system:moorage", input=json.dumps(task))
    assert "created" in made.stdout

    plane.kubectl("label", "stask/web-1-abc", "-n", "shop", "seen=yes")
    refused = plane.kubectl(
        "patch", "stask/web-1-abc", "-n", "shop", "--type=merge", "-p", '{"spec": {"desiredState": "Ready"}}', check=False
    )
    assert refused.returncode != 0
    plane.kubectl("delete", "stask/web-1-abc", "-n", "shop")


def test_a_user_with_edit_works_as_one_does(plane_with_people: ControlPlane) -> None:
    plane = plane_with_people
    manifest = service("web", "registry.example/app:1", namespace="shop")
    plane.kubectl("create", "-f", "-", "--as=edit", input=json.dumps(manifest))
    plane.kubectl("scale", "ssvc/web", "--replicas=3", "-n", "shop", "--as=edit")
    assert plane.kubectl("get", "ssvc/web", "-n", "shop", "--as=view", "-o", "jsonpath={.spec.replicas}").stdout == "3"
    plane.kubectl("delete", "ssvc/web", "-n", "shop", "--as=edit")
