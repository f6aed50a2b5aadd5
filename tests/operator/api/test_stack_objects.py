"""What a Stack's plan writes, the real API server takes: strictly, with its defaults, and with other hands on the same objects."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from moorage_operator.api import Service, Stack
from moorage_operator.plan.stack import CreateService, PatchService, StackPlan, plan_stack
from moorage_operator.plan.stack_status import stack_status

from tests.machine.waiting import eventually
from tests.operator.api.door import Door

pytestmark = pytest.mark.kube

MERGE = "application/merge-patch+json"


class Swarm:
    """A Stack at the server and what becomes of it."""

    def __init__(self, door: Door, name: str) -> None:
        self._door = door
        self._name = name

    def wish(self, *services: dict[str, Any], **spec: Any) -> None:
        self._door.plane.apply(self._manifest({"services": list(services), **spec}))

    @property
    def stack(self) -> Stack:
        return Stack.parse(self._get(f"{self._door.path('Stack')}/{self._name}"))

    @property
    def plan(self) -> StackPlan:
        return plan_stack(self.stack, self.services)

    def report(self) -> None:
        status = stack_status(self.stack, self.services, self.plan, now=datetime.now(UTC)).canonical()
        path = f"{self._door.path('Stack')}/{self._name}/status?fieldValidation=Strict"
        answer = self._door.plane.request("PATCH", path, {"status": status}, content_type=MERGE)
        assert answer.ok, answer.body

    def tell_ready(self, service: str) -> None:
        """What the Service's reconciler would write."""
        generation = next(one for one in self.services if one.metadata.name == f"{self._name}-{service}").metadata.generation
        ready = {"type": "Ready", "status": "True", "reason": "TasksReady", "observedGeneration": generation}
        path = f"{self._door.path('Service')}/{self._name}-{service}/status"
        status = {"observedGeneration": generation, "replicasReady": "1/1", "conditions": [ready]}
        assert self._door.plane.request("PATCH", path, {"status": status}, content_type=MERGE).ok

    @property
    def services(self) -> list[Service]:
        return [Service.parse(item) for item in self._get(self._door.path("Service"))["items"]]

    def spec(self, service: str) -> dict[str, Any]:
        found: dict[str, Any] = self._get(f"{self._door.path('Service')}/{self._name}-{service}")["spec"]
        return found

    def settle(self) -> None:
        for write in self.plan.writes:
            if isinstance(write, CreateService):
                answer = self._door.create(write.body)
            elif isinstance(write, PatchService):
                body = {**write.patch, "metadata": {**write.patch.get("metadata", {}), "uid": write.uid}}
                answer = self.change(write.name, body)
            else:
                options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": write.uid}}
                assert self._door.plane.request("DELETE", f"{self._door.path('Service')}/{write.name}", options).ok
                continue
            assert answer["kind"] == "Service", answer["message"]
        assert self.plan.writes == (), self.plan.describe()

    def change(self, name: str, patch: dict[str, Any]) -> dict[str, Any]:
        path = f"{self._door.path('Service')}/{name}?fieldValidation=Strict"
        return self._door.plane.request("PATCH", path, patch, content_type=MERGE).body

    def remove(self) -> None:
        self._door.delete(self._manifest({}))

    def _manifest(self, spec: dict[str, Any]) -> dict[str, Any]:
        manifest = self._door.manifest("Stack", self._name, spec)
        return {**manifest, "metadata": {"name": self._name, "namespace": self._door.namespace}}

    def _get(self, path: str) -> dict[str, Any]:
        answer = self._door.plane.request("GET", path)
        assert answer.ok, answer.body
        return answer.body


@pytest.fixture
def swarm(door: Door, request: pytest.FixtureRequest) -> Callable[[str], Swarm]:
    def made(name: str) -> Swarm:
        new = Swarm(door, name)
        request.addfinalizer(new.remove)
        return new

    return made


def entry(name: str, image: str = "app:1", **fields: Any) -> dict[str, Any]:
    return {"name": name, "task": {"image": image}, **fields}


