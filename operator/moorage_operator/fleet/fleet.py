"""All sessions of this process, by the uid of their Node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Final

from moorage_operator.errors import Unreachable
from moorage_operator.fleet.archive import Archive
from moorage_operator.fleet.governor import Governor
from moorage_operator.fleet.link import Desk, Link
from moorage_operator.fleet.session import Session
from moorage_operator.fleet.target import Target

HURRY_EVERY_S: Final = 10.0


class Fleet:
    """Opens a session for each node it is told to keep, and ends those it is told to drop."""

    def __init__(
        self,
        *,
        desk: Desk,
        governor: Governor,
        archive: Archive,
        root: str,
        random: Random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.archive = archive
        self._desk = desk
        self._governor = governor
        self._root = root
        self._random = random
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._hurried_at = float("-inf")

    def keep(self, uid: str, target: Target) -> None:
        """Hold a session to this host from now on, or move the one there is."""
        session = self._sessions.get(uid)
        if session is not None:
            session.retarget(target)
            return
        session = self._sessions[uid] = Session(
            uid,
            target,
            desk=self._desk,
            governor=self._governor,
            archive=self.archive,
            root=self._root,
            clock=self._clock,
            random=self._random.random,
        )
        self._running[uid] = asyncio.create_task(session.run(), name=f"session-{uid}")

    async def drop(self, uid: str) -> None:
        """End the session; nothing changes on the host."""
        self._sessions.pop(uid, None)
        running = self._running.pop(uid, None)
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self._desk.forget(uid)

    async def drop_all(self) -> None:
        await asyncio.gather(*(self.drop(uid) for uid in list(self._sessions)))

    def hurry(self, uids: Iterable[str]) -> None:
        """These hosts may be back: try them now. At most every 10 s, as one host that comes and goes must not have the dead ones tried
        without end.
        """
        now = time.monotonic()
        if now < self._hurried_at + HURRY_EVERY_S:
            return
        for uid in uids:
            if uid in self._sessions:
                self._hurried_at = now
                self._sessions[uid].hurry()

    def heir(self, uid: str) -> None:
        """The Node with this uid is no more: another one of the same host may have it now."""
        for session in self._sessions.values():
            if session.link.reason == "DuplicateHost" and (session.link.bound or {}).get("nodeUid") == uid:
                session.hurry()

    def push(self, uid: str) -> None:
        """The wish for this node may have changed; without a session nothing happens, the next one begins with a document."""
        session = self._sessions.get(uid)
        if session is not None:
            session.push()

    def send_again(self, uid: str, concerned: Callable[[str], bool]) -> None:
        """What these keys of values stand for changed; a later session sends it by itself."""
        session = self._sessions.get(uid)
        if session is not None:
            session.send_again(concerned)

    def session(self, uid: str) -> Session:
        """Raises Unreachable when no session is kept for the node."""
        session = self._sessions.get(uid)
        if session is None:
            raise Unreachable("no session is kept for this node")
        return session

    def link(self, uid: str) -> Link | None:
        session = self._sessions.get(uid)
        return session.link if session else None

    def __iter__(self) -> Iterator[tuple[str, Link]]:
        return iter([(uid, session.link) for uid, session in self._sessions.items()])
