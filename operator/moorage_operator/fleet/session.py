"""One host's session: keeps the connection, pushes the node's document, carries answers both ways, tells how the link stands.

It decides nothing about tasks. What it needs it asks its Desk for; what it hears it puts on the Desk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from moorage_agent.protocol import (
    PROTOCOL,
    HostFacts,
    ImageSource,
    NodeReport,
    NodeSpec,
    ProtocolError,
    ResolvedImage,
    from_wire,
    to_wire,
)

from moorage_operator.errors import AgentError, HostKeyMismatch, InvalidSpec, MoorageError, NodeUnavailable, Unreachable
from moorage_operator.fleet import loader
from moorage_operator.fleet.archive import Archive
from moorage_operator.fleet.backoff import FIRST_S, delay_s
from moorage_operator.fleet.governor import Governor
from moorage_operator.fleet.ssh import Connection
from moorage_operator.fleet.target import Target
from moorage_operator.fleet.wire import Wire

log = logging.getLogger(__name__)

PING_EVERY_S: Final = 5.0
SILENCE_S: Final = 15.0  # the planner calls the node Unknown
GIVE_UP_S: Final = 20.0  # the connection is dropped and made anew
HELLO_WITHIN_S: Final = 60.0  # a busy host compiles the agent first


@dataclass(frozen=True)
class Link:
    """How a node's link stands. reason is "" while connected, else stable and CamelCase; times are seconds since 1970."""

    connected: bool = False
    reason: str = "Connecting"
    message: str = "connecting"
    last_frame_at: float | None = None
    host_key_seen: str = ""
    facts: HostFacts | None = None
    bound: dict[str, Any] | None = None
    upgrade_failed: str = ""


@dataclass(frozen=True)
class Wish:
    """What a node's document shall hold: values of the protocol, or their wire form."""

    node_name: str
    tasks: tuple[Any, ...]
    images: tuple[Any, ...]


@dataclass(frozen=True)
class Claim:
    """Who we are to the host. adopt: take the host though it is bound to another swarm or Node."""

    swarm_id: str
    epoch: int
    adopt: bool


class Desk(Protocol):
    """What a session asks and where it reports; every call names the node's uid."""

    def wish(self, uid: str) -> Wish:
        """Raises InvalidSpec when nobody can tell."""

    def claim(self, uid: str, bound: dict[str, Any] | None) -> Claim: ...

    async def value(self, uid: str, key: str) -> bytes:
        """The bytes of a value the agent lacks. Raises MoorageError with the reason."""

    def changing_keys(self, uid: str) -> Iterable[str]:
        """Keys the node's document names whose contents may change while the key stays."""

    async def pin(self, uid: str, host_keys: tuple[str, ...]) -> None:
        """Keep the host keys of a first contact; nothing is sent to the host before this returns."""

    def on_link(self, uid: str, link: Link) -> None: ...

    def on_report(self, uid: str, report: NodeReport) -> None: ...

    async def on_newer_epoch(self, uid: str, epoch: int) -> None:
        """The agent obeyed a higher epoch of our own swarm."""

    def forget(self, uid: str) -> None:
        """Its session ended for good."""


