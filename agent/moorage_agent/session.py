"""One connection to the daemon's socket: frames in, frames out. What they mean is asked of the Desk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from moorage_agent.errors import AgentError, ImageError, Refused, readable
from moorage_agent.ownership import Claim, claim_of
from moorage_agent.protocol import (
    MAX_AGENT_BODY,
    PROTOCOL,
    Decoder,
    ImageSource,
    NodeReport,
    ProtocolError,
    ResolvedImage,
    encode,
    from_wire,
    to_wire,
)

log = logging.getLogger("moorage.session")

SILENCE_S = 20.0  # the operator sends a frame every 5 s
UNREAD_LIMIT = 64 * 1024 * 1024


class Desk(Protocol):
    """The daemon, as a session sees it. Every call but the last two is quick."""

    def greeting(self) -> dict[str, Any]: ...

    def claim(self, session: Session, claim: Claim) -> None:
        """The operator's hello. Raises Refused."""

    def document(self, session: Session, spec: Any) -> tuple[int, int, str]:
        """A document: epoch, revision and hash now in force. Raises Refused, AgentError (Uninstalling), ProtocolError."""

    def value(self, key: str, data: bytes | None, why: str) -> None: ...

    def heard(self, session: Session) -> None: ...

    def gone(self, session: Session) -> None: ...

    def epoch(self) -> int: ...

    def observe(self) -> NodeReport: ...

    def retire(self) -> None:
        """Raises Refused."""

    async def resolve(self, source: ImageSource) -> ResolvedImage: ...

    async def uninstall(self) -> None: ...


