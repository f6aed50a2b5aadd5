"""A swarm of a thousand nodes on one machine: API server, agents and operator, each in a process of its own so that each can be weighed."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.object import Key
from moorage_operator.kube.resource import SERVICES
from moorage_operator.memory import FIRST_S

from tests.operator.scale.population import NAMESPACE, Size

READS = ("get", "list", "watch")
QUIET_S = 2.5
"""Sums are written up to a second after what they sum up: rest is so long without a write."""


@dataclass
class Spent:
    """What something cost the operator: CPU of its process, calls to the API server, and looks at objects by kind."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    looks: Counter[str] = field(default_factory=Counter)

    @property
    def writes(self) -> Counter[str]:
        return writes(self.calls)


class Process:
    """One that answers each line with a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process

    async def line(self) -> str:
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode().strip()
        if not line:
            raise RuntimeError(f"process {self.pid} ended with {await self._process.wait()}")
        return line

    async def ask(self, question: str = "") -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{question}\n".encode())
        return await self.line()

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 30)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class Crowd:
    def __init__(self, size: Size, url: str, api_server: Process, agents: Process, operator: Process) -> None:
        self.size = size
        self.operator = operator
        self._idle_share = 0.0
        self._url = url
        self._api_server = api_server
        self._agents = agents

    async def standing(self) -> dict[str, Any]:
        return dict(json.loads(await self.operator.ask()))

    async def calls(self) -> Counter[str]:
        return Counter(json.loads(await self._api_server.ask()))

    async def rest(self, *, within_s: float = 300.0) -> dict[str, Any]:
        """Waits until every node is connected, nothing is left to do and nothing was written for QUIET_S. How it stood when that began."""
        async with asyncio.timeout(within_s):
            quiet, before = await self.standing(), await self.calls()
            while True:
                await asyncio.sleep(0.25)
                stands, calls = await self.standing(), await self.calls()
                if not stands["idle"] or stands["sessions"] < self.size.nodes or writes(calls) != writes(before):
                    quiet, before = stands, calls
                elif stands["led_s"] - quiet["led_s"] > QUIET_S:
                    return quiet

    @asynccontextmanager
    async def spending(self) -> AsyncIterator[Spent]:
        """From now until all consequences of what is done in the block are over, without what resting costs (seconds_at_rest)."""
        spent, began, calls = Spent(), await self.standing(), await self.calls()
        yield spent
        ended = await self.rest()
        spent.wall_s = ended["led_s"] - began["led_s"]
        spent.cpu_s = ended["cpu_s"] - began["cpu_s"] - self._idle_share * spent.wall_s
        spent.calls, spent.looks = await self.calls() - calls, Counter(ended["looks"]) - Counter(began["looks"])

    async def flip(self, count: int) -> None:
        """The health of one task on each of so many nodes turns."""
        await self._agents.ask(f"flip {count}")

    async def scale(self, services: int, replicas: int) -> None:
        """So many Services get another number of replicas."""
        async with KubeApi(Credentials(self._url), clock=SystemClock()) as api:
            for number in range(services):
                await api.patch(SERVICES, Key(NAMESPACE, f"web-{number}"), {"spec": {"replicas": replicas}})

    async def seconds_at_rest(self, seconds: float) -> Spent:
        """Once what is done a minute after a start is done too."""
        while (await self.standing())["led_s"] < FIRST_S + 5:  # noqa: ASYNC110 (another process is watched)
            await asyncio.sleep(1)
        began, calls, start = await self.standing(), await self.calls(), time.monotonic()
        await asyncio.sleep(seconds)
        ended = await self.standing()
        idle = Spent(ended["cpu_s"] - began["cpu_s"], time.monotonic() - start, await self.calls() - calls)
        self._idle_share = idle.cpu_s / idle.wall_s
        return idle


@asynccontextmanager
async def crowd(size: Size) -> AsyncIterator[Crowd]:
    async with AsyncExitStack() as things:
        folder = Path(things.enter_context(TemporaryDirectory()))
        api_server = await _start(things, "apiserver", str(size.nodes), str(size.services), str(size.replicas))
        url = await api_server.line()
        agents = await _start(things, "agents", url, str(folder / "hosts"))
        await agents.line()
        operator = await _start(things, "commander", url, str(folder / "hosts"))
        await operator.line()
        yield Crowd(size, url, api_server, agents, operator)


async def _start(things: AsyncExitStack, module: str, *arguments: str) -> Process:
    pipe, command = asyncio.subprocess.PIPE, (sys.executable, "-m", f"tests.operator.scale.{module}", *arguments)
    process = Process(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 20))
    things.push_async_callback(process.end)
    return process


def writes(calls: Counter[str]) -> Counter[str]:
    """All but the Lease's."""
    return Counter({call: count for call, count in calls.items() if call.split()[0] not in READS and "leases" not in call})
