"""Keeps handshakes within what hosts and jump hosts bear, and shares one connection per jump host.

An sshd drops unauthenticated connections from the tenth on (MaxStartups 10:30:100); a fleet that reconnects at once would meet that on
every jump host, and burn this process's own CPU in key exchanges.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from moorage_operator.errors import HostKeyMismatch, JumpHostKeyMismatch
from moorage_operator.fleet.ssh import Connection, connect
from moorage_operator.fleet.target import Target

HANDSHAKES: Final = 30
HANDSHAKES_PER_JUMP: Final = 8
IDLE_S: Final = 120.0  # longer than the longest pause of a session whose host may be back

Connect = Callable[..., Awaitable[Connection]]


class _Jump:
    """One shared connection to a jump host, and who uses it."""

    opening: asyncio.Task[Connection]

    def __init__(self, target: Target) -> None:
        self.target = target
        self.handshakes = asyncio.Semaphore(HANDSHAKES_PER_JUMP)
        self.users = 0
        self.idle: asyncio.TimerHandle | None = None


class Governor:
    """Opens connections, a bounded number at a time."""

    def __init__(self, connect: Connect = connect) -> None:
        self._connect = connect
        self._all = asyncio.Semaphore(HANDSHAKES)
        self._jumps: dict[Target, _Jump] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self.handshakes = 0

    async def open(self, target: Target) -> Connection:
        """A connection to the target. Raises what `ssh.connect` raises; a failing jump host fails each of its nodes the same way."""
        if target.jump is None:
            return await self._handshake(target, None)
        jump = self._jump(target.jump)
        self._enter(jump)
        try:
            async with jump.handshakes:
                connection = await self._handshake(target, await asyncio.shield(jump.opening))
        except BaseException:
            self._leave(jump)
            raise
        self._when_closed(connection, lambda: self._leave(jump))
        return connection

    async def _handshake(self, target: Target, through: Connection | None) -> Connection:
        async with self._all:
            self.handshakes += 1
            return await self._connect(target, through=through)

    def _jump(self, target: Target) -> _Jump:
        jump = self._jumps.get(target)
        if jump is None:
            jump = self._jumps[target] = _Jump(target)
            jump.opening = asyncio.create_task(self._open_jump(jump))
        return jump

    async def _open_jump(self, jump: _Jump) -> Connection:
        """The shared connection; forgotten when it fails or ends, so that the next node opens it anew."""
        try:
            connection = await self.open(jump.target)
        except BaseException as error:
            self._forget(jump)
            if isinstance(error, HostKeyMismatch):
                raise JumpHostKeyMismatch(f"the jump host {error}", seen=error.seen) from error
            raise
        self._when_closed(connection, lambda: self._forget(jump))
        if self._jumps.get(jump.target) is not jump:  # closed, for want of users, before it was open
            connection.abort()
        return connection

    def _forget(self, jump: _Jump) -> None:
        if self._jumps.get(jump.target) is jump:
            del self._jumps[jump.target]

    def _enter(self, jump: _Jump) -> None:
        jump.users += 1
        if jump.idle is not None:
            jump.idle.cancel()
            jump.idle = None

    def _leave(self, jump: _Jump) -> None:
        """The last one does not close the door: a node that lost its session is soon back. A Target nobody has any more is not."""
        jump.users -= 1
        if not jump.users:
            jump.idle = asyncio.get_running_loop().call_later(IDLE_S, self._close, jump)

    def _close(self, jump: _Jump) -> None:
        self._forget(jump)
        if jump.opening.done() and not jump.opening.cancelled() and jump.opening.exception() is None:
            jump.opening.result().abort()

    def _when_closed(self, connection: Connection, then: Callable[[], None]) -> None:
        async def watch() -> None:
            await connection.closed()
            then()

        self._watchers.add(watcher := asyncio.create_task(watch()))
        watcher.add_done_callback(self._watchers.discard)