class Session:
    """Lives as long as the connection. Once a newer session or a hello that was not accepted closed it, nothing more is heeded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, desk: Desk) -> None:
        self._reader, self._writer, self._desk = reader, writer, desk
        self._claimed = False
        self._asked: set[str] = set()
        self._work: set[asyncio.Task[None]] = set()
        self._handlers: dict[str, Callable[[dict[str, Any], bytes], None]] = {
            "hello": self._on_hello,
            "ping": self._on_ping,
            "document": self._on_document,
            "value": self._on_value,
            "resolve": self._on_resolve,
            "uninstall": self._on_uninstall,
        }

    async def run(self) -> None:
        """Speak first, then answer, until either side ends it."""
        self.send(self._desk.greeting())
        try:
            await self._converse()
        except asyncio.TimeoutError:
            self._end("Silence", f"nothing heard from the operator for {SILENCE_S:g} s")
        except (ProtocolError, OSError) as error:
            self._end("ProtocolError", str(error))
        finally:
            self._desk.gone(self)
            for task in self._work:
                task.cancel()
            self.close()

    def _end(self, code: str, why: str) -> None:
        log.info("session ended", extra={"fields": {"error": why}})
        self.send({"type": "error", "code": code, "message": why})

    def send(self, message: dict[str, Any]) -> None:
        """Queue a frame; of one that is too large only that it was."""
        try:
            self._write(encode(message, max_body=MAX_AGENT_BODY))
        except ProtocolError as error:
            log.warning("a message cannot be sent", extra={"fields": {"type": message["type"], "error": str(error)}})
            self._write(encode({"type": "error", "code": "TooLarge", "message": f"{error}; its type is {message['type'][:40]}"}))

    def _write(self, frame: bytes) -> None:
        """A peer that stopped reading is dropped rather than remembered."""
        if self._writer.is_closing():
            return
        self._writer.write(frame)
        if self._writer.transport.get_write_buffer_size() > UNREAD_LIMIT:
            self._writer.transport.abort()

    def send_report(self, report: NodeReport) -> None:
        self.send({"type": "report", "report": to_wire(report)})

    def ask(self, keys: tuple[str, ...], *, again: bool = False) -> None:
        """Ask for values, once per session unless `again`."""
        fresh = [key for key in keys if again or key not in self._asked]
        self._asked.update(fresh)
        if fresh:
            self.send({"type": "need", "keys": fresh})

    def close(self) -> None:
        if not self._writer.is_closing():
            self._writer.close()

    async def _converse(self) -> None:
        decoder = Decoder()
        while True:
            data = await asyncio.wait_for(self._reader.read(1 << 18), SILENCE_S)
            if not data:
                return
            for message, payload in decoder.feed(data):
                if self._writer.is_closing():
                    return
                self._dispatch(message, payload)

    def _dispatch(self, message: dict[str, Any], payload: bytes) -> None:
        kind = message["type"]
        if not self._claimed and kind == "retire":
            self._retire()
        elif not self._claimed and kind == "observe":
            self.send_report(self._desk.observe())
        elif not self._claimed and kind == "uninstall":
            self._on_uninstall(message, payload)
        elif kind not in self._handlers:
            self.send({"type": "error", "code": "UnknownMessage", "message": f"this agent does not know messages of type {kind!r}"})
        elif not self._claimed and kind != "hello":
            raise ProtocolError(f"the first frame must be a hello, not {kind}")
        else:
            self._heed(kind, message, payload)

    def _heed(self, kind: str, message: dict[str, Any], payload: bytes) -> None:
        try:
            self._handlers[kind](message, payload)
        except Refused as refusal:
            self.send({"type": "refused", "code": refusal.code, "message": refusal.message, "epoch": self._desk.epoch()})
            if refusal.code != "StaleRevision":
                self.close()
            return
        except ProtocolError as error:
            self.send({"type": "error", "code": "Malformed", "message": f"{kind}: {error}"})
        except AgentError as error:
            self.send({"type": "error", "code": error.code, "message": f"{kind}: {error.message}"})
        except OSError as error:
            self.send({"type": "error", "code": "HostError", "message": f"{kind}: the host refused: {error}"})
        if self._claimed:
            self._desk.heard(self)
        elif kind == "hello":
            self.close()

    def _retire(self) -> None:
        try:
            self._desk.retire()
        except Refused as refusal:
            self.send({"type": "refused", "code": refusal.code, "message": refusal.message, "epoch": self._desk.epoch()})
            self.close()

    def _on_hello(self, message: dict[str, Any], _: bytes) -> None:
        if message.get("protocol") != PROTOCOL:
            raise Refused("ProtocolVersion", f"this agent speaks protocol {PROTOCOL}, the operator {message.get('protocol')}")
        self._desk.claim(self, claim_of(message))
        self._claimed = True

    def _on_ping(self, message: dict[str, Any], _: bytes) -> None:
        self.send({"type": "pong", "at": message.get("at")})

    def _on_document(self, message: dict[str, Any], _: bytes) -> None:
        epoch, revision, digest = self._desk.document(self, message.get("spec"))
        self.send({"type": "accepted", "epoch": epoch, "revision": revision, "hash": digest})

    def _on_value(self, message: dict[str, Any], payload: bytes) -> None:
        key, error = message.get("key"), message.get("error")
        if not isinstance(key, str):
            raise ProtocolError("the value has no key")
        why = str(error.get("message", "")) if isinstance(error, dict) else ""
        self._desk.value(key, None if error is not None else payload, why)

    def _on_resolve(self, message: dict[str, Any], _: bytes) -> None:
        source = from_wire(ImageSource, message.get("source"))

        async def resolved() -> dict[str, Any]:
            return {"image": to_wire(await self._desk.resolve(source))}

        self._answer(message, resolved, "resolved")

    def _on_uninstall(self, message: dict[str, Any], _: bytes) -> None:
        async def done() -> dict[str, Any]:
            await self._desk.uninstall()
            return {}

        self._answer(message, done, "done")

    def _answer(self, message: dict[str, Any], work: Callable[[], Awaitable[dict[str, Any]]], kind: str) -> None:
        """Run `work` beside the conversation and send what it gives, or its error, under the question's id."""

        async def answer() -> None:
            asked = {"type": kind, "id": message.get("id")}
            try:
                found = encode({**asked, **await work()}, max_body=MAX_AGENT_BODY)
            except AgentError as error:
                later_s = error.retry_after_s if isinstance(error, ImageError) else None
                found = encode({**asked, "error": {"code": error.code, "message": error.message, "retryAfterS": later_s}})
            except Exception as error:
                log.exception("an answer failed by a bug", extra={"fields": {"kind": kind}})
                found = encode({**asked, "error": {"code": "AgentBug", "message": readable(repr(error))}})
            self._write(found)

        task = asyncio.get_running_loop().create_task(answer())
        self._work.add(task)
        task.add_done_callback(self._work.discard)
