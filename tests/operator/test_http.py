"""What the process says about itself over HTTP."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections.abc import AsyncIterator
from random import Random

import pytest
from moorage_operator.command import Command
from moorage_operator.http import HttpServer, troubles_of
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.informer import Informer
from moorage_operator.kube.resource import TASKS
from moorage_operator.settings import Settings

from tests.operator.fakeapi import FakeApi
from tests.operator.kube.waiting import until
from tests.operator.reconcile.worlds import Bench


@pytest.fixture
async def bench(fake: FakeApi, api: KubeApi) -> Bench:
    return Bench(fake, api)


@pytest.fixture
async def command(fake: FakeApi, bench: Bench) -> AsyncIterator[Command]:
    """One that follows Tasks and does nothing else."""
    informer = Informer(bench.api, bench.caches[TASKS], clock=bench.clock, random=Random(1))
    command = Command(
        bench.world,
        api=bench.api,
        fleet=bench.world.fleet,
        queues={},
        watched={},
        informers={"tasks": informer},
        clock=bench.clock,
        random=Random(1),
    )
    command.supervisor.start("watch-tasks", informer.run)
    await until(lambda: informer.synced.is_set() and fake.calls["watch", "swarmtasks"])
    yield command
    await command.supervisor.stop()


async def pass_time(bench: Bench, seconds: int) -> None:
    """In steps short enough for answers to come in."""
    for _ in range(seconds // 5):
        await bench.clock.advance(5)
        await asyncio.sleep(0.005)


async def test_a_process_whose_api_server_is_away_for_an_hour_is_healthy(fake: FakeApi, bench: Bench, command: Command) -> None:
    fake.faults.fail("*", "swarmtasks", 500, times=1_000_000)
    for _ in range(12):
        fake.cut_watches()
        await pass_time(bench, 300)
        assert list(troubles_of(command)) == []
    assert command.informers["tasks"].failures > 60


async def test_a_watch_that_nobody_goes_on_with_is_a_trouble(bench: Bench, command: Command) -> None:
    await command.supervisor.stop("watch-tasks")
    await pass_time(bench, 200)
    assert list(troubles_of(command)) == ["the watch of tasks was not tried for 200 s"]


async def test_by_default_both_families_are_listened_on() -> None:
    """On a cluster of one family, probes come by that one."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as free:
        port = free.getsockname()[1]
    server = HttpServer(Settings().http_host, port, command=lambda: None, metrics=lambda: b"")
    await server.start()
    try:
        for address in ("127.0.0.1", "[::1]"):
            with await asyncio.to_thread(urllib.request.urlopen, f"http://{address}:{port}/healthz") as answer:
                assert answer.status == 200
    finally:
        await server.stop()
