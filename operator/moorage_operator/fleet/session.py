"""One host's session: makes the connection, loads the agent, keeps a conversation with it, and begins anew when it ends.

It decides nothing about tasks. What it needs it asks its Desk for; what it hears it puts on the Desk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from moorage_agent.protocol import HostFacts, ImageSource, ProtocolError, ResolvedImage, from_wire, to_wire

from moorage_operator.errors import HostKeyMismatch, MoorageError, NodeUnavailable, Unreachable
from moorage_operator.fleet import loader
from moorage_operator.fleet.archive import Archive
from moorage_operator.fleet.backoff import FIRST_S, delay_s
from moorage_operator.fleet.conversation import Conversation
from moorage_operator.fleet.governor import Governor
from moorage_operator.fleet.link import Desk, Link, Standing
from moorage_operator.fleet.ssh import Connection
from moorage_operator.fleet.target import Target
from moorage_operator.fleet.wire import Wire

log = logging.getLogger(__name__)

HELLO_WITHIN_S: Final = 60.0  # a busy host compiles the agent first


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
        self._standing = Standing(uid, desk)
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
        self._connection: Connection | None = None
        self._talk: Conversation | None = None
        self._hung_up = ""

    @property
    def link(self) -> Link:
        return self._standing.link

    @property
    def target(self) -> Target:
        return self._target

    def retarget(self, target: Target) -> None:
        """Use another address, key or pin from now on. A session that stands is kept unless it would go elsewhere."""
        if target == self._target:
            return
        moved = target.route != self._target.route
        self._target = target
        self._wake.set()
        if moved:
            self._hang_up("the Node names another host, or another way to it")

    def hurry(self) -> None:
        """Try again now, instead of after the pause."""
        self._wake.set()

    def push(self) -> None:
        """The wish may have changed."""
        self._dirty.set()

    def send_again(self, concerned: Callable[[str], bool]) -> None:
        """What changed under its key is sent unasked: the agent cannot know."""
        if self._talk is not None:
            self._talk.send_again(concerned)

    def upgrade(self) -> None:
        """Run the operator's own agent version on the host."""
        self._upgrade = True
        self._wake.set()
        self._hang_up("the agent is upgraded")

    async def resolve(self, source: ImageSource) -> ResolvedImage:
        """What an image source means right now, seen from this node. Raises AgentError with the agent's code."""
        answer = await self._ask({"type": "resolve", "source": to_wire(source)}, within_s=600)
        return from_wire(ResolvedImage, answer["image"])

    async def uninstall(self) -> None:
        """Stop everything on the host and remove the agent with all its files."""
        await self._ask({"type": "uninstall"}, within_s=120)

    async def _ask(self, message: dict[str, Any], *, within_s: float) -> dict[str, Any]:
        if self._talk is None:
            raise Unreachable("the node is not connected")
        return await self._talk.wire.ask(message, within_s=within_s)

    def _hang_up(self, why: str) -> None:
        """Whatever the attempt that is under way would find out, nobody wants to know it any more."""
        self._hung_up = why
        if self._connection is not None:
            self._connection.abort()

    async def run(self) -> None:
        """Connect, serve, and again after a pause, until cancelled."""
        attempt = 0
        while True:
            self._wake.clear()
            try:
                await self._connect_and_serve()
            except Exception as error:
                if not isinstance(error, MoorageError | ProtocolError):
                    log.exception("the session of a node failed by a bug", extra={"node": self._standing.uid})
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
        self._standing.tell(
            connected=False,
            reason=getattr(error, "reason", "Error"),
            message=str(error) or type(error).__name__,
            host_key_seen=error.seen if isinstance(error, HostKeyMismatch) else "",
            upgrade_failed=failed,
        )

    async def _connect_and_serve(self) -> None:
        self._hung_up = ""
        try:
            await self._connect(self._target)
        except (MoorageError, ProtocolError) as error:
            if self._hung_up:
                raise Unreachable(self._hung_up) from error
            raise

    async def _connect(self, target: Target) -> None:
        connection = self._connection = await self._governor.open(target)
        try:
            if self._hung_up:
                raise Unreachable(self._hung_up)
            if target.policy == "TrustOnFirstUse" and not target.host_keys:
                await self._desk.pin(self._standing.uid, target, await connection.host_keys())
            await self._serve(connection)
        finally:
            self._connection = None
            connection.abort()

    async def _serve(self, connection: Connection) -> None:
        self._upgrading, self._upgrade = self._upgrade, False
        line = loader.command(
            connection.target.become, self._archive.sha256, len(self._archive.data), upgrade=self._upgrading, root=self._root
        )
        async with connection.channel(line) as channel:
            wire = Wire(channel, self._clock)
            talk = Conversation(wire, self._standing, self._desk, dirty=self._dirty, clock=self._clock)
            try:
                async with asyncio.timeout(HELLO_WITHIN_S):
                    await wire.load(self._archive)
                    hello = await wire.hello()
                    self._upgrading = False
                    facts, bound = from_wire(HostFacts, hello["facts"]), hello.get("bound")
                    self._standing.note(facts=facts, bound=bound)
                    report = await talk.introduce(bound)
            except TimeoutError as error:
                raise Unreachable(f"the agent did not introduce itself within {HELLO_WITHIN_S:g} s") from error
            self._talk = talk
            self._say_connected(facts)
            try:
                await talk.run(report)
            finally:
                self._talk = None
                wire.fail(Unreachable("the connection to the node ended"))

    def _say_connected(self, facts: HostFacts) -> None:
        self._standing.tell(
            connected=True,
            reason="",
            message="",
            last_frame_at=self._clock(),
            upgrade_failed="" if facts.agent_version == self._archive.sha256 else self.link.upgrade_failed,
        )
