"""What the uninstall guard sees, says and lets go."""

from __future__ import annotations

import asyncio
from typing import Any

from moorage_operator import uninstall
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.object import Key, Obj
from moorage_operator.kube.resource import NODES, SERVICES, STACKS, TASKS, Resource

from tests.operator.fakeapi import FakeApi

ALL = ("",)


class HastyClock(SystemClock):
    """Waiting takes no time, but counts."""

    def __init__(self) -> None:
        self._waited_s = 0.0

    def monotonic(self) -> float:
        return self._waited_s

    async def sleep(self, seconds: float) -> None:
        self._waited_s += seconds
        await asyncio.sleep(0)


async def make(api: KubeApi, resource: Resource, name: str, *finalizers: str, namespace: str = "default", **spec: Any) -> Obj:
    metadata = {"name": name, "finalizers": list(finalizers), **({"namespace": namespace} if resource.namespaced else {})}
    return await api.create(resource, {"metadata": metadata, "spec": spec})


async def test_an_empty_cluster_needs_no_operator(api: KubeApi) -> None:
    found = await uninstall.left(api, ALL)
    assert found.describe() == ""
    assert not found.held


async def test_what_is_left_is_told_by_kind_and_name(api: KubeApi) -> None:
    await make(api, STACKS, "shop")
    for number in range(5):
        await make(api, SERVICES, f"s{number}")
    await make(api, NODES, "n1")
    found = await uninstall.left(api, ALL)
    assert found.describe() == "1 Stack (default/shop), 5 Services (default/s0, default/s1, default/s2, ...) and 1 Node (n1)"


async def test_only_served_namespaces_count_and_nodes_always_do(api: KubeApi) -> None:
    await make(api, SERVICES, "web", namespace="kube-system")
    assert (await uninstall.left(api, ("default",))).describe() == ""
    await make(api, NODES, "n1")
    assert (await uninstall.left(api, ("default",))).describe() == "1 Node (n1)"
    assert (await uninstall.left(api, ("default", "kube-system"))).describe() == "1 Service (kube-system/web) and 1 Node (n1)"


async def test_the_way_out_for_dead_hosts_is_shown_only_when_something_hangs(api: KubeApi) -> None:
    await make(api, NODES, "n1", "moorage.dev/node")
    calm = uninstall.refusal(await uninstall.left(api, ALL), namespace="ops", deployment="blue")
    assert "--release-finalizers" not in calm
    await api.delete(NODES, Key("", "n1"))
    hanging = uninstall.refusal(await uninstall.left(api, ALL), namespace="ops", deployment="blue")
    assert "kubectl exec -n ops deploy/blue -- python -m moorage_operator uninstall-guard --release-finalizers" in hanging


async def test_what_is_being_deleted_goes_and_the_rest_stays(api: KubeApi) -> None:
    await make(api, TASKS, "going", "moorage.dev/task")
    await make(api, TASKS, "staying", "moorage.dev/task")
    await make(api, NODES, "n1", "moorage.dev/node", ssh={"host": "192.0.2.1"})
    await api.delete(TASKS, Key("default", "going"))
    await api.delete(NODES, Key("", "n1"))

    nodes = await uninstall.release(api, ALL, clock=HastyClock())
    assert [task["metadata"]["name"] for task in (await api.list(TASKS)).items] == ["staying"]
    assert not (await api.list(NODES)).items
    farewell = uninstall.farewell(nodes)
    assert "n1 (192.0.2.1)" in farewell
    assert "uninstall --yes" in farewell


async def test_finalizers_of_others_are_theirs(api: KubeApi) -> None:
    await make(api, TASKS, "kept", "example.com/backup", "moorage.dev/task")
    await make(api, TASKS, "foreign", "example.com/backup")
    for name in ("kept", "foreign"):
        await api.delete(TASKS, Key("default", name))
    await uninstall.release(api, ALL, clock=HastyClock())
    for name in ("kept", "foreign"):
        assert (await api.get(TASKS, Key("default", name)))["metadata"]["finalizers"] == ["example.com/backup"]


async def test_what_is_deleted_while_it_looks_goes_too(api: KubeApi) -> None:
    """The garbage collector deletes the Tasks of a Service some time after it."""
    await make(api, TASKS, "first", "moorage.dev/task")
    await make(api, TASKS, "second", "moorage.dev/task")
    await api.delete(TASKS, Key("default", "first"))

    class Collector(HastyClock):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            if self.monotonic() == 2 * uninstall.LOOK_EVERY_S:
                await api.delete(TASKS, Key("default", "second"))

    await uninstall.release(api, ALL, clock=Collector())
    assert not (await api.list(TASKS)).items


async def test_a_kind_that_is_not_installed_leaves_nothing(fake: FakeApi, api: KubeApi) -> None:
    fake.store._kinds.pop((STACKS.group, STACKS.version, STACKS.plural))
    assert (await uninstall.left(api, ALL)).describe() == ""
