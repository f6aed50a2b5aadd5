"""Frames over one channel to an agent, and the questions that wait for an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import orjson
from moorage_agent.protocol import MAX_AGENT_BODY, Decoder, NodeSpec, ProtocolError, frame, to_wire

from moorage_operator.errors import AgentError, HostUnsuitable, MoorageError, NodeUnavailable, Unreachable
from moorage_operator.fleet import loader
from moorage_operator.fleet.archive import Archive
from moorage_operator.fleet.ssh import Channel

ANSWER_WITHIN_S: Final = 30.0


class Wire:
    def __init__(self, channel: Channel, clock: Callable[[], float]) -> None:
        self.last_frame_at = clock()
        self._channel = channel
        self._clock = clock
        self._decoder = Decoder(MAX_AGENT_BODY)
        self._early: list[tuple[dict[str, Any], bytes]] = []
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._next_id = 0
        self._failed: MoorageError | None = None

    async def load(self, archive: Archive) -> None:
        """Start the agent's dial. Raises HostUnsuitable with the loader's own reason."""
        with suppress(NodeUnavailable):  # a command that has ended already says why on its outputs
            await self._channel.write(loader.PROGRAM.encode())
        greeting = await self._greeting()
        if "want" in greeting:
            await self._channel.write(archive.data)
            greeting = await self._greeting()
        if "error" in greeting:
            raise HostUnsuitable(str(greeting["message"]), reason=str(greeting["error"]))

    async def _greeting(self) -> dict[str, Any]:
        line = b""
        while not line.endswith(b"\n"):
            byte = await self._channel.read(1)
            if not byte:
                raise await self._no_greeting()
            line += byte
            if len(line) > 4096:
                break
        try:
            greeting = json.loads(line)
        except ValueError:
            greeting = None
        if not isinstance(greeting, dict):
            raise HostUnsuitable(
                f"the account's shell prints {line[:80].decode(errors='replace')!r} before a command runs; "
                "make its start-up files silent for non-interactive sessions",
                reason="NoisyShell",
            )
        return dict(greeting)

    async def _no_greeting(self) -> MoorageError:
        text = await self._channel.stderr()
        if "python3" in text and "not found" in text:
            return HostUnsuitable(f"the host has no python3 ({text}); install Python 3.9 or newer", reason="PythonMissing")
        if "sudo" in text or "doas" in text:
            return HostUnsuitable(
                f"the account cannot become root: {text}; allow it without a password, or log in as root", reason="NotRoot"
            )
        said = text or "it closed the session silently"
        remedy = "give it a login shell that runs commands, such as /bin/sh"
        return HostUnsuitable(f"the host runs no command for this account: {said}; {remedy}", reason="NoShell")

    async def hello(self) -> dict[str, Any]:
        async for message, _ in self.messages():
            if message["type"] == "hello":
                return message
            raise ProtocolError(f"the agent began with {message['type']!r} instead of hello")
        raise HostUnsuitable(f"the agent did not start: {await self._channel.stderr() or 'it said nothing'}", reason="AgentFailed")

    async def messages(self) -> AsyncIterator[tuple[dict[str, Any], bytes]]:
        """Frames as they come, until the channel ends."""
        while True:
            while self._early:
                self.last_frame_at = self._clock()
                yield self._early.pop(0)
            data = await self._channel.read()
            if not data:
                return
            self._early = self._decoder.feed(data)

    async def send(self, message: dict[str, Any], payload: bytes = b"") -> None:
        await self._channel.write(frame(orjson.dumps(message), payload))

    async def deliver(self, spec: NodeSpec) -> None:
        await self._exchange(f"document/{spec.revision}", {"type": "document", "spec": to_wire(spec)}, ANSWER_WITHIN_S)

    async def ask(self, message: dict[str, Any], *, within_s: float) -> dict[str, Any]:
        self._next_id += 1
        return await self._exchange(f"q{self._next_id}", {**message, "id": f"q{self._next_id}"}, within_s)

    async def _exchange(self, key: str, message: dict[str, Any], within_s: float) -> dict[str, Any]:
        if self._failed:
            raise self._failed
        answer = self._waiting[key] = asyncio.get_running_loop().create_future()
        try:
            await self.send(message)
            async with asyncio.timeout(within_s):
                return dict(await answer)
        except TimeoutError as error:
            raise Unreachable(f"the agent did not answer {message['type']} within {within_s:g} s") from error
        finally:
            self._waiting.pop(key, None)

    def answered(self, message: dict[str, Any]) -> None:
        key = f"document/{message['revision']}" if message["type"] == "accepted" else str(message.get("id"))
        waiting = self._waiting.get(key)
        if waiting is None or waiting.done():
            return
        error = message.get("error")
        if error:
            waiting.set_exception(_agent_error(error))
        else:
            waiting.set_result(message)

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        self._background.add(task := asyncio.create_task(work))
        task.add_done_callback(self._background.discard)

    def fail(self, error: MoorageError) -> None:
        """Nobody will answer any more."""
        self._failed = error
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)
        for task in self._background:
            task.cancel()

    def abort(self) -> None:
        self._channel.close()


def _agent_error(said: dict[str, Any]) -> AgentError:
    later_s = said.get("retryAfterS")
    return AgentError(
        str(said.get("message")), reason=str(said.get("code")), retry_after_s=later_s if isinstance(later_s, int | float) else None
    )
