"""A daemon over fakes, and operators' ends of real sockets to it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from moorage_agent.clock import clock_of
from moorage_agent.daemon import Daemon
from moorage_agent.errors import ImageError
from moorage_agent.images.cancellation import Cancellation
from moorage_agent.paths import Paths
from moorage_agent.protocol import (
    MAX_AGENT_BODY,
    PROTOCOL,
    Decoder,
    ImageConfig,
    ImageSource,
    NodeReport,
    NodeSpec,
    ResolvedImage,
    TaskReport,
    encode,
    from_wire,
    to_wire,
)
from moorage_agent.session import Session
from moorage_agent.values import ValueStore

from tests.agent.fake_host import FakeImages, FakeRuntime

WITHIN_S = 5.0
BUSY = "r.example/busy:1"
UNSPEAKABLE = "r.example/unspeakable:1"
ENDLESS = "r.example/endless:1"
TRICKLE = "r.example/trickle:1"
SLOW_URL = "https://files.example/slow.tar"


class FakeNode:
    """`runtime` and `images` outlive daemons; `connect()` gives an operator's end."""

    def __init__(self, paths: Paths, images: FakeImages) -> None:
        self.paths, self.images = paths, images
        paths.make()
        self.runtime = FakeRuntime(clock_of(paths))
        self.daemon: Daemon | None = None
        self.archive_is_here, self.downloads = threading.Event(), 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._ends: list[OperatorEnd] = []

    def start(self) -> None:
        values = ValueStore(self.paths)
        values.make()
        self.daemon = Daemon(
            self.paths, runtime=self.runtime, images=self.images, pull=self.images.pull, resolve=self.resolve, values=values
        )
        self.daemon.recover()
        self._running = asyncio.create_task(self.daemon.run())
        self._tasks.append(self._running)

    async def ended(self) -> None:
        """Until the daemon ended by itself."""
        await asyncio.wait_for(asyncio.shield(self._running), WITHIN_S)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """On its socket, for those who connect by themselves."""

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert self.daemon is not None
            await Session(reader, writer, self.daemon.desk).run()

        server = await asyncio.start_unix_server(converse, self.paths.agent_socket)
        try:
            yield
        finally:
            server.close()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for end in self._ends:
            end.close()
        await asyncio.sleep(0)

    async def connect(self) -> OperatorEnd:
        assert self.daemon is not None
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        self._tasks.append(asyncio.create_task(Session(reader, writer, self.daemon.desk).run()))
        end = OperatorEnd(*await asyncio.open_connection(sock=ours))
        self._ends.append(end)
        return end

    def resolve(self, source: ImageSource, values: Callable[[str], bytes], store: Any, *, cancellation: Cancellation) -> ResolvedImage:
        config = ImageConfig(user=values(source.credentials).decode() if source.credentials else "nobody")
        if source.reference == BUSY:
            raise ImageError("RateLimited", "ask later", 70)
        if source.reference == UNSPEAKABLE:
            config = ImageConfig(user="\ud800")
        if source.reference == ENDLESS:
            config = ImageConfig(user="x" * MAX_AGENT_BODY)
        if source.reference == TRICKLE:
            cancellation.sleep(60)
        if source.url == SLOW_URL:
            self.downloads += 1
            self.archive_is_here.wait(60)
        return ResolvedImage("sha256:" + "d" * 64, "linux/amd64", 1, config)


class OperatorEnd:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self._decoder = reader, writer, Decoder(MAX_AGENT_BODY)
        self.frames: list[dict[str, Any]] = []
        self.tasks: dict[str, TaskReport] = {}
        self.removed: list[str] = []
        self.reports: list[NodeReport] = []

    def send(self, message: dict[str, Any], payload: bytes = b"") -> None:
        self._writer.write(encode(message, payload))

    def send_bytes(self, data: bytes) -> None:
        self._writer.write(data)

    async def greet(self, swarm: str = "swarm", node: str = "node", epoch: int = 1, **more: Any) -> dict[str, Any]:
        """Hello both ways. Returns the agent's."""
        hello = await self.hear("hello")
        self.send({"type": "hello", "protocol": PROTOCOL, "swarmId": swarm, "nodeUid": node, "epoch": epoch, **more})
        return hello

    async def ping(self) -> None:
        self.send({"type": "ping", "at": 1})
        await self.hear("pong")

    async def push(self, document: NodeSpec) -> dict[str, Any]:
        self.send({"type": "document", "spec": to_wire(document)})
        return await self.hear("accepted", "refused", "error")

    async def hear(self, *kinds: str) -> dict[str, Any]:
        """The next frame of one of these types. Raises EOFError when the agent closed."""
        while True:
            for frame in list(self.frames):
                self.frames.remove(frame)
                if frame["type"] in kinds:
                    return frame
            await self._more()

    async def until(self, holds: Callable[[], Any]) -> None:
        """Until what was reported makes `holds` true; a task nobody reported yet makes it false."""
        while not self._holds(holds):
            await self._more()

    @staticmethod
    def _holds(look: Callable[[], Any]) -> bool:
        try:
            return bool(look())
        except KeyError:
            return False

    async def closed(self) -> bool:
        with suppress(EOFError):
            while True:
                await self._more()
        return True

    def close(self) -> None:
        self._writer.close()

    async def _more(self) -> None:
        data = await asyncio.wait_for(self._reader.read(1 << 18), WITHIN_S)
        if not data:
            raise EOFError
        for frame, _ in self._decoder.feed(data):
            self.frames.append(frame)
            if frame["type"] == "report":
                report = from_wire(NodeReport, frame["report"])
                self.reports.append(report)
                if report.full:
                    self.tasks.clear()
                self.tasks.update({task.uid: task for task in report.tasks})
                self.removed += report.removed


@asynccontextmanager
async def fake_node(paths: Paths, images: FakeImages) -> AsyncIterator[FakeNode]:
    node = FakeNode(paths, images)
    node.start()
    try:
        yield node
    finally:
        await node.stop()
