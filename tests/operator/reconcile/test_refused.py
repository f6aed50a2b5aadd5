"""Writes that the API server refuses: the object says why, and nothing stays reserved for what was not written."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.object import Key, Obj, key_of
from moorage_operator.kube.resource import IMAGES, NODES, SERVICES, STACKS, TASKS
from moorage_operator.reconcile import triggers
from moorage_operator.reconcile.refusals import RETRY_S
from moorage_operator.reconcile.service import reconcile_service
from moorage_operator.reconcile.stack import reconcile_stack

from tests.operator.fakeapi import FakeApi
from tests.operator.plan.objects import DIGEST, ready
from tests.operator.reconcile.worlds import Bench

WEB, N1 = Key("default", "web"), Key("", "n1")
TASK = {"imageRef": {"name": "app"}, "resources": {"reservations": {"memory": "1Gi"}}}


class Shop(Bench):
    async def look(self) -> float | None:
        again_s = await reconcile_service(WEB, self.world)
        await self.written()
        return again_s

    @property
    def ready(self) -> Obj:
        conditions = self.fake.store.get(SERVICES, WEB)["status"]["conditions"]
        return dict(next(one for one in conditions if one["type"] == "Ready"))

    @property
    def reserved(self) -> tuple[int, int]:
        """Tasks and MiB on node n1, as placement sees it."""
        load = self.world.placer.view.fleet().nodes["n1"].load
        return load.tasks, load.memory_bytes // 2**20


@pytest.fixture
async def shop(fake: FakeApi, api: KubeApi) -> AsyncIterator[Shop]:
    shop = Shop(fake, api)
    triggers.connect(shop.world)
    capacity = {"capacity": {"cpu": "4", "memory": "8Gi"}}
    shop.add(NODES, "n1", {"ssh": {"host": "192.0.2.1", "keySecretRef": {"name": "key"}}}, status=ready() | capacity)
    shop.add(IMAGES, "app", {"registry": {"reference": "app:1"}}, status={"digest": DIGEST, "reference": "app:1"})
    async with shop.writing():
        yield shop


async def test_a_service_whose_tasks_are_refused_says_why_and_tries_again(shop: Shop) -> None:
    shop.add(SERVICES, "web", {"replicas": 3, "task": TASK})
    shop.fake.faults.fail("create", "swarmtasks", 403, times=3, message="exceeded quota: tasks")
    again_s = await shop.look()
    assert again_s is not None
    assert again_s <= RETRY_S
    assert (shop.ready["status"], shop.ready["reason"]) == ("False", "Forbidden")
    assert "the API server refused 3 Tasks, tried again every 30 s: " in shop.ready["message"]
    assert "exceeded quota: tasks" in shop.ready["message"]
    assert shop.reserved == (0, 0)
    asked, version = shop.fake.calls["create", "swarmtasks"], shop.ready["message"]
    await shop.look()
    assert (shop.fake.calls["create", "swarmtasks"], shop.ready["message"]) == (asked, version), "its own status brings the next look"
    await shop.clock.advance(RETRY_S)
    await shop.look()
    assert len(shop.fake.store.find(TASKS, namespace="default")) == 3
    assert shop.ready["reason"] != "Forbidden"


async def test_a_corrected_service_is_not_kept_waiting(shop: Shop) -> None:
    shop.add(SERVICES, "web", {"replicas": 3, "task": TASK})
    shop.fake.faults.fail("create", "swarmtasks", 403, times=3)
    await shop.look()
    shop.change(SERVICES, WEB, spec={"replicas": 1})
    assert await shop.look() is None
    assert len(shop.fake.store.find(TASKS, namespace="default")) == 1


async def test_a_service_whose_image_is_refused_says_why(shop: Shop) -> None:
    shop.add(SERVICES, "web", {"replicas": 1, "task": {"image": "app:2"}})
    shop.fake.faults.fail("create", "swarmimages", 403, message="denied by policy")
    await shop.look()
    assert "the API server refused the Image" in shop.ready["message"]
    assert "denied by policy" in shop.ready["message"]


@pytest.mark.parametrize("code", [404, 409, 503])
async def test_a_place_whose_write_fails_is_free_again(shop: Shop, code: int) -> None:
    shop.change(NODES, N1, spec={"availability": "Pause"})
    shop.add(SERVICES, "web", {"replicas": 3, "task": TASK})
    await shop.look()
    shop.change(NODES, N1, spec={"availability": "Active"})
    shop.fake.faults.fail("patch", "swarmtasks", code, times=30)
    look = reconcile_service(WEB, shop.world)
    if code == 503:
        with pytest.raises(Exception, match="injected"):
            await look
    else:
        await look
    assert shop.reserved == (0, 0)
    shop.fake.faults.clear()
    await shop.look()
    assert shop.reserved == (3, 3072)


async def test_services_stay_when_their_stack_is_deleted_without_its_dependents(shop: Shop) -> None:
    key = Key("default", "shop")
    stack = shop.add(STACKS, "shop", {"services": [{"name": "web", "task": TASK}]})
    await reconcile_stack(key, shop.world)
    [service] = shop.fake.store.find(SERVICES, namespace="default")
    metadata = {**stack["metadata"], "resourceVersion": "1000000", "deletionTimestamp": "2030-01-01T12:00:00Z", "finalizers": ["orphan"]}
    shop.caches[STACKS].put({**stack, "metadata": metadata})
    await reconcile_stack(key, shop.world)
    assert shop.fake.store.find(SERVICES, namespace="default")
    # The garbage collector takes the owner off; that the Stack is gone is heard of first.
    shop.fake.store.update(SERVICES, key_of(service), lambda old: {**old, "metadata": {**old["metadata"], "ownerReferences": []}})
    shop.caches[STACKS].remove(key)
    await reconcile_stack(key, shop.world)
    shop.refresh()
    await reconcile_stack(key, shop.world)
    assert [each["metadata"]["name"] for each in shop.fake.store.find(SERVICES, namespace="default")] == ["shop-web"]


async def test_services_go_with_their_stack(shop: Shop) -> None:
    key = Key("default", "shop")
    shop.add(STACKS, "shop", {"services": [{"name": "web", "task": TASK}]})
    await reconcile_stack(key, shop.world)
    shop.caches[STACKS].remove(key)
    await reconcile_stack(key, shop.world)
    assert not shop.fake.store.find(SERVICES, namespace="default")
