"""Who takes over has what the leader before wrote, however far its watches are behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from moorage_operator.__main__ import Operator
from moorage_operator.command import Command
from moorage_operator.kube.object import Key, uid_of
from moorage_operator.kube.resource import IMAGES, NAMESPACES, NODES, SECRETS, SERVICES, TASKS
from moorage_operator.settings import Settings

from tests.operator.fakeapi import FakeApi
from tests.operator.fleet.agent import Agent
from tests.operator.fleet.sshd import LoopbackSshd
from tests.operator.kube.waiting import until
from tests.operator.plan.objects import DIGEST, ready

NAMESPACE = "moorage-system"
N1 = Key("", "n1")


@pytest.fixture
async def agent(fake: FakeApi) -> AsyncIterator[Agent]:
    """On the host of n1, which is Ready; image app is resolved."""
    agent = Agent()
    async with LoopbackSshd(agent.serve).running() as sshd:
        store = fake.store
        store.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
        store.create(SECRETS, sshd.key_secret(NAMESPACE))
        store.create(NODES, {"metadata": {"name": "n1"}, "spec": {"ssh": sshd.node_ssh()}})
        store.update(NODES, N1, lambda old: {**old, "status": ready()}, part="status")
        store.create(IMAGES, {"metadata": {"name": "app", "namespace": "default"}, "spec": {"registry": {"reference": "app:1"}}})
        resolved = {"digest": DIGEST, "reference": "app:1"}
        store.update(IMAGES, Key("default", "app"), lambda old: {**old, "status": resolved}, part="status")
        yield agent


@asynccontextmanager
async def operator(fake: FakeApi) -> AsyncIterator[Command]:
    """Without kopf: what it watches, a test feeds."""
    process = Operator(Settings(namespace=NAMESPACE, http_host="127.0.0.1", http_port=0), fake.credentials)
    command = await process.start()
    try:
        yield command
    finally:
        await process.stop()


async def test_a_standby_whose_watch_is_behind_stops_no_task_when_it_takes_over(fake: FakeApi, agent: Agent) -> None:
    async with operator(fake) as first:
        await until(lambda: first.world.leadership.epoch)
        assert fake.calls["list", "swarmtasks"] == 1, "whoever starts alone lists once"
        async with operator(fake) as second:
            fake.faults.drop_events(1000, when=lambda _, obj: obj["kind"] in ("SwarmTask", "Task"))
            service = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": 1, "task": {"imageRef": {"name": "app"}}}}
            first.feed(SERVICES, "ADDED", fake.store.create(SERVICES, service))
            await until(lambda: agent.documents and agent.documents[-1].get("tasks"))
            (task,) = fake.store.find(TASKS)
            assert not len(second.world.tasks.raw), "its watch is behind"
            before = len(agent.documents)
            await first.stop()
            await until(lambda: len(agent.documents) > before)
            assert [[each["uid"] for each in document.get("tasks", ())] for document in agent.documents[before:]] == [[uid_of(task)]]
            assert second.world.leadership.epoch > first.world.leadership.epoch
