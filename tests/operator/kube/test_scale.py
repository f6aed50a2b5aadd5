"""A thousand nodes with twenty tasks each: what following and writing them costs this process. Budgets are four times what was measured."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import pytest
from moorage_operator.kube.cache import Cache, Change
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.informer import Informer
from moorage_operator.kube.object import Obj
from moorage_operator.kube.resource import TASKS
from moorage_operator.kube.status import StatusWriter

from tests.operator.kube.waiting import until

pytestmark = pytest.mark.scale

NODES, TASKS_PER_NODE = 1000, 20
ALL = NODES * TASKS_PER_NODE


class Crowd:
    """The fake in a process of its own, so that only ours is measured."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self._process = process
        self.credentials = Credentials(url)

    async def change(self, count: int) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"change %d\n" % count)
        assert await self._process.stdout.readline() == b"done\n"


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    command = [sys.executable, "-m", "tests.operator.fakeapi", str(NODES), str(TASKS_PER_NODE)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    yield Crowd(process, (await process.stdout.readline()).decode().strip())
    process.stdin.close()
    await process.wait()


@dataclass
class Cost:
    each_ms: float = 0.0


@contextmanager
def cost(what: str, count: int) -> Iterator[Cost]:
    """CPU time of this process, per piece."""
    spent, began = Cost(), time.process_time()
    yield spent
    spent.each_ms = (time.process_time() - began) * 1000 / count
    print(f"{what}: {spent.each_ms:.4f} ms CPU each, of {count}")


async def test_a_thousand_nodes_are_followed_and_written_within_budget(crowd: Crowd) -> None:
    cache = Cache(TASKS, indexes={"node": lambda obj: [obj["spec"]["nodeName"]], "service": lambda obj: [obj["spec"]["service"]]})
    async with KubeApi(crowd.credentials, clock=SystemClock(), rate=100_000) as api:
        informer = Informer(api, cache, clock=SystemClock(), random=Random(1))
        with running(informer.run):
            with cost("listed", ALL) as listed:
                await asyncio.wait_for(informer.synced.wait(), 60)
            assert (len(cache), len(cache.by("node", "node-0007"))) == (ALL, TASKS_PER_NODE)
            with cost("event", ALL) as event:
                await heard(cache, ALL, lambda: crowd.change(ALL))
        writer = StatusWriter(api, cache, clock=SystemClock(), random=Random(1), on_conflict=lambda _: None)
        with running(writer.run):
            objects = cache.values()[:3000]
            with cost("status written", len(objects)) as written:
                put_all(writer, objects)
                assert await writer.drain(within_s=60)
            assert writer.written == len(objects)
            with cost("status spared", len(objects)) as spared:
                put_all(writer, objects)
                await until(lambda: writer.spared == len(objects))
    assert listed.each_ms < 0.13
    assert event.each_ms < 0.10
    assert written.each_ms < 1.0
    assert spared.each_ms < 0.2


def put_all(writer: StatusWriter, objects: list[Obj]) -> None:
    for obj in objects:
        writer.put(obj, {"state": "Running", "restarts": 7, "message": "a new one"})


async def heard(cache: Cache, count: int, act: Callable[[], Awaitable[None]]) -> None:
    left, all_heard = count, asyncio.Event()

    def listener(change: Change) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            all_heard.set()

    end = cache.subscribe(listener)
    await act()
    await asyncio.wait_for(all_heard.wait(), 60)
    end()


@contextmanager
def running(body: Callable[[], Awaitable[None]]) -> Iterator[None]:
    task = asyncio.ensure_future(body())
    try:
        yield
    finally:
        task.cancel()
