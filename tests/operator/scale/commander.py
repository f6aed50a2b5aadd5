"""The operator itself in a process of its own, without kopf: `python -m tests.operator.scale.commander API_SERVER SOCKET`.

Everything is wired as in production but two things: SSH is a unix socket that leads to the agents, and what kopf's watches would feed is
fed by watches of ours (the fake API server has no discovery). To each line of input it answers with how it stands, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from moorage_operator import logs
from moorage_operator.__main__ import Operator
from moorage_operator.command import Command
from moorage_operator.fleet.target import Target
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.informer import relist
from moorage_operator.kube.resource import Resource
from moorage_operator.settings import Settings


class Channel:
    """In place of an SSH channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, limit: int = 1 << 18) -> bytes:
        return await self._reader.read(limit)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def stderr(self, limit: int = 4096) -> str:
        return ""

    def close(self) -> None:
        self._writer.close()


class Connection:
    """In place of an SSH connection."""

    def __init__(self, target: Target, path: str) -> None:
        self.target = target
        self._path = path

    @asynccontextmanager
    async def channel(self, command: str) -> AsyncIterator[Channel]:
        reader, writer = await asyncio.open_unix_connection(self._path)
        writer.write(f"{self.target.host}\n".encode())
        channel = Channel(reader, writer)
        try:
            yield channel
        finally:
            channel.close()

    def abort(self) -> None: ...


async def follow(command: Command, api: KubeApi, resource: Resource, version: str) -> None:
    async for event in api.watch(resource, version=version, timeout_s=3600):
        if event.type != "BOOKMARK":
            command.feed(resource, event.type, event.object)


def standing(operator: Operator, command: Command, began: float) -> dict[str, Any]:
    world = command.world
    samples = next(iter(operator.metrics.reconciles.collect())).samples
    return {
        "led_s": time.monotonic() - began,
        "looks": {sample.labels["queue"]: sample.value for sample in samples if sample.name.endswith("_total")},
        "cpu_s": time.process_time(),
        "rss_mib": int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20,
        "sessions": sum(link.connected and not link.reason for _, link in world.fleet),
        "tasks": len(world.tasks.raw),
        "idle": all(queue.idle for queue in command.queues.values()) and not any(writer.waiting for writer in world.statuses.values()),
    }


async def run(url: str, path: str) -> None:
    began = time.monotonic()

    async def connect(target: Target, *, through: object = None) -> Any:
        return Connection(target, path)

    settings = Settings(namespace="moorage-system", http_host="127.0.0.1", http_port=0)
    logs.configure("WARNING")
    operator = Operator(settings, Credentials(url), connect=connect)
    command = await operator.start()
    async with KubeApi(Credentials(url), clock=SystemClock()) as api, asyncio.TaskGroup() as group:
        watches = [
            group.create_task(follow(command, api, resource, await relist(api, cache))) for resource, cache in command._watched.items()
        ]
        print("started", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(standing(operator, command, began)), flush=True)
        for watch in watches:
            watch.cancel()
    await operator.stop()


asyncio.run(run(*sys.argv[1:3]))
