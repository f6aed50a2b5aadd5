"""Events: each said once, then counted, never at anybody's cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.events import REMEMBERED, EventRecorder
from moorage_operator.kube.object import Key, Obj, key_of
from moorage_operator.kube.resource import EVENTS

from tests.operator.fakeapi import FakeApi
from tests.operator.kube.clock import ManualClock
from tests.operator.kube.conftest import Server
from tests.operator.kube.waiting import until

TASK: Obj = {"apiVersion": "moorage.dev/v1alpha1", "kind": "Task", "metadata": {"namespace": "default", "name": "web-1-x", "uid": "u1"}}


@dataclass
class Desk:
    fake: FakeApi
    clock: ManualClock
    recorder: EventRecorder

    def there(self) -> list[Obj]:
        return self.fake.store.find(EVENTS)

    async def live(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds))):
            await self.clock.advance(seconds / max(1, round(seconds)))
            await asyncio.sleep(0.003)


@pytest.fixture
async def desk(fake: FakeApi) -> AsyncIterator[Desk]:
    clock = ManualClock()
    async with KubeApi(fake.credentials, clock=SystemClock()) as api:
        recorder = EventRecorder(api, clock=clock, component="moorage", instance="process-1")
        task = asyncio.create_task(recorder.run())
        yield Desk(fake, clock, recorder)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_event_tells_who_what_and_when(desk: Desk) -> None:
    desk.recorder.record(TASK, "PullFailed", "image not found", warning=True)
    await until(desk.there)
    (event,) = desk.there()
    assert (event["reason"], event["message"], event["type"], event["count"]) == ("PullFailed", "image not found", "Warning", 1)
    assert event["involvedObject"] == {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "Task",
        "namespace": "default",
        "name": "web-1-x",
        "uid": "u1",
    }
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2030-01-01T12:00:00Z"


async def test_the_same_again_is_counted_and_written_once_a_minute(desk: Desk) -> None:
    for _ in range(100):
        desk.recorder.record(TASK, "Unhealthy", "probe failed")
        await desk.live(1)
    await desk.live(61)
    (event,) = desk.there()
    assert event["count"] == 100
    assert event["lastTimestamp"] == "2030-01-01T12:01:39Z"
    assert (desk.fake.calls["create", "events"], desk.fake.calls["patch", "events"]) == (1, 2)


async def test_other_reasons_messages_and_objects_are_other_events(desk: Desk) -> None:
    other = {**TASK, "metadata": {**TASK["metadata"], "uid": "u2"}}
    desk.recorder.record(TASK, "A", "x")
    desk.recorder.record(TASK, "A", "y")
    desk.recorder.record(TASK, "B", "x")
    desk.recorder.record(other, "A", "x")
    await until(lambda: len(desk.there()) == 4)


async def test_an_event_the_server_has_forgotten_begins_anew(desk: Desk) -> None:
    desk.recorder.record(TASK, "A", "x")
    await until(desk.there)
    for event in desk.there():
        desk.fake.store.delete(EVENTS, _key(event))
    await desk.clock.advance(3600)
    desk.recorder.record(TASK, "A", "x")
    await until(desk.there)
    assert desk.there()[0]["count"] == 2


async def test_a_flood_of_events_is_slowed_down(desk: Desk) -> None:
    for number in range(200):
        desk.recorder.record(TASK, "A", str(number))
    await until(lambda: desk.fake.calls["create", "events"] >= 50)
    await asyncio.sleep(0.1)
    assert desk.fake.calls["create", "events"] == 50
    began = desk.clock.monotonic()
    while desk.fake.calls["create", "events"] < 200:
        await desk.clock.advance(0.1)
        await asyncio.sleep(0.001)
    assert desk.clock.monotonic() - began >= 150 / 5 - 1


async def test_a_server_that_refuses_events_troubles_nobody(desk: Desk) -> None:
    desk.fake.faults.fail("create", "events", 403)
    desk.recorder.record(TASK, "A", "x")
    await until(lambda: desk.recorder.dropped == 1)
    desk.recorder.record(TASK, "B", "x")
    await until(desk.there)


async def test_what_is_said_before_anybody_writes_is_bounded(fake: FakeApi) -> None:
    async with KubeApi(fake.credentials, clock=SystemClock()) as api:
        recorder = EventRecorder(api, clock=ManualClock(), component="moorage", instance="p")
        for number in range(REMEMBERED + 10):
            recorder.record(TASK, "A", str(number))
    assert recorder.dropped == 10


async def test_a_long_message_is_cut(desk: Desk) -> None:
    desk.recorder.record(TASK, "A", "ü" * 2000)
    await until(desk.there)
    message = desk.there()[0]["message"]
    assert len(message.encode()) <= 1024
    assert message.endswith("ü…")


async def test_events_are_accepted_about_objects_with_and_without_namespace(server: Server) -> None:
    recorder = EventRecorder(server.api, clock=SystemClock(), component="moorage", instance=server.namespace)
    task = asyncio.create_task(recorder.run())
    try:
        mine = {**TASK, "metadata": {"namespace": server.namespace, "name": "web-1-x", "uid": "u1"}}
        recorder.record(mine, "PullFailed", "no", warning=True)
        node = {"apiVersion": "moorage.dev/v1alpha1", "kind": "Node", "metadata": {"name": "n1", "uid": server.namespace}}
        recorder.record(node, "Connected", "yes")
        async with asyncio.timeout(10):
            while not (await server.api.list(EVENTS, namespace=server.namespace)).items:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            fields = f"involvedObject.uid={server.namespace}"
            while not (await server.api.list(EVENTS, namespace="default", fields=fields)).items:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert recorder.dropped == 0
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _key(event: Obj) -> Key:
    return key_of(event)
