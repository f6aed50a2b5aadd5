"""Tasks and Nodes on their way out, where the host does not take part."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random

import pytest
from moorage_operator.errors import HostKeyMismatch
from moorage_operator.fleet.archive import archive_of
from moorage_operator.fleet.fleet import Fleet
from moorage_operator.fleet.governor import Governor
from moorage_operator.fleet.ssh import Connection
from moorage_operator.fleet.target import Credentials, Target
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.object import Key, Obj, key_of, uid_of
from moorage_operator.kube.resource import IMAGES, NAMESPACES, NODES, SECRETS, SERVICES, TASKS
from moorage_operator.reconcile import triggers
from moorage_operator.reconcile.node import reconcile_node
from moorage_operator.reconcile.service import reconcile_service
from moorage_operator.reconcile.task_state import reconcile_task
from moorage_operator.reconcile.world import Leadership

from tests.operator.fakeapi import FakeApi
from tests.operator.fleet.agent import ARCHIVE, Agent
from tests.operator.fleet.sshd import LoopbackSshd
from tests.operator.kube.waiting import until
from tests.operator.plan.objects import DIGEST, ready
from tests.operator.reconcile.worlds import Bench

N1 = Key("", "n1")
SSH = {"ssh": {"host": "192.0.2.1", "keySecretRef": {"name": "key"}}}


class Harbour(Bench):
    """Nodes n1 and n2; n1's host refuses us. Services of one task with a volume, all on n1."""

    async def look_at_node(self) -> None:
        await reconcile_node(N1, self.world)

    async def look_at_services(self) -> None:
        for key in list(self.caches[SERVICES].keys()):
            await reconcile_service(key, self.world)

    async def look_at_tasks(self) -> list[float | None]:
        return [await reconcile_task(key, self.world) for key in list(self.caches[TASKS].keys())]

    @property
    def places(self) -> list[tuple[str, str]]:
        """Node and state of the tasks, as the server has them."""
        tasks = self.fake.store.find(TASKS, namespace="default")
        return sorted((task["spec"].get("nodeName", ""), (task.get("status") or {}).get("state", "")) for task in tasks)


async def _other_key(target: Target, *, through: Connection | None = None) -> Connection:
    raise HostKeyMismatch(f"{target.host} showed another key", seen="ssh-ed25519 AAAA")


@pytest.fixture
async def harbour(fake: FakeApi, api: KubeApi) -> AsyncIterator[Harbour]:
    harbour = Harbour(fake, api)
    world = harbour.world
    triggers.connect(world)
    world.leadership = Leadership(1, harbour.clock.now() - timedelta(hours=1))
    fleet = Fleet(desk=harbour.desk, governor=Governor(_other_key), archive=archive_of({}), root="/", random=Random(1))
    world.set_fleet(fleet)
    for name in ("n1", "n2"):
        pause = {} if name == "n1" else {"availability": "Pause"}
        harbour.add(NODES, name, SSH | pause, status=ready(), finalizers=["moorage.dev/node"])
    harbour.add(IMAGES, "app", {"registry": {"reference": "app:1"}}, status={"digest": DIGEST, "reference": "app:1"})
    mounts = [{"target": "/data", "volume": {"name": "data-{{.Service.Name}}"}}]
    for number in range(3):
        harbour.add(SERVICES, f"db{number}", {"replicas": 1, "task": {"imageRef": {"name": "app"}, "mounts": mounts}})
    await harbour.look_at_services()
    assert harbour.places == [("n1", "")] * 3
    uid = uid_of(fake.store.get(NODES, N1))
    fleet.keep(uid, Target("192.0.2.1", "root", Credentials(b"")))
    await until(lambda: world.fleet.link(uid).reason == "HostKeyMismatch")  # type: ignore[union-attr]
    async with harbour.writing():
        yield harbour
    await fleet.drop_all()


def _delete(harbour: Bench, name: str) -> None:
    harbour.fake.store.delete(NODES, Key("", name))
    harbour.seen(NODES, harbour.fake.store.get(NODES, Key("", name)))


async def test_a_node_out_of_service_goes_once_all_its_tasks_are_given_up(harbour: Harbour) -> None:
    harbour.change(NODES, Key("", "n2"), spec={"availability": "Active"})
    harbour.change(NODES, N1, spec={"outOfService": True})
    _delete(harbour, "n1")
    await harbour.look_at_node()
    await harbour.written()
    conditions = {one["type"]: one for one in harbour.fake.store.get(NODES, N1)["status"]["conditions"]}
    assert conditions["Removing"]["message"] == "the host is out of service: 3 tasks there still to be given up"
    await harbour.look_at_services()
    await harbour.written()
    harbour.refresh()
    assert harbour.places == [("n1", "Orphaned")] * 3 + [("n2", "")] * 3
    await harbour.look_at_node()
    assert N1 not in harbour.caches[NODES]


async def test_a_task_that_stops_on_a_host_that_refuses_us_says_so_and_goes_with_the_host(harbour: Harbour) -> None:
    tasks = harbour.fake.store.find(TASKS, namespace="default")
    for task in tasks:
        harbour.fake.store.delete(TASKS, key_of(task))
    harbour.refresh()
    assert await harbour.look_at_tasks() == [5.0] * 3
    await harbour.written()
    messages = {_message(harbour, task) for task in tasks}
    assert messages == {
        "stopping: node n1 takes no orders (HostKeyMismatch: 192.0.2.1 showed another key); "
        "if the host is gone for good, set spec.outOfService on Node n1"
    }
    harbour.looks.clear()
    harbour.change(NODES, N1, spec={"outOfService": True})
    assert {(kind, name) for kind, name in harbour.looks if kind == "Task"} == {("Task", task["metadata"]["name"]) for task in tasks}
    await harbour.look_at_tasks()
    assert not harbour.fake.store.find(TASKS, namespace="default")


def _message(harbour: Harbour, task: Obj) -> str:
    return str(harbour.fake.store.get(TASKS, key_of(task))["status"]["message"])


async def test_an_agent_that_cannot_go_keeps_its_node_which_says_why(fake: FakeApi, api: KubeApi) -> None:
    remains = "still stopping after 300 s: a, b; nothing was removed"
    bench, agent = Bench(fake, api), Agent(remains={"code": "TasksRemain", "message": remains})
    world = bench.world
    world.set_fleet(Fleet(desk=bench.desk, governor=Governor(), archive=ARCHIVE, root="/", random=Random(1)))
    async with LoopbackSshd(agent.serve).running() as sshd, bench.writing():
        fake.store.create(NAMESPACES, {"metadata": {"name": "moorage-system"}})
        fake.store.create(SECRETS, sshd.key_secret("moorage-system"))
        node = bench.add(NODES, "n1", {"ssh": sshd.node_ssh()}, finalizers=["moorage.dev/node"])
        await reconcile_node(N1, world)
        await until(lambda: world.fleet.session(uid_of(node)).link.connected)
        _delete(bench, "n1")
        assert await reconcile_node(N1, world) == 5.0
        await bench.written()
        assert _removing(fake) == ("Uninstall", f"the agent is not uninstalled yet, it is asked again: {remains}")
        bench.refresh()
        agent.remains = None
        assert await reconcile_node(N1, world) is None
        assert N1 not in bench.caches[NODES]


def _removing(fake: FakeApi) -> tuple[str, str]:
    conditions = {one["type"]: one for one in fake.store.get(NODES, N1)["status"]["conditions"]}
    return conditions["Removing"]["reason"], conditions["Removing"]["message"]
