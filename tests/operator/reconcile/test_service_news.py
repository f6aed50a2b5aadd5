"""When a Service's status is written: at once where somebody may wait for it, counts once for a burst of tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.object import Key, Obj, key_of
from moorage_operator.kube.resource import IMAGES, NODES, SERVICES, TASKS
from moorage_operator.kube.timestamp import timestamp
from moorage_operator.reconcile.service import COUNTS_S, reconcile_service

from tests.operator.fakeapi import FakeApi
from tests.operator.kube.waiting import until
from tests.operator.plan.objects import DIGEST, ready
from tests.operator.reconcile.worlds import Bench

WEB = Key("default", "web")
MONITOR_S = 5


class Shop(Bench):
    """One node, and the Service web of three tasks."""

    @property
    def status(self) -> Obj:
        """As the server has it."""
        return dict(self.fake.store.get(SERVICES, WEB).get("status") or {})

    @property
    def writes(self) -> int:
        return self.fake.calls["patch", "swarmservices/status"]

    async def look(self) -> None:
        await reconcile_service(WEB, self.world)

    async def written(self) -> None:
        """Without any time having passed for the operator."""
        await until(lambda: not self.statuses.waiting)

    async def look_and_write(self) -> None:
        await self.look()
        await self.written()

    def tell(self, slot: str, status: Obj) -> None:
        [task] = [task for task in self.caches[TASKS].values() if task["spec"]["slot"] == slot]
        self.change(TASKS, key_of(task), status=status)

    def run(self, *slots: str) -> None:
        condition = {"type": "Ready", "status": "True", "reason": "Running", "lastTransitionTime": timestamp(self.clock.now())}
        for slot in slots:
            self.tell(slot, {"state": "Running", "conditions": [condition]})


@pytest.fixture
async def shop(fake: FakeApi, api: KubeApi) -> AsyncIterator[Shop]:
    shop = Shop(fake, api)
    key = {"ssh": {"host": "192.0.2.1", "keySecretRef": {"name": "key"}}}
    shop.add(NODES, "n1", key, status=ready(since=shop.clock.now()))
    for node in shop.world.nodes:
        shop.world.placer.view.put_node(node)
    shop.add(IMAGES, "app", {"registry": {"reference": "app:1"}}, status={"digest": DIGEST, "reference": "app:1"})
    update = {"monitor": f"{MONITOR_S}s"}
    shop.add(SERVICES, "web", {"replicas": 3, "task": {"imageRef": {"name": "app"}}, "update": update})
    writing = asyncio.create_task(shop.statuses.run())
    await shop.look_and_write()
    yield shop
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_counts_of_a_burst_are_written_once(shop: Shop) -> None:
    before = shop.writes
    for slot in ("1", "2"):
        shop.run(slot)
        await shop.look()
    await shop.clock.advance(COUNTS_S / 2)
    assert (shop.writes, shop.status["replicasReady"]) == (before, "0/3")
    await shop.clock.advance(COUNTS_S / 2)
    await shop.written()
    assert (shop.writes, shop.status["replicasReady"]) == (before + 1, "2/3")


async def test_a_burst_without_end_does_not_keep_its_counts_from_being_written(shop: Shop) -> None:
    before = shop.writes
    for slot in ("1", "2"):
        shop.run(slot)
        await shop.look()
        await shop.clock.advance(COUNTS_S * 0.6)
    await shop.written()
    assert (shop.writes, shop.status["replicasReady"]) == (before + 1, "2/3")


async def test_a_service_that_becomes_ready_says_so_at_once(shop: Shop) -> None:
    shop.run("1", "2", "3")
    await shop.look_and_write()
    assert condition(shop, "Ready") == ("True", "AllTasksReady")


async def test_another_reason_is_told_at_once_though_the_service_was_not_ready_before(shop: Shop) -> None:
    assert condition(shop, "Ready") == ("False", "TasksNotReady")
    shop.tell("1", {"state": "Preparing", "reason": "RegistryUnavailable", "message": "the registry does not answer; tried again"})
    await shop.look_and_write()
    assert condition(shop, "Ready") == ("False", "RegistryUnavailable")


async def test_a_changed_spec_is_acknowledged_at_once(shop: Shop) -> None:
    shop.change(SERVICES, WEB, spec={"onDataChange": "Ignore"})
    await shop.look_and_write()
    assert shop.status["observedGeneration"] == shop.fake.store.get(SERVICES, WEB)["metadata"]["generation"] == 2


async def test_the_end_of_an_update_is_told_at_once(shop: Shop) -> None:
    """Ready was told before: the tasks then had still to prove themselves."""
    shop.run("1", "2", "3")
    await shop.look_and_write()
    update = {"state": "Updating", "version": shop.status["version"], "startedAt": timestamp(shop.clock.now())}
    shop.change(SERVICES, WEB, status={**shop.status, "update": update})
    await shop.look()
    await shop.clock.advance(COUNTS_S)
    await shop.written()
    assert shop.status["update"]["state"] == "Updating"
    await shop.clock.advance(MONITOR_S)
    await shop.look_and_write()
    assert shop.status["update"]["state"] == "Completed"


def condition(shop: Shop, kind: str) -> tuple[str, str]:
    [found] = [each for each in shop.status["conditions"] if each["type"] == kind]
    return found["status"], found["reason"]
