"""With watchNamespaces the operator serves these alone, with rights in these alone, and Nodes."""

from __future__ import annotations

import pytest

from tests.e2e.chart.day import forbidden_calls, meet_a_host, play
from tests.e2e.chart.helm import Values
from tests.e2e.chart.release import ChartSwarm
from tests.e2e.chart.rights import may, own_rights
from tests.e2e.chart.test_rights import NODES, OPERATOR, OWN, SERVED
from tests.swarm import service

pytestmark = pytest.mark.e2e

NAMESPACES = ("shop", "lab", "other")
VALUES: Values = {"watchNamespaces": ["shop", "lab"]}


def test_services_run_in_the_watched_namespaces(swarm: ChartSwarm) -> None:
    for namespace in ("shop", "lab"):
        play(swarm, namespace)
    meet_a_host(swarm)
    assert forbidden_calls(swarm) == {}


def test_a_list_of_one_namespace_forgets_nothing_of_another(swarm: ChartSwarm) -> None:
    """A restarted operator lists shop and lab one after the other, into one cache."""
    for namespace in ("shop", "lab"):
        swarm.apply(service("web", "image/app", "sleep", "3600", namespace=namespace, task={"stopGracePeriod": "1s"}))
        swarm.wait_running("web", 1, namespace=namespace)
    tasks = {task["metadata"]["uid"] for namespace in ("shop", "lab") for task in swarm.tasks(namespace=namespace)}
    swarm.operator.stop()
    swarm.start_operator()
    swarm.kubectl("scale", "ssvc/web", "--replicas=2", "-n", "lab")
    swarm.wait_running("web", 2, namespace="lab")
    swarm.wait_running("web", 1, namespace="shop")
    assert tasks < {task["metadata"]["uid"] for namespace in ("shop", "lab") for task in swarm.tasks(namespace=namespace)}
    for namespace in ("shop", "lab"):
        swarm.kubectl("delete", "ssvc/web", "-n", namespace)
    swarm.eventually("the tasks are gone", lambda: not swarm.tasks(namespace="shop") and not swarm.tasks(namespace="lab"))


def test_what_is_elsewhere_is_left_alone(swarm: ChartSwarm) -> None:
    swarm.apply(service("web", "nowhere.example/app:1", namespace="other"), service("web", "nowhere.example/app:1", namespace="lab"))
    swarm.eventually("the watched one has a status", lambda: swarm.get("ssvc", "web", "lab").get("status"))
    assert not swarm.get("ssvc", "web", "other").get("status")
    assert not swarm.tasks(namespace="other")
    for namespace in ("other", "lab"):
        swarm.kubectl("delete", "ssvc/web", "-n", namespace)


def test_rights_end_at_the_watched_namespaces(swarm: ChartSwarm) -> None:
    assert own_rights(swarm.plane, OPERATOR, "shop") == SERVED | NODES
    assert own_rights(swarm.plane, OPERATOR, "lab") == SERVED | NODES
    assert own_rights(swarm.plane, OPERATOR, "moorage-system") == NODES | OWN
    assert own_rights(swarm.plane, OPERATOR, "other") == NODES
    assert own_rights(swarm.plane, OPERATOR, "default") == NODES | {"events": {"create", "patch"}}
    assert not may(swarm.plane, OPERATOR, "list", "secrets")
    assert not may(swarm.plane, OPERATOR, "list", "swarmservices.moorage.dev")
