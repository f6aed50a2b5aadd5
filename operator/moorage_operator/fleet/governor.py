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

Connect = Callable[..., Awaitable[Connection]]


class Governor:
    """Opens connections, a bounded number at a time."""

    def __init__(self, connect: Connect = connect) -> None:
        self._connect = connect
        self._all = asyncio.Semaphore(HANDSHAKES)
        self._per_jump: dict[Target, asyncio.Semaphore] = {}
        self._jumps: dict[Target, asyncio.Task[Connection]] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self.handshakes = 0

    async def open(self, target: Target) -> Connection:
        """A connection to the target. Raises what `ssh.connect` raises; a failing jump host fails each of its nodes the same way."""
        if target.jump is None:
            return await self._handshake(target, None)
        async with self._per_jump.setdefault(target.jump, asyncio.Semaphore(HANDSHAKES_PER_JUMP)):
            return await self._handshake(target, await self._jump(target.jump))

    async def _handshake(self, target: Target, through: Connection | None) -> Connection:
        async with self._all:
            self.handshakes += 1
            return await self._connect(target, through=through)

    async def _jump(self, target: Target) -> Connection:
        opening = self._jumps.get(target)
        if opening is None:
            opening = self._jumps[target] = asyncio.create_task(self._open_jump(target))
        return await asyncio.shield(opening)

    async def _open_jump(self, target: Target) -> Connection:
        """The shared connection; forgotten when it fails or ends, so that the next node opens it anew."""
        try:
            connection = await self.open(target)
        except BaseException as error:
            del self._jumps[target]
            if isinstance(error, HostKeyMismatch):
                raise JumpHostKeyMismatch(f"the jump host {error}", seen=error.seen) from error
            raise
        self._watchers.add(watcher := asyncio.create_task(connection.closed()))
        watcher.add_done_callback(lambda _: self._forget(target, watcher))
        return connection

    def _forget(self, target: Target, watcher: asyncio.Task[None]) -> None:
        self._watchers.discard(watcher)
        self._jumps.pop(target, None)
