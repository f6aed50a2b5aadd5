"""Objects of another schema than ours, as after a downgrade: what runs goes on, nothing is made twice, and the reason is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from moorage_operator.errors import InvalidSpec
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.object import Key, Obj, key_of, uid_of
from moorage_operator.kube.resource import IMAGES, NODES, SERVICES, TASKS, Resource
from moorage_operator.plan.loss import Fate, verdict
from moorage_operator.plan.loss_rule import LossRule
from moorage_operator.reconcile.service import reconcile_service

from tests.operator.fakeapi import FakeApi
from tests.operator.kube.waiting import until
from tests.operator.plan.objects import DIGEST, ready
from tests.operator.reconcile.worlds import Bench

WEB = Key("default", "web")


class Shop(Bench):
    """One node, and the Service web of two tasks on it."""

    async def look(self) -> None:
        await reconcile_service(WEB, self.world)

    @property
    def tasks(self) -> list[str]:
        """As the server has them."""
        return sorted(task["metadata"]["name"] for task in self.fake.store.find(TASKS, namespace="default"))

    def garble(self, resource: Resource, obj: Obj, *, deleted_at: str | None = None, **spec: object) -> None:
        """In the cache alone: the server would not take it from us. No field: as it was."""
        known = self.caches[resource].get(key_of(obj))
        assert known is not None
        version = str(int(known["metadata"]["resourceVersion"]) + 1)
        metadata = {**obj["metadata"], "resourceVersion": version, "generation": int(version)}
        if deleted_at is not None:
            metadata["deletionTimestamp"] = deleted_at
        self.seen(resource, {**obj, "metadata": metadata, "spec": {**obj["spec"], **spec}})

    @property
    def first(self) -> Obj:
        return next(task for task in self.caches[TASKS].values() if task["spec"]["slot"] == "1")


@pytest.fixture
async def shop(fake: FakeApi, api: KubeApi) -> AsyncIterator[Shop]:
    shop = Shop(fake, api)
    shop.add(NODES, "n1", {"ssh": {"host": "192.0.2.1", "keySecretRef": {"name": "key"}}}, status=ready(since=shop.clock.now()))
    for node in shop.world.nodes:
        shop.world.placer.view.put_node(node)
    shop.add(IMAGES, "app", {"registry": {"reference": "app:1"}}, status={"digest": DIGEST, "reference": "app:1"})
    shop.add(SERVICES, "web", {"replicas": 2, "task": {"imageRef": {"name": "app"}}})
    writing = asyncio.create_task(shop.statuses.run())
    await shop.look()
    assert len(shop.tasks) == 2
    yield shop
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_the_tasks_of_a_service_that_cannot_be_read_are_not_stopped(shop: Shop) -> None:
    before = shop.tasks
    shop.garble(SERVICES, shop.fake.store.get(SERVICES, WEB), replicas="many")
    with pytest.raises(InvalidSpec, match="Service default/web cannot be read by this version of the operator"):
        await shop.look()
    assert shop.tasks == before


async def test_a_task_that_cannot_be_read_is_not_made_a_second_time_and_its_service_says_why(shop: Shop) -> None:
    before, good = shop.tasks, shop.first
    shop.garble(TASKS, good, attempt="first")
    with pytest.raises(InvalidSpec, match="Task default/web-1-"):
        await shop.look()
    assert shop.tasks == before
    await until(lambda: not shop.statuses.waiting)
    conditions = {each["type"]: each for each in shop.fake.store.get(SERVICES, WEB)["status"]["conditions"]}
    assert (conditions["Stalled"]["status"], conditions["Stalled"]["reason"]) == ("True", "Unreadable")
    assert good["metadata"]["name"] in conditions["Stalled"]["message"]
    shop.garble(TASKS, good)
    await shop.look()
    assert shop.tasks == before


@pytest.mark.parametrize("garbled", [{"attempt": "first"}, {"container": {"mounts": "none"}}])
async def test_no_document_leaves_out_a_task_that_cannot_be_read(shop: Shop, garbled: Obj) -> None:
    uid, good = uid_of(shop.fake.store.get(NODES, Key("", "n1"))), shop.first
    assert len(shop.desk.wish(uid).tasks) == 2
    shop.garble(TASKS, good, **garbled)
    with pytest.raises(InvalidSpec, match=f"Task default/{good['metadata']['name']} cannot be read"):
        shop.desk.wish(uid)
    shop.garble(TASKS, good, deleted_at="2030-01-01T12:00:00Z", **garbled)
    assert len(shop.desk.wish(uid).tasks) == 1, "deleting it is the way out"


async def test_a_node_that_cannot_be_read_has_lost_nothing(shop: Shop) -> None:
    node = shop.fake.store.get(NODES, Key("", "n1"))
    wish = shop.desk.wish(uid_of(node))
    shop.garble(NODES, node, availability=7)
    await shop.clock.advance(3600)
    found = shop.world.losses()
    assert verdict("n1", LossRule(after=timedelta(seconds=30)), found, now=shop.world.now()).fate is Fate.STAYS
    assert shop.desk.wish(uid_of(node)) == wish
    shop.desk.forget(uid_of(node))
    with pytest.raises(InvalidSpec, match="nobody knows what its host should run"):
        shop.desk.wish(uid_of(node))
