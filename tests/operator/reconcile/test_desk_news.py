"""Which news of a node's link make the operator look at the tasks there again: of a thousand nodes they come many times a second."""

from __future__ import annotations

import pytest
from moorage_operator.fleet.link import Link
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.object import Key, Obj, uid_of
from moorage_operator.kube.resource import NODES, TASKS

from tests.operator.fakeapi import FakeApi
from tests.operator.plan.objects import ready
from tests.operator.reconcile.worlds import Bench

UP = Link(connected=True, reason="", message="")
DOWN = Link(connected=False, reason="Unreachable", message="no route to host")
REFUSED = Link(connected=False, reason="ConnectionRefused", message="sshd does not answer")
NODE, SERVICE, STOPPING = ("Node", "n1"), ("Service", "web"), ("Task", "web-2")


class Room(Bench):
    """The node n1 with two tasks of the Service web; the second is being stopped."""

    def __init__(self, fake: FakeApi, api: KubeApi, *, was_ready: bool) -> None:
        super().__init__(fake, api)
        ssh = {"ssh": {"host": "192.0.2.1", "keySecretRef": {"name": "key"}}}
        self.uid = uid_of(self.add(NODES, "n1", ssh, status=ready() if was_ready else ready("Unknown", reason="Silent")))
        for name in ("web-1", "web-2"):
            spec: Obj = {"service": "web", "slot": name, "version": "v1", "container": {}, "nodeName": "n1"}
            self.add(TASKS, name, spec, finalizers=["moorage.dev/task"])
        self.seen(TASKS, fake.store.delete(TASKS, Key("default", "web-2"))[0])

    def hears(self, *links: Link) -> set[tuple[str, str]]:
        """What is looked at again when the link stands so, and then so."""
        self.looks.clear()
        for link in links:
            self.desk.on_link(self.uid, link)
        return set(self.looks)


@pytest.fixture
def room(fake: FakeApi, api: KubeApi) -> Room:
    return Room(fake, api, was_ready=True)


@pytest.mark.parametrize(("before", "after"), [(UP, DOWN), (DOWN, UP), (DOWN, REFUSED), (REFUSED, DOWN)])
def test_a_link_that_stands_otherwise_concerns_the_services_there_and_what_is_being_stopped(room: Room, before: Link, after: Link) -> None:
    room.hears(before)
    assert room.hears(after) == {NODE, SERVICE, STOPPING}


@pytest.mark.parametrize("stands", [UP, DOWN, REFUSED])
def test_the_same_again_concerns_the_node_alone(room: Room, stands: Link) -> None:
    room.hears(stands)
    later = Link(connected=stands.connected, reason=stands.reason, message="tried again", last_frame_at=1.0)
    assert room.hears(*[later] * 100) == {NODE}


def test_a_new_operator_that_reaches_a_node_that_was_ready_looks_at_no_task(room: Room) -> None:
    assert room.hears(UP) == {NODE}


def test_a_new_operator_that_reaches_a_node_that_was_lost_looks_at_its_tasks(fake: FakeApi, api: KubeApi) -> None:
    assert Room(fake, api, was_ready=False).hears(UP) == {NODE, SERVICE, STOPPING}


def test_a_new_operator_that_cannot_reach_a_node_looks_at_its_tasks(room: Room) -> None:
    assert room.hears(DOWN) == {NODE, SERVICE, STOPPING}


def test_the_link_of_a_node_that_is_gone_concerns_nobody(room: Room) -> None:
    room.caches[NODES].remove(Key("", "n1"))
    assert room.hears(DOWN) == set()
