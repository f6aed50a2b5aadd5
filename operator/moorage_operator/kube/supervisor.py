"""Background tasks that may not vanish: one that dies is logged, counted and started again.

An asyncio task that ends by an exception nobody awaits leaves a process that looks healthy and does nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

from moorage_operator.kube.backoff import Backoff
from moorage_operator.kube.clock import Clock

log = logging.getLogger(__name__)

STABLE_S = 60.0
"""A task that ran this long before it died starts again as if it had never failed."""


class Supervisor:
    """Runs named endless coroutines. `restarts` counts, per name, how often one had to be started again."""

    def __init__(self, *, clock: Clock, random: Random, backoff: Backoff | None = None) -> None:
        self.restarts: Counter[str] = Counter()
        self._clock = clock
        self._random = random
        self._backoff = backoff or Backoff(base_s=0.5, cap_s=30.0)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, body: Callable[[], Awaitable[object]]) -> None:
        """Runs `body` until stop(). A body that returns is as dead as one that raises: it was to run for ever."""
        if name in self._tasks:
            raise ValueError(f"a background task named {name} is running already")
        self._tasks[name] = asyncio.create_task(self._keep(name, body), name=name)

    def running(self, name: str) -> bool:
        return name in self._tasks

    async def stop(self, *names: str) -> None:
        """Cancels the named tasks, or all, and waits until they are gone."""
        stopped = [self._tasks.pop(name) for name in (names or tuple(self._tasks)) if name in self._tasks]
        for task in stopped:
            task.cancel()
        await asyncio.gather(*stopped, return_exceptions=True)

    async def _keep(self, name: str, body: Callable[[], Awaitable[object]]) -> None:
        failures = 0
        while True:
            started = self._clock.monotonic()
            try:
                await body()
                log.error("background task returned, starting it again", extra={"task": name})
            except Exception:
                log.exception("background task died, starting it again", extra={"task": name})
            self.restarts[name] += 1
            failures = 1 if self._clock.monotonic() - started > STABLE_S else failures + 1
            await self._clock.sleep(self._backoff.delay(failures, self._random))