class Session:
    """Lives as long as the Node object; `run()` is its whole life."""

    def __init__(
        self,
        uid: str,
        target: Target,
        *,
        desk: Desk,
        governor: Governor,
        archive: Archive,
        root: str,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self.uid = uid
        self.link = Link()
        self._target = target
        self._desk = desk
        self._governor = governor
        self._archive = archive
        self._root = root
        self._clock = clock
        self._random = random
        self._wake = asyncio.Event()
        self._dirty = asyncio.Event()
        self._upgrade = False
        self._upgrading = False
        self._wire: Wire | None = None
        self._claim: Claim | None = None
        self._revision = 0

    def retarget(self, target: Target) -> None:
        """Use another address, key or pin from now on. A session that stands is kept unless it would go elsewhere."""
        if target == self._target:
            return
        moved = replace(target, host_keys=(), policy=self._target.policy) != replace(self._target, host_keys=())
        self._target = target
        self._wake.set()
        if moved and self._wire:
            self._wire.abort()

    def hurry(self) -> None:
        """Try again now, instead of after the pause."""
        self._wake.set()

    def push(self) -> None:
        """The wish may have changed."""
        self._dirty.set()

    def send_again(self, concerned: Callable[[str], bool]) -> None:
        """What changed under its key is sent unasked: the agent cannot know."""
        if self._wire is not None:
            self._send_changing(self._wire, concerned)

    def upgrade(self) -> None:
        """Run the operator's own agent version on the host."""
        self._upgrade = True
        self._wake.set()
        if self._wire:
            self._wire.abort()

    async def resolve(self, source: ImageSource) -> ResolvedImage:
        """What an image source means right now, seen from this node. Raises AgentError with the agent's code."""
        answer = await self._ask({"type": "resolve", "source": to_wire(source)}, within_s=600)
        return from_wire(ResolvedImage, answer["image"])

    async def uninstall(self) -> None:
        """Stop everything on the host and remove the agent with all its files."""
        await self._ask({"type": "uninstall"}, within_s=120)

    async def _ask(self, message: dict[str, Any], *, within_s: float) -> dict[str, Any]:
        if self._wire is None:
            raise Unreachable("the node is not connected")
        return await self._wire.ask(message, within_s=within_s)

    async def run(self) -> None:
        """Connect, serve, and again after a pause, until cancelled."""
        attempt = 0
        while True:
            self._wake.clear()
            try:
                await self._connect_and_serve()
            except Exception as error:
                if not isinstance(error, MoorageError | ProtocolError):
                    log.exception("the session of a node failed by a bug", extra={"node": self.uid})
                attempt = 1 if self.link.connected else attempt + 1
                # After a failed upgrade the version before is dialled, which worked until now.
                pause_s = FIRST_S if self._upgrading else delay_s(error, attempt, random=self._random())
                self._lost(error)
                await self._pause(pause_s)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _lost(self, error: BaseException) -> None:
        # A host that went away meanwhile says nothing about the new version.
        failed = str(error) if self._upgrading and not isinstance(error, NodeUnavailable) else self.link.upgrade_failed
        self._upgrading = False
        self._set_link(
            connected=False,
            reason=getattr(error, "reason", "Error"),
            message=str(error) or type(error).__name__,
            host_key_seen=error.seen if isinstance(error, HostKeyMismatch) else "",
            upgrade_failed=failed,
        )

    def _set_link(self, **changes: Any) -> None:
        self.link = replace(self.link, **changes)
        self._desk.on_link(self.uid, self.link)

    async def _connect_and_serve(self) -> None:
        target = self._target
        connection = await self._governor.open(target)
        try:
            if target.policy == "TrustOnFirstUse" and not target.host_keys:
                await self._desk.pin(self.uid, await connection.host_keys())
            await self._serve(connection)
        finally:
            connection.abort()

    async def _serve(self, connection: Connection) -> None:
        self._upgrading, self._upgrade = self._upgrade, False
        line = loader.command(
            connection.target.become, self._archive.sha256, len(self._archive.data), upgrade=self._upgrading, root=self._root
        )
        async with connection.channel(line) as channel:
            wire = Wire(channel, self._clock)
            try:
                async with asyncio.timeout(HELLO_WITHIN_S):
                    await wire.load(self._archive)
                    await self._introduce(wire, await wire.hello())
            except TimeoutError as error:
                raise Unreachable(f"the agent did not introduce itself within {HELLO_WITHIN_S:g} s") from error
            try:
                await self._converse(wire)
            finally:
                self._wire = None
                wire.fail(Unreachable("the connection to the node ended"))

    async def _introduce(self, wire: Wire, hello: dict[str, Any]) -> None:
        bound = hello.get("bound")
        claim = self._desk.claim(self.uid, bound)
        self._claim = claim
        self._revision = int((bound or {}).get("revision") or 0)
        await wire.send(
            {
                "type": "hello",
                "protocol": PROTOCOL,
                "swarmId": claim.swarm_id,
                "nodeUid": self.uid,
                "epoch": claim.epoch,
                "adopt": claim.adopt,
            }
        )
        self._upgrading = False
        self._wire = wire
        self._set_link(
            connected=True,
            reason="",
            message="",
            last_frame_at=self._clock(),
            facts=from_wire(HostFacts, hello["facts"]),
            bound=bound,
            upgrade_failed="" if hello["facts"].get("agentVersion") == self._archive.sha256 else self.link.upgrade_failed,
        )

    async def _converse(self, wire: Wire) -> None:
        """Until the connection ends or the agent refuses us; the first failure of any part ends them all.

        No TaskGroup: in early Python 3.11 (Debian 12's) the task that had a failed one stays marked as cancelled, and its next time limit
        ends it.
        """
        self._dirty.set()
        parts = [asyncio.create_task(part) for part in (self._receive(wire), self._push_documents(wire), self._beat(wire))]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_EXCEPTION)
            for part in done:
                part.result()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _receive(self, wire: Wire) -> None:
        async for message, _payload in wire.messages():
            if self.link.reason == "Silent":
                self._set_link(reason="", message="")
                self.push()
            self.link = replace(self.link, last_frame_at=wire.last_frame_at)
            match message["type"]:
                case "report":
                    report = from_wire(NodeReport, message["report"])
                    if report.facts is not None:
                        self.link = replace(self.link, facts=report.facts)
                    self._desk.on_report(self.uid, report)
                case "accepted" | "resolved" | "done":
                    wire.answered(message)
                case "need":
                    for key in message["keys"]:
                        wire.background(self._answer(wire, key))
                case "refused":
                    await self._refused(message)
                case "error":
                    log.warning(
                        "an agent reported an error", extra={"node": self.uid, "code": message.get("code"), "text": message.get("message")}
                    )
                case "pong" | "ping":
                    pass
                case unknown:
                    await wire.send({"type": "error", "code": "UnknownMessage", "message": f"this operator does not know {unknown!r}"})
        raise Unreachable("the agent ended the connection")

    async def _refused(self, message: dict[str, Any]) -> None:
        code = str(message.get("code"))
        if code == "StaleEpoch":
            await self._desk.on_newer_epoch(self.uid, int(message.get("epoch") or 0))
        raise AgentError(str(message.get("message")), reason=code)

    async def _answer(self, wire: Wire, key: str) -> None:
        try:
            value = await self._desk.value(self.uid, key)
        except MoorageError as error:
            await wire.send({"type": "value", "key": key, "error": {"code": error.reason, "message": str(error)}})
        else:
            await wire.send({"type": "value", "key": key}, value)

    async def _push_documents(self, wire: Wire) -> None:
        """The first change goes at once, the next when the last was acknowledged: bursts coalesce by themselves."""
        sent: Wish | None = None
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                wish = self._desk.wish(self.uid)
            except InvalidSpec as error:
                self._set_link(reason=error.reason, message=str(error))  # it keeps what it was sent last
                continue
            if self.link.reason not in ("", "Silent"):
                self._set_link(reason="", message="")
            if wish != sent:
                await self._push(wire, wish)
                if sent is None:
                    self._send_changing(wire, lambda _: True)
                sent = wish

    def _send_changing(self, wire: Wire, concerned: Callable[[str], bool]) -> None:
        for key in self._desk.changing_keys(self.uid):
            if concerned(key):
                wire.background(self._answer(wire, key))

    async def _push(self, wire: Wire, wish: Wish) -> None:
        assert self._claim is not None
        self._revision += 1
        spec = NodeSpec(
            swarm_id=self._claim.swarm_id,
            node_uid=self.uid,
            epoch=self._claim.epoch,
            revision=self._revision,
            node_name=wish.node_name,
            tasks=wish.tasks,
            images=wish.images,
        )
        await wire.deliver(spec)

    async def _beat(self, wire: Wire) -> None:
        while True:
            with suppress(TimeoutError):  # a link that is cut takes no more bytes; the silence is what counts
                async with asyncio.timeout(PING_EVERY_S):
                    await wire.send({"type": "ping", "at": self._clock()})
            await asyncio.sleep(PING_EVERY_S)
            silence = self._clock() - wire.last_frame_at
            if silence > SILENCE_S:
                self._set_link(reason="Silent", message=f"nothing heard from the agent for {silence:.0f} s")
            if silence > GIVE_UP_S:
                raise Unreachable(f"nothing heard from the agent for {silence:.0f} s")
