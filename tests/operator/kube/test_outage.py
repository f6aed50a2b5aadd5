"""A real control plane that fails for real: killed, frozen, restored from a backup. What stands on it recovers by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from random import Random

import pytest
from moorage_operator.errors import ApiUnavailable
from moorage_operator.kube.cache import Cache
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.informer import Informer
from moorage_operator.kube.kubeconfig import from_kubeconfig
from moorage_operator.kube.lease import Lease, Timing
from moorage_operator.kube.object import Key, Obj
from moorage_operator.kube.resource import CONFIG_MAPS
from moorage_operator.kube.supervisor import Supervisor

from tests.kube import ControlPlane
from tests.operator.kube.waiting import until

pytestmark = pytest.mark.kube


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
async def api(plane: ControlPlane) -> AsyncIterator[KubeApi]:
    async with KubeApi(from_kubeconfig(str(plane.kubeconfig), clock=SystemClock()), clock=SystemClock(), timeout_s=2) as api:
        yield api


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(clock=SystemClock(), random=Random(1))
    yield supervisor
    await supervisor.stop()
    assert not supervisor.restarts


def config(name: str, **data: str) -> Obj:
    return {"metadata": {"namespace": "default", "name": name}, "data": data}


def key(name: str) -> Key:
    return Key("default", name)


async def test_an_informer_survives_a_killed_a_frozen_and_a_restored_server(
    plane: ControlPlane, api: KubeApi, supervisor: Supervisor
) -> None:
    cache = Cache(CONFIG_MAPS)
    informer = Informer(api, cache, clock=SystemClock(), random=Random(1), namespace="default")
    supervisor.start("informer", informer.run)
    await until(informer.synced.is_set)

    await api.create(CONFIG_MAPS, config("a", value="1"))
    await until(lambda: key("a") in cache)
    await asyncio.to_thread(plane.restart_api)
    await api.create(CONFIG_MAPS, config("b"))
    await until(lambda: key("b") in cache)
    # A server that begins can go on from its newest revision alone: what we have is that one, if nothing at all was written meanwhile.
    assert informer.relists <= 2, "a restart costs one list at most"

    plane.pause_api()
    with pytest.raises(ApiUnavailable, match="no answer within 2 s"):
        await api.get(CONFIG_MAPS, key("a"))
    plane.resume_api()

    backup = await asyncio.to_thread(plane.snapshot)
    await api.patch(CONFIG_MAPS, key("a"), {"data": {"value": "from a future that will not happen"}})
    await api.create(CONFIG_MAPS, config("never"))
    await api.delete(CONFIG_MAPS, key("b"))
    await until(lambda: key("never") in cache and key("b") not in cache)
    await asyncio.to_thread(plane.restore, backup)
    await until(lambda: key("b") in cache and key("never") not in cache)
    assert (cache.get(key("a")) or {})["data"] == {"value": "1"}
    await api.patch(CONFIG_MAPS, key("a"), {"data": {"value": "2"}})
    await until(lambda: (cache.get(key("a")) or {})["data"] == {"value": "2"})


async def test_a_leader_survives_a_restored_store_in_a_higher_epoch(plane: ControlPlane, api: KubeApi, supervisor: Supervisor) -> None:
    told: list[object] = []
    raised: list[int] = []
    timing = Timing(duration_s=60, renew_deadline_s=45, retry_s=0.2, call_s=1)
    lease = Lease(
        api,
        key("lease"),
        identity="one",
        clock=SystemClock(),
        on_acquired=told.append,
        on_raised=raised.append,
        on_lost=told.append,
        timing=timing,
    )
    supervisor.start("lease", lease.run)
    await until(lease.held)
    backup = await asyncio.to_thread(plane.snapshot)
    assert await lease.raise_epoch_above(4) == 5
    await asyncio.to_thread(plane.restore, backup)
    await until(lambda: lease.epoch > 5)
    assert lease.held()
    assert (told, raised) == ([1], [5, lease.epoch])
