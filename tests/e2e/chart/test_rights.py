"""The operator as the chart runs it: its rights suffice for all it does, and are no more."""

from __future__ import annotations

import pytest

from tests.e2e.chart.day import forbidden_calls, meet_a_host, play
from tests.e2e.chart.release import ChartSwarm
from tests.e2e.chart.rights import may, own_rights

pytestmark = pytest.mark.e2e

NAMESPACES = ("shop",)
OPERATOR = "system:serviceaccount:moorage-system:moorage"

SERVED = {
    "swarmstacks.moorage.dev": {"get", "list", "watch"},
    "swarmservices.moorage.dev": {"get", "list", "watch", "create", "patch", "delete"},
    "swarmtasks.moorage.dev": {"get", "list", "watch", "create", "patch", "delete"},
    "swarmimages.moorage.dev": {"get", "list", "watch", "create", "delete"},
    "swarmstacks/status.moorage.dev": {"patch"},
    "swarmservices/status.moorage.dev": {"patch"},
    "swarmtasks/status.moorage.dev": {"patch"},
    "swarmimages/status.moorage.dev": {"patch"},
    "swarmstacks/finalizers.moorage.dev": {"update"},
    "swarmservices/finalizers.moorage.dev": {"update"},
    "secrets": {"get", "list", "watch"},
    "configmaps": {"get", "list", "watch"},
    "events": {"create", "patch"},
}
NODES = {"swarmnodes.moorage.dev": {"get", "list", "watch", "patch"}, "swarmnodes/status.moorage.dev": {"patch"}}
OWN = {
    "leases.coordination.k8s.io": {"create"},
    "leases.coordination.k8s.io[moorage-operator]": {"get", "patch"},
    "secrets": {"get", "list", "watch", "create"},
}

FORBIDDEN = [
    ("create", "pods"),
    ("create", "pods/exec"),
    ("get", "pods"),
    ("update", "secrets"),
    ("patch", "secrets"),
    ("delete", "secrets"),
    ("patch", "configmaps"),
    ("get", "serviceaccounts"),
    ("create", "serviceaccounts/token"),
    ("impersonate", "users"),
    ("list", "namespaces"),
    ("patch", "namespaces"),
    ("delete", "namespaces"),
    ("list", "nodes"),
    ("create", "deployments.apps"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("escalate", "clusterroles.rbac.authorization.k8s.io"),
    ("patch", "customresourcedefinitions.apiextensions.k8s.io"),
    ("list", "customresourcedefinitions.apiextensions.k8s.io"),
    ("create", "validatingadmissionpolicies.admissionregistration.k8s.io"),
    ("create", "swarmnodes.moorage.dev"),
    ("delete", "swarmnodes.moorage.dev"),
    ("create", "swarmstacks.moorage.dev"),
    ("patch", "swarmstacks.moorage.dev"),
    ("patch", "swarmimages.moorage.dev"),
    ("deletecollection", "swarmtasks.moorage.dev"),
]


def test_everything_the_operator_does_is_allowed(swarm: ChartSwarm) -> None:
    """A day in its life: a Stack with data and a bare image, scaled, changed, removed; then the Node, whose agent is uninstalled."""
    play(swarm, "shop")
    meet_a_host(swarm)
    host = swarm.hosts[0]
    swarm.kubectl("delete", f"snode/{host.name}", "--timeout=60s")
    assert not host.path("/var/lib/moorage/agent").exists()
    assert forbidden_calls(swarm) == {}


def test_the_operator_may_nothing_else(swarm: ChartSwarm) -> None:
    assert own_rights(swarm.plane, OPERATOR, "shop") == SERVED | NODES
    assert own_rights(swarm.plane, OPERATOR, "moorage-system") == SERVED | NODES | OWN


@pytest.mark.parametrize(("verb", "resource"), FORBIDDEN)
def test_the_operator_may_not(swarm: ChartSwarm, verb: str, resource: str) -> None:
    assert not may(swarm.plane, OPERATOR, verb, resource, namespace="shop")
    assert not may(swarm.plane, OPERATOR, verb, resource)


def test_the_operator_may_make_a_secret_where_it_lives_and_nowhere_else(swarm: ChartSwarm) -> None:
    assert may(swarm.plane, OPERATOR, "create", "secrets", namespace="moorage-system")
    assert not may(swarm.plane, OPERATOR, "create", "secrets", namespace="shop")
    assert not may(swarm.plane, OPERATOR, "patch", "leases.coordination.k8s.io", namespace="moorage-system", name="another")
