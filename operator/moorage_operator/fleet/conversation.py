"""What is said over one connection to an agent: who we are, its documents and values, its reports, and that both sides are there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from moorage_agent.protocol import PROTOCOL, NodeReport, NodeSpec, ProtocolError, from_wire

from moorage_operator.errors import AgentError, InvalidSpec, MoorageError, Unreachable
from moorage_operator.fleet.link import Claim, Desk, Standing, Wish
from moorage_operator.fleet.wire import Wire

log = logging.getLogger(__name__)

PING_EVERY_S: Final = 5.0
SILENCE_S: Final = 15.0  # the planner calls the node Unknown
GIVE_UP_S: Final = 20.0  # the connection is dropped and made anew
ANSWERS_AT_ONCE: Final = 16  # a value may have a megabyte, and a host that does not read has them all kept here
KEYS_AT_ONCE: Final = 10_000
LONGEST_KEY: Final = 1024
LONGEST_WORDS: Final = 1024
LONGEST_CODE: Final = 64


class Conversation:
    """`introduce`, then `run`. `dirty` is set when the wish may have changed."""

    def __init__(self, wire: Wire, standing: Standing, desk: Desk, *, dirty: asyncio.Event, clock: Callable[[], float]) -> None:
        self.wire = wire
        self._uid = standing.uid
        self._standing = standing
        self._desk = desk
        self._dirty = dirty
        self._clock = clock
        self._claim: Claim | None = None
        self._revision = 0
        self._giving: dict[str, bool] = {}  # keys of values, and whether one is to be given once more
        self._answers = asyncio.Semaphore(ANSWERS_AT_ONCE)

    async def introduce(self, bound: dict[str, Any] | None) -> NodeReport:
        """Say who we are to an agent that says it obeys `bound`. Until it has accepted us, which its first report tells, nothing else is
        said: the host may be somebody else's. Raises AgentError with its refusal.
        """
        claim = self._claim = self._desk.claim(self._uid, bound)
        self._revision = int((bound or {}).get("revision") or 0)
        await self.wire.send(
            {
                "type": "hello",
                "protocol": PROTOCOL,
                "swarmId": claim.swarm_id,
                "nodeUid": self._uid,
                "epoch": claim.epoch,
                "adopt": claim.adopt,
            }
        )
        async for message, _payload in self.wire.messages():
            match message["type"]:
                case "report":
                    return from_wire(NodeReport, message["report"])
                case "refused":
                    await self._refused(message)
                case "error":
                    raise _said(message)
        raise Unreachable("the agent ended the connection")

    async def run(self, report: NodeReport) -> None:
        """From the first report until the connection ends or the agent refuses us; the first failure of any part ends them all.

        No TaskGroup: in early Python 3.11 (Debian 12's) the task that had a failed one stays marked as cancelled, and its next time limit
        ends it.
        """
        self._dirty.set()
        self._take(report)
        parts = [asyncio.create_task(part) for part in (self._push_documents(), self._receive(), self._beat())]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_EXCEPTION)
            for part in done:
                part.result()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    def send_again(self, concerned: Callable[[str], bool]) -> None:
        """Values whose contents may change under their key."""
        for key in self._desk.changing_keys(self._uid):
            if concerned(key):
                self._give(key)

    # --- what we hear

    async def _receive(self) -> None:
        async for message, _payload in self.wire.messages():
            if self._standing.link.reason == "Silent":
                self._standing.tell(reason="", message="")
                self._dirty.set()
            self._standing.note(last_frame_at=self.wire.last_frame_at)
            match message["type"]:
                case "report":
                    self._take(from_wire(NodeReport, message["report"]))
                case "accepted" | "resolved" | "done":
                    self.wire.answered(message)
                case "need":
                    self._need(message.get("keys"))
                case "refused":
                    await self._refused(message)
                case "error":
                    extra = {"node": self._uid, "code": message.get("code"), "text": message.get("message")}
                    log.warning("an agent reported an error", extra=extra)
                case "pong" | "ping":
                    pass
                case unknown:
                    await self.wire.send({"type": "error", "code": "UnknownMessage", "message": f"this operator does not know {unknown!r}"})
        raise Unreachable("the agent ended the connection")

    def _take(self, report: NodeReport) -> None:
        if report.facts is not None:
            self._standing.note(facts=report.facts)
        self._desk.on_report(self._uid, report)

    async def _refused(self, message: dict[str, Any]) -> None:
        refusal = _said(message)
        if refusal.reason == "StaleEpoch":
            try:
                await self._desk.on_newer_epoch(self._uid, int(message.get("epoch") or 0))
            except MoorageError as error:
                log.warning("the epoch is not raised", extra={"node": self._uid, "error": str(error)})
        self._standing.note(last_frame_at=self.wire.last_frame_at)
        raise refusal

    def _need(self, keys: object) -> None:
        if not isinstance(keys, list) or not all(isinstance(key, str) and len(key) <= LONGEST_KEY for key in keys):
            raise ProtocolError("the agent asks for values by what are no keys")
        for key in dict.fromkeys(keys):
            self._give(key)
        if len(self._giving) > KEYS_AT_ONCE:
            raise ProtocolError(f"the agent asks for {len(self._giving)} values at once: no document names so many")

    def _give(self, key: str) -> None:
        """Once more when it is being given: what is under way may be what was true before."""
        again = self._giving[key] = key in self._giving
        if not again:
            self.wire.background(self._give_it(key))

    async def _give_it(self, key: str) -> None:
        try:
            while True:
                async with self._answers:
                    self._giving[key] = False
                    await self._answer(key)
                if not self._giving[key]:
                    return
        finally:
            del self._giving[key]

    async def _answer(self, key: str) -> None:
        try:
            value = await self._desk.value(self._uid, key)
        except MoorageError as error:
            await self.wire.send({"type": "value", "key": key, "error": {"code": error.reason, "message": str(error)}})
        else:
            await self.wire.send({"type": "value", "key": key}, value)

    # --- what we say

    async def _push_documents(self) -> None:
        """The first change goes at once, the next when the last was acknowledged: bursts coalesce by themselves."""
        sent: Wish | None = None
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                wish = self._desk.wish(self._uid)
            except InvalidSpec as error:
                self._standing.tell(reason=error.reason, message=str(error))  # the host keeps what it was sent last
                continue
            if self._standing.link.reason not in ("", "Silent"):
                self._standing.tell(reason="", message="")
            if wish != sent:
                await self._push(wish)
                if sent is None:
                    self.send_again(lambda _: True)
                sent = wish

    async def _push(self, wish: Wish) -> None:
        assert self._claim is not None
        self._revision += 1
        spec = NodeSpec(
            swarm_id=self._claim.swarm_id,
            node_uid=self._uid,
            epoch=self._claim.epoch,
            revision=self._revision,
            node_name=wish.node_name,
            tasks=wish.tasks,
            images=wish.images,
        )
        await self.wire.deliver(spec)

    async def _beat(self) -> None:
        while True:
            with suppress(TimeoutError):  # a link that is cut takes no more bytes; the silence is what counts
                async with asyncio.timeout(PING_EVERY_S):
                    await self.wire.send({"type": "ping", "at": self._clock()})
            await asyncio.sleep(PING_EVERY_S)
            silence = self._clock() - self.wire.last_frame_at
            if silence > SILENCE_S:
                self._standing.tell(reason="Silent", message=f"nothing heard from the agent for {silence:.0f} s")
            if silence > GIVE_UP_S:
                raise Unreachable(f"nothing heard from the agent for {silence:.0f} s")


def _said(message: dict[str, Any]) -> AgentError:
    """The agent's words, no longer than a status holds: a host may say anything."""
    return AgentError(str(message.get("message"))[:LONGEST_WORDS], reason=str(message.get("code"))[:LONGEST_CODE])
