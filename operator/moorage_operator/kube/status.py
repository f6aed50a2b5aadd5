"""Writes the status of objects: the latest wins, nothing is written that is there already, and no writer waits for the API server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Any

from moorage_operator.errors import Conflict, Invalid, NotFound
from moorage_operator.kube.cache import Cache
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import Clock
from moorage_operator.kube.object import Key, Obj, key_of, uid_of
from moorage_operator.kube.queue import WorkQueue
from moorage_operator.kube.timestamp import timestamp

log = logging.getLogger(__name__)


class StatusWriter:
    """For the objects of one cache. `on_conflict` gets the key of an object that was changed by others meanwhile: decide on it again.
    What was wanted is still written, unless a newer wish replaces it.
    """

    def __init__(
        self,
        api: KubeApi,
        cache: Cache,
        *,
        clock: Clock,
        random: Random,
        on_conflict: Callable[[Key], object],
        workers: int = 16,
    ) -> None:
        self.written = 0
        self.spared = 0
        self._api = api
        self._cache = cache
        self._clock = clock
        self._on_conflict = on_conflict
        self._wanted: dict[str, Obj] = {}
        self._queue: WorkQueue[str] = WorkQueue(f"{cache.resource} status", self._write, clock=clock, random=random, workers=workers)

    def put(self, obj: Obj, status: Obj, *, after_s: float = 0.0) -> None:
        """Wants `status` (whole: what it lacks is removed) on `obj`, and returns at once. What an earlier call wanted and was not yet
        written is forgotten. Conditions may come without lastTransitionTime. `after_s`: it may wait so long for what comes next.
        """
        uid = uid_of(obj)
        self._wanted[uid] = status
        self._queue.add(uid, after_s)

    async def run(self) -> None:
        """Writes until cancelled; for a Supervisor."""
        await self._queue.run()

    @property
    def waiting(self) -> int:
        """Statuses wanted and not yet written; includes those under way and those waiting for another try."""
        return len(self._wanted)

    async def drain(self, *, within_s: float) -> bool:
        """Waits until all that is wanted is written, at most so long. False when some was not: the next start works it out anew."""
        end = self._clock.monotonic() + within_s
        while self._wanted and self._clock.monotonic() < end:
            await self._clock.sleep(0.02)
        return not self._wanted

    async def _write(self, uid: str) -> None:
        status = self._wanted.get(uid)
        if status is None:
            return
        try:
            await self._write_to(self._cache.by_uid(uid), status)
        except Conflict:
            await self._refresh(uid)
            raise  # the queue tries again, on the object as it is now
        except NotFound:
            log.debug("status of a deleted object dropped", extra={"resource": str(self._cache.resource), "uid": uid})
        except Invalid as error:
            # The same again would be refused again.
            log.warning("status refused", extra={"resource": str(self._cache.resource), "uid": uid, "error": str(error)})
        if self._wanted.get(uid) is status:  # a newer one that arrived meanwhile has its turn next
            del self._wanted[uid]

    async def _write_to(self, obj: Obj | None, status: Obj) -> None:
        if obj is None:
            return
        patch = status_patch(obj.get("status") or {}, status, now=self._clock.now())
        if not patch:
            self.spared += 1
            return
        # The version: a successor of the same name must not get this one's state, and the patch fits no other.
        version = obj["metadata"]["resourceVersion"]
        self._cache.put(await self._api.patch_status(self._cache.resource, key_of(obj), patch, version=version))
        self.written += 1

    async def _refresh(self, uid: str) -> None:
        """Reads what the conflict was with, instead of waiting for the watch to tell."""
        obj = self._cache.by_uid(uid)
        if obj is not None:
            self._cache.put(await self._api.get(self._cache.resource, key_of(obj)))
            self._on_conflict(key_of(obj))


def status_patch(old: Obj, new: Obj, *, now: datetime) -> Obj:
    """The merge-patch that turns status `old` into `new`; empty when there is nothing to write. Pure."""
    if "conditions" in new:
        new = {**new, "conditions": settled(old.get("conditions") or [], new["conditions"], now=now)}
    return merge_patch(old, new)


def settled(old: list[Obj], new: list[Obj], *, now: datetime) -> list[Obj]:
    """The new conditions, each with the time its `status` last flipped: the old one's where it did not."""
    known = {condition["type"]: condition for condition in old}
    return [{**condition, "lastTransitionTime": _since(known.get(condition["type"]), condition, now)} for condition in new]


def merge_patch(old: Obj, new: Obj) -> Obj:
    """RFC 7386: what differs, and null for what is gone. Lists are replaced whole. A None in `new` means absent."""
    patch: dict[str, Any] = {name: None for name in old if new.get(name) is None}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := merge_patch(before, value):
                patch[name] = inner
        elif value is not None and value != before:
            patch[name] = value
    return patch


def _since(old: Obj | None, new: Obj, now: datetime) -> str:
    if old is not None and old.get("status") == new.get("status") and old.get("lastTransitionTime"):
        return str(old["lastTransitionTime"])
    return str(new.get("lastTransitionTime") or timestamp(now))