def test_services_are_made_changed_and_removed(swarm: Callable[[str], Swarm]) -> None:
    shop = swarm("made")
    shop.wish(entry("web", replicas=3, update={"delay": "5s", "parallelism": 2}), entry("agent", mode="Global"))
    shop.settle()
    assert shop.spec("web") == {
        "mode": "Replicated",
        "replicas": 3,
        "task": {"image": "app:1"},
        "update": {"delay": "5s", "parallelism": 2},
    }
    shop.wish(entry("web", image="app:2", replicas=3, update={"delay": "9s"}))
    shop.settle()
    assert shop.spec("web") == {"mode": "Replicated", "replicas": 3, "task": {"image": "app:2"}, "update": {"delay": "9s"}}
    assert [service.metadata.name for service in shop.services if service.metadata.name.startswith("made-")] == ["made-web"]


def test_what_kubectl_scale_set_lasts_until_the_stack_says_otherwise(swarm: Callable[[str], Swarm], door: Door) -> None:
    shop = swarm("scaled")
    shop.wish(entry("web", replicas=3))
    shop.settle()
    door.plane.kubectl("-n", door.namespace, "scale", "ssvc/scaled-web", "--replicas=7")
    shop.wish(entry("web", image="app:2", replicas=3))
    shop.settle()
    assert (shop.spec("web")["replicas"], shop.spec("web")["task"]["image"]) == (7, "app:2")
    shop.wish(entry("web", image="app:2"))
    shop.settle()
    assert shop.spec("web")["replicas"] == 7
    shop.wish(entry("web", image="app:2", replicas=4))
    shop.settle()
    assert shop.spec("web")["replicas"] == 4


def test_what_was_edited_by_hand_is_taken_back(swarm: Callable[[str], Swarm]) -> None:
    shop = swarm("edited")
    shop.wish(entry("web"))
    shop.settle()
    shop.change("edited-web", {"spec": {"task": {"image": "app:3", "tty": True}, "unreachable": {"policy": "Keep"}}})
    shop.settle()
    assert shop.spec("web") == {"mode": "Replicated", "replicas": 1, "task": {"image": "app:1"}}


def test_a_service_of_somebody_else_is_left_alone(swarm: Callable[[str], Swarm], door: Door) -> None:
    theirs = door.manifest("Service", "taken-web", {"task": {"image": "other:1"}})
    door.create(theirs)
    try:
        shop = swarm("taken")
        shop.wish(entry("web"))
        shop.settle()
        assert [one.reason for one in shop.plan.hindrances] == ["NameConflict"]
        assert shop.spec("web")["task"] == {"image": "other:1"}
    finally:
        door.delete(theirs)


def test_kubectl_waits_for_a_stack_and_shows_it(swarm: Callable[[str], Swarm], door: Door) -> None:
    def get(*columns: str) -> list[str]:
        rows = door.plane.kubectl("-n", door.namespace, "get", "sstk", "shown").stdout.splitlines()
        return [row.split()[rows[0].split().index(column)] for row in rows[1:] for column in columns]

    shop = swarm("shown")
    shop.wish(entry("web"), entry("db"))
    shop.settle()
    shop.tell_ready("web")
    shop.report()
    assert get("SERVICES", "READY") == ["1/2", "Unknown"]
    shop.tell_ready("db")
    shop.report()
    assert get("SERVICES", "READY") == ["2/2", "True"]
    door.plane.kubectl("-n", door.namespace, "wait", "--for=condition=Ready", "sstk/shown", "--timeout=5s")
    shop.wish(entry("web"), entry("db", image="app:2"))
    assert door.plane.kubectl("-n", door.namespace, "wait", "--for=condition=Ready", "sstk/shown", "--timeout=1s", check=False).returncode


def test_the_cluster_removes_the_services_of_a_stack_that_is_gone(swarm: Callable[[str], Swarm], door: Door) -> None:
    shop = swarm("gone")
    shop.wish(entry("web"), entry("db"))
    shop.settle()
    shop.remove()
    eventually("its Services are gone", lambda: not [one for one in shop.services if one.metadata.name.startswith("gone-")])
