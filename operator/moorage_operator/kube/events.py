"""Events about objects, for `kubectl describe` and `kubectl get events`: each said once and then counted, never at its caller's cost.

Written as core/v1 Events with count and lastTimestamp. The newer events.k8s.io/v1 leaves those empty, so that `--sort-by=.lastTimestamp`
and most dashboards show its events without a time; the controllers of Kubernetes itself still write core/v1.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from moorage_operator.errors import MoorageError, NotFound
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import Clock
from moorage_operator.kube.lane import RateLimit
from moorage_operator.kube.object import Key, Obj
from moorage_operator.kube.resource import EVENTS
from moorage_operator.kube.timestamp import timestamp

log = logging.getLogger(__name__)

MESSAGE_BYTES = 1024
"""The API server's limit for an Event's message."""

REMEMBERED = 4096
"""Events counted at one time. The API server itself forgets one after an hour."""

REPEAT_S = 60.0
"""A repeated event is written at most so often, with the count it has reached by then."""


class _Said(NamedTuple):
    uid: str
    reason: str
    message: str


@dataclass
class _Series:
    """One thing said, how often, and what of that the API server knows (`posted`: 0 while it has no such Event)."""

    about: Obj
    warning: bool
    first: str
    last: str
    count: int = 0
    posted: int = 0
    posted_at: float = float("-inf")


class EventRecorder:
    """`instance` is unique to the process, so that two of one operator do not overwrite each other's counts."""

    def __init__(self, api: KubeApi, *, clock: Clock, component: str, instance: str, per_s: float = 5.0, burst: float = 50.0) -> None:
        self.dropped = 0
        self._api = api
        self._clock = clock
        self._component = component
        self._instance = instance
        self._limit = RateLimit(per_s=per_s, burst=burst)
        self._series: OrderedDict[_Said, _Series] = OrderedDict()
        self._unsaid: dict[_Said, None] = {}
        self._wake = asyncio.Event()

    def record(self, obj: Obj, reason: str, message: str, *, warning: bool = False) -> None:
        """Returns at once and never raises. `reason` is CamelCase and stable; `message` is cut at 1 KiB."""
        said = _Said(obj["metadata"].get("uid", ""), reason, _cut(message))
        now = timestamp(self._clock.now())
        series = self._series.get(said) or _Series(_reference(obj), warning, first=now, last=now)
        series.count += 1
        series.last = now
        self._series[said] = series
        self._series.move_to_end(said)
        self._forget_the_oldest()
        self._unsaid[said] = None
        self._wake.set()

    async def run(self) -> None:
        """Writes what was recorded until cancelled; for a Supervisor."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._unsaid:
                await self._say_next()

    async def _say_next(self) -> None:
        said = next(iter(self._unsaid))
        del self._unsaid[said]
        series = self._series.get(said)
        if series is None or series.count == series.posted:
            return
        wait_s = series.posted_at + REPEAT_S - self._clock.monotonic()
        if wait_s > 0:
            self._clock.call_later(wait_s, lambda: self._again(said))
            return
        if (pace_s := self._limit.reserve(self._clock.monotonic())) > 0:
            await self._clock.sleep(pace_s)
        await self._write(said, series)

    async def _write(self, said: _Said, series: _Series) -> None:
        count, series.posted_at = series.count, self._clock.monotonic()
        try:
            if series.posted:
                await self._repeat(said, series, count)
            else:
                await self._api.create(EVENTS, self._event(said, series, count))
            series.posted = count
        except MoorageError as error:
            # An Event is a courtesy: what it tells is in the object's conditions too.
            self.dropped += 1
            log.debug("event dropped", extra={"reason": said.reason, "error": str(error)})

    async def _repeat(self, said: _Said, series: _Series, count: int) -> None:
        try:
            body = {"count": count, "lastTimestamp": series.last}
            await self._api.patch(EVENTS, self._key(said, series), body)
        except NotFound:
            # An hour has passed since the last one: to a reader it is a new event.
            await self._api.create(EVENTS, self._event(said, series, count))

    def _event(self, said: _Said, series: _Series, count: int) -> Obj:
        key = self._key(said, series)
        return {
            "metadata": {"namespace": key.namespace, "name": key.name},
            "involvedObject": series.about,
            "reason": said.reason,
            "message": said.message,
            "type": "Warning" if series.warning else "Normal",
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
            "firstTimestamp": series.first,
            "lastTimestamp": series.last,
            "count": count,
        }

    def _key(self, said: _Said, series: _Series) -> Key:
        unique = hashlib.sha256("\0".join((self._instance, *said)).encode()).hexdigest()[:16]
        # The API server wants events about cluster-scoped objects in "default".
        return Key(series.about.get("namespace") or "default", f"{series.about['name'][:200]}.{unique}")

    def _again(self, said: _Said) -> None:
        self._unsaid[said] = None
        self._wake.set()

    def _forget_the_oldest(self) -> None:
        while len(self._series) > REMEMBERED:
            said, series = self._series.popitem(last=False)
            self._unsaid.pop(said, None)
            self.dropped += series.count > series.posted


def _reference(obj: Obj) -> Obj:
    metadata = obj["metadata"]
    about = {
        "apiVersion": obj.get("apiVersion", ""),
        "kind": obj.get("kind", ""),
        "namespace": metadata.get("namespace", ""),
        "name": metadata["name"],
        "uid": metadata.get("uid", ""),
    }
    return {name: value for name, value in about.items() if value}


def _cut(message: str) -> str:
    if len(message.encode()) <= MESSAGE_BYTES:
        return message
    return message.encode()[: MESSAGE_BYTES - 3].decode(errors="ignore") + "…"
