"""What a host says of anything but itself is not believed: it may be anybody's by now."""

from __future__ import annotations

import asyncio

import pytest
from moorage_agent.protocol import NodeReport, TaskReport
from moorage_operator.errors import AgentError
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.object import Obj, uid_of
from moorage_operator.kube.resource import EVENTS, NODES, TASKS

from tests.operator.fakeapi import FakeApi
from tests.operator.kube.waiting import until
from tests.operator.reconcile.worlds import Bench

SSH = {"ssh": {"host": "192.0.2.1", "keySecretRef": {"name": "key"}}}


class Room(Bench):
    """Two nodes with a task each."""

    def __init__(self, fake: FakeApi, api: KubeApi) -> None:
        super().__init__(fake, api)
        self.raised: list[int] = []
        self.world.raise_epoch_above = self._raise
        self.nodes = {name: uid_of(self.add(NODES, name, SSH)) for name in ("n1", "n2")}
        self.tasks = {name: uid_of(self._task(f"web-{name}", nodeName=name)) for name in ("n1", "n2")}
        self.looks.clear()

    def _task(self, name: str, **spec: object) -> Obj:
        return self.add(TASKS, name, {"service": "web", "slot": "1", "version": "v1", "container": {}, **spec})

    async def _raise(self, epoch: int) -> None:
        self.raised.append(epoch)

    def reports(self, node: str, *uids: str, removed: tuple[str, ...] = (), full: bool = False) -> None:
        tasks = tuple(TaskReport(uid, "Failed") for uid in uids)
        report = NodeReport(full=full, epoch=1, revision=1, hash="", tasks=tasks, removed=removed)
        self.desk.on_report(self.nodes[node], report)


@pytest.fixture
def room(fake: FakeApi, api: KubeApi) -> Room:
    return Room(fake, api)


@pytest.mark.parametrize("full", [True, False])
def test_a_host_is_believed_about_its_own_tasks_alone(room: Room, full: bool) -> None:
    room.reports("n1", room.tasks["n1"], room.tasks["n2"], full=full)
    assert room.world.reports.latest(room.tasks["n1"]) is not None
    assert room.world.reports.latest(room.tasks["n2"]) is None
    assert ("Task", "web-n2") not in room.looks


def test_a_host_cannot_say_that_a_task_of_another_is_gone(room: Room) -> None:
    room.reports("n1", removed=(room.tasks["n1"], room.tasks["n2"]))
    assert room.world.reports.is_gone(room.tasks["n1"])
    assert not room.world.reports.is_gone(room.tasks["n2"])
    assert ("Task", "web-n2") not in room.looks


def test_a_host_cannot_speak_of_a_task_that_has_no_node_yet(room: Room) -> None:
    waiting = uid_of(room._task("web-3"))
    room.reports("n1", waiting, removed=(waiting,), full=True)
    assert room.world.reports.latest(waiting) is None
    assert not room.world.reports.is_gone(waiting)


@pytest.mark.parametrize("full", [True, False])
def test_tasks_that_nobody_made_are_not_remembered(room: Room, full: bool) -> None:
    room.reports("n1", *(f"made-up-{number}" for number in range(50)), removed=("made-up-too",), full=full)
    assert room.world.reports.latest("made-up-7") is None
    assert not room.world.reports.is_gone("made-up-too")


def test_a_task_of_before_our_time_that_its_node_told_of_first_counts_as_told(room: Room) -> None:
    """The API server's word of it may come later than its host's."""
    room.reports("n1", "early", full=True)
    assert not room.world.reports.never_told("early", node=room.nodes["n1"])
    assert room.world.reports.never_told("early-elsewhere", node=room.nodes["n1"])
    room.reports("n1", full=True)
    assert room.world.reports.never_told("early", node=room.nodes["n1"])


async def test_an_epoch_far_above_ours_is_not_believed_and_an_event_says_whose_it_is(room: Room, fake: FakeApi) -> None:
    room.world.leadership.epoch = 7
    with pytest.raises(AgentError) as refused:
        await room.desk.on_newer_epoch(room.nodes["n1"], 2**64 - 1)
    assert (refused.value.reason, room.raised) == ("EpochNotBelieved", [])
    saying = asyncio.create_task(room.world.events.run())
    await until(lambda: fake.store.find(EVENTS))
    saying.cancel()
    (event,) = fake.store.find(EVENTS)
    assert (event["reason"], event["involvedObject"]["name"]) == ("EpochNotBelieved", "n1")


async def test_an_epoch_somewhat_above_ours_is_gone_above(room: Room) -> None:
    room.world.leadership.epoch = 7
    await room.desk.on_newer_epoch(room.nodes["n1"], 1_000)
    assert room.raised == [1_000]
