"""Telling how far a pull is, from several threads, not more often than anybody reads it."""

from __future__ import annotations

import threading
import time
from typing import Callable

Progress = Callable[[int, int], None]
"""done, total: compressed bytes. Called from any thread, at most ten times a second, and once at the end."""

_EVERY_S = 0.1


class Throttle:
    """Passes on what is due, and remembers the last that was told."""

    def __init__(self, report: Progress) -> None:
        self._report = report
        self._next = 0.0
        self.done = 0

    def __call__(self, done: int, total: int) -> None:
        self.done = done
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _EVERY_S
            self._report(done, total)


class Meter:
    """Adds up. `before`: bytes reported already, of a download that had to come first."""

    def __init__(self, total: int, report: Progress, *, before: int = 0) -> None:
        self._total, self._report, self._done = before + total, report, before
        self._throttled = Throttle(report)
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done = min(self._done + count, self._total)
            self._throttled(self._done, self._total)

    def end(self) -> None:
        self._report(self._total, self._total)
