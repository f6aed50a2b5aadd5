"""One kind of work towards the API server: how much of it may be under way, and how fast it may be begun.

Each kind has a lane of its own, so that a burst of one never holds up another: the status of a running task does not wait behind the
creation of the next thousand.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType

from moorage_operator.kube.clock import Clock

ROUNDING_S = 1e-6
"""Sums of fractions of a second miss a whole one by this much at most, for as long as a machine stays up."""


@dataclass
class RateLimit:
    """At most `per_s` a second on average, `burst` at once after a rest. Pure: the time is an argument."""

    per_s: float
    burst: float
    _due: float = float("-inf")  # when the last one begun so far would have been due at an even pace

    def reserve(self, now: float) -> float:
        """Takes the next place in time and returns the seconds until it."""
        self._due = max(self._due, now) + 1 / self.per_s
        wait_s = self._due - now - self.burst / self.per_s
        return wait_s if wait_s > ROUNDING_S else 0.0


class Lane:
    """`async with lane:` waits for its turn and for one of `slots`."""

    def __init__(self, *, slots: int, rate: float, clock: Clock) -> None:
        self._limit = RateLimit(per_s=rate, burst=max(rate, 1.0))
        self._slots = asyncio.Semaphore(slots)
        self._clock = clock

    async def __aenter__(self) -> None:
        wait_s = self._limit.reserve(self._clock.monotonic())
        if wait_s > 0:
            await self._clock.sleep(wait_s)
        await self._slots.acquire()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._slots.release()
