"""The agents of a whole swarm in one process: `python -m tests.operator.scale.agents API_SERVER SOCKET`.

They speak the protocol over a unix socket that stands for SSH, and run what they are told to, in imagination: each begins with the Tasks
the API server has for its node, all Running. Prints `ready`; a line `flip N` on its input makes the health of one task on each of N nodes
turn, and answers `done`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from moorage_agent.protocol import Decoder, ImageReport, NodeReport, TaskReport, content_hash, encode, to_wire
from moorage_operator.fleet import loader
from moorage_operator.fleet.archive import agent_archive
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.resource import TASKS

from tests.operator.scale.population import facts, node_name, running

START_S = 0.05
"""From a document to a running container."""


@dataclass
class Agent:
    """One node's. It obeys the last document it got."""

    number: int
    tasks: dict[str, TaskReport] = field(default_factory=dict)
    images: dict[str, ImageReport] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)
    writer: asyncio.StreamWriter | None = None
    _starting: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer, decoder = writer, Decoder()
        await reader.readexactly(len(loader.PROGRAM))
        writer.write(json.dumps({"agent": agent_archive().sha256}).encode() + b"\n")
        self.say(type="hello", protocol=1, agentVersion=agent_archive().sha256, facts=to_wire(facts(self.number)), bound=None)
        while data := await reader.read(1 << 18):
            for message, _ in decoder.feed(data):
                self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "hello":
                self._report(self.tasks.values(), full=True, images=self.images.values())
            case "ping":
                self.say(type="pong", at=message["at"])
            case "document":
                self._obey(message["spec"])

    def _obey(self, document: dict[str, Any]) -> None:
        self.document = document | {"hash": content_hash(document)}
        self.say(type="accepted", epoch=document["epoch"], revision=document["revision"], hash=self.document["hash"])
        self._starting.add(work := asyncio.create_task(self._change(document.get("tasks", []))))
        work.add_done_callback(self._starting.discard)

    async def _change(self, wished: list[dict[str, Any]]) -> None:
        await asyncio.sleep(START_S)
        gone = self.tasks.keys() - {task["uid"] for task in wished}
        begun = {task["uid"]: task["image"]["digest"] for task in wished if task["uid"] not in self.tasks}
        pulled = {digest: ImageReport(digest, "Ready") for digest in begun.values() if digest not in self.images}
        for uid in gone:
            del self.tasks[uid]
        self.tasks |= {uid: running(uid) for uid in begun}
        self.images |= pulled
        if gone or begun:
            self._report([self.tasks[uid] for uid in begun], images=pulled.values(), removed=tuple(gone))

    def flip(self) -> None:
        """The health of one task turns; neighbours choose tasks of different Services."""
        uid, report = list(self.tasks.items())[self.number % len(self.tasks)]
        self.tasks[uid] = replace(report, healthy=not report.healthy, message="answers 503" if report.healthy else "")
        self._report([self.tasks[uid]])

    def _report(
        self, tasks: Iterable[TaskReport], *, full: bool = False, images: Iterable[ImageReport] = (), removed: tuple[str, ...] = ()
    ) -> None:
        document = self.document
        report = NodeReport(
            full=full,
            epoch=document.get("epoch", 0),
            revision=document.get("revision", 0),
            hash=document.get("hash", ""),
            tasks=tuple(tasks),
            removed=removed,
            images=tuple(images),
        )
        self.say(type="report", report=to_wire(report))

    def say(self, **message: Any) -> None:
        assert self.writer is not None
        self.writer.write(encode({name: value for name, value in message.items() if value is not None}))


async def serve(url: str, path: str) -> None:
    agents: dict[str, Agent] = await _at_rest(url)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The first line says which host was dialled."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await agents[(await reader.readline()).decode().strip()].serve(reader, writer)
        writer.close()

    async with await asyncio.start_unix_server(accept, path, backlog=2048):
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            for agent in list(agents.values())[: int(line.split()[1])]:
                agent.flip()
            print("done", flush=True)


async def _at_rest(url: str) -> dict[str, Agent]:
    """By the address their Node names."""
    agents: dict[str, Agent] = {}
    async with KubeApi(Credentials(url), clock=SystemClock()) as api:
        async for page in api.pages(TASKS):
            for task in page.items:
                agent = agents.setdefault(task["spec"]["nodeName"], Agent(int(task["spec"]["nodeName"].rpartition("-")[2])))
                uid, digest = task["metadata"]["uid"], task["spec"]["image"]["digest"]
                agent.tasks[uid], agent.images[digest] = running(uid), ImageReport(digest, "Ready")
    return {node_name(agent.number): agent for agent in agents.values()}


asyncio.run(serve(*sys.argv[1:3]))
