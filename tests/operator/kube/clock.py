"""A clock that moves when told to."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count

START = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)


class ManualTimer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """A Clock. `advance` moves it from one due moment to the next, and lets what is due run before it goes on."""

    def __init__(self) -> None:
        self._elapsed_s = 0.0
        self._ahead_s = 0.0
        self._due: list[tuple[float, int, ManualTimer]] = []
        self._order = count()

    def monotonic(self) -> float:
        return 1000.0 + self._elapsed_s

    def now(self) -> datetime:
        return START + timedelta(seconds=self._elapsed_s + self._ahead_s)

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> ManualTimer:
        timer = ManualTimer(callback)
        heapq.heappush(self._due, (self._elapsed_s + seconds, next(self._order), timer))
        return timer

    def jump(self, seconds: float) -> None:
        """Time passes while nobody runs: a frozen process. What became due runs at the next `advance`."""
        self._elapsed_s += seconds

    def set_forward(self, seconds: float) -> None:
        """Somebody sets the time of day; no time passes."""
        self._ahead_s += seconds

    async def advance(self, seconds: float) -> None:
        end = self._elapsed_s + seconds
        await settle()
        while self._due and self._due[0][0] <= end:
            due, _, timer = heapq.heappop(self._due)
            self._elapsed_s = max(self._elapsed_s, due)
            if timer.callback is not None:
                timer.callback()
                await settle()
        self._elapsed_s = max(self._elapsed_s, end)
        await settle()


async def settle() -> None:
    """Lets everything run that can run without waiting for time or for a socket."""
    for _ in range(30):
        await asyncio.sleep(0)
