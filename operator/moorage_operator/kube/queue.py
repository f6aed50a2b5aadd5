"""Keys that want a look, each once, each by one worker at a time; failures come back later and later.

Level-triggered: a key says only that something about it may have changed. Adding one that already waits changes nothing; adding one that
is being worked on makes it run once more afterwards.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from random import Random
from typing import Generic, Literal, TypeVar

from moorage_operator.errors import Conflict, InvalidSpec, MoorageError, NotLeader
from moorage_operator.kube.backoff import Backoff
from moorage_operator.kube.clock import Clock, Timer

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
Outcome = Literal["done", "invalid", "not-leader", "failed", "bug"]


@dataclass(frozen=True)
class _Later:
    due: float
    timer: Timer


class WorkQueue(Generic[K]):
    """`reconcile` returns the seconds until it wants to look again by itself, or None. `observe` hears of each run: outcome, seconds."""

    def __init__(
        self,
        name: str,
        reconcile: Callable[[K], Awaitable[float | None]],
        *,
        clock: Clock,
        random: Random,
        workers: int = 8,
        backoff: Backoff | None = None,
        observe: Callable[[Outcome, float], object] | None = None,
    ) -> None:
        self.name = name
        self._reconcile = reconcile
        self._clock = clock
        self._random = random
        self._workers = workers
        self._backoff = backoff or Backoff()
        self._observe = observe
        self._ready: dict[K, float] = {}  # insertion order is the order of service; the value is since when
        self._later: dict[K, _Later] = {}
        self._active: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._permits = asyncio.Semaphore(0)  # one for each ready key

    @property
    def depth(self) -> int:
        """Keys that could run now and wait for a worker."""
        return len(self._ready)

    @property
    def oldest_age_s(self) -> float:
        """How long the key at the head has been waiting for a worker."""
        return self._clock.monotonic() - next(iter(self._ready.values())) if self._ready else 0.0

    @property
    def running(self) -> int:
        return len(self._active)

    @property
    def idle(self) -> bool:
        """Nothing runs or could run now; keys may still wait for their time."""
        return not self._ready and not self._active

    def add(self, key: K, after_s: float = 0.0) -> None:
        """Wants the key looked at, now or in `after_s` seconds; of several wishes the earliest counts."""
        if after_s <= 0:
            self._cancel_timer(key)
            self._make_ready(key)
            return
        due = self._clock.monotonic() + after_s
        waiting = self._later.get(key)
        if waiting is not None and waiting.due <= due:
            return
        self._cancel_timer(key)
        self._later[key] = _Later(due, self._clock.call_later(after_s, lambda: self.add(key)))

    async def run(self) -> None:
        """Works until cancelled. What was being worked on then is not lost: a later run() starts with it."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._work(), name=f"{self.name}-{number}")

    async def _work(self) -> None:
        while True:
            await self._process(await self._take())
            # A look that writes nothing awaits nothing: thousands of them at a start would keep the loop from the Lease and from all hosts.
            await asyncio.sleep(0)

    async def _take(self) -> K:
        await self._permits.acquire()
        key = next(iter(self._ready))
        del self._ready[key]
        # Its answer will say when to look again; a wish from before the look is fulfilled by it.
        self._cancel_timer(key)
        self._active.add(key)
        return key

    async def _process(self, key: K) -> None:
        started = self._clock.monotonic()
        try:
            outcome, after_s = await self._attempt(key)
        except asyncio.CancelledError:
            self._again.add(key)
            raise
        finally:
            self._active.discard(key)
            if key in self._again:
                self._again.discard(key)
                self._make_ready(key)
        if after_s is not None:
            self.add(key, max(after_s, 0.001))
        if self._observe is not None:
            self._observe(outcome, self._clock.monotonic() - started)

    async def _attempt(self, key: K) -> tuple[Outcome, float | None]:
        context = {"queue": self.name, "key": str(key)}
        try:
            after_s = await self._reconcile(key)
        except NotLeader:
            # May pass: a late renewal of the Lease. Where it does not, the frame stops this queue.
            return "not-leader", self._postponed(key)
        except InvalidSpec as error:
            log.info("reconcile refused", extra=context | {"error": str(error)})
            return self._settled(key, "invalid", None)
        except Conflict as error:
            log.info("reconcile overtaken", extra=context | {"error": str(error)})
            return "failed", self._postponed(key)
        except MoorageError as error:
            log.warning("reconcile failed", extra=context | {"error": str(error), "failures": self._failures.get(key, 0) + 1})
            return "failed", self._postponed(key)
        except Exception:
            log.exception("reconcile failed by a bug", extra=context)
            return "bug", self._postponed(key)
        return self._settled(key, "done", after_s)

    def _settled(self, key: K, outcome: Outcome, after_s: float | None) -> tuple[Outcome, float | None]:
        self._failures.pop(key, None)
        return outcome, after_s

    def _postponed(self, key: K) -> float:
        self._failures[key] = self._failures.get(key, 0) + 1
        return self._backoff.delay(self._failures[key], self._random)

    def _make_ready(self, key: K) -> None:
        if key in self._active:
            self._again.add(key)
        elif key not in self._ready:
            self._ready[key] = self._clock.monotonic()
            self._permits.release()

    def _cancel_timer(self, key: K) -> None:
        waiting = self._later.pop(key, None)
        if waiting is not None:
            waiting.timer.cancel()
