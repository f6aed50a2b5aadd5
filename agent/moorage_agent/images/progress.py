"""Telling how far a pull is, from several threads, not more often than anybody reads it."""

from __future__ import annotations

import threading
import time
from typing import Callable

Progress = Callable[[int, int], None]
"""done, total: compressed bytes. Called from any thread, at most ten times a second, and once at the end."""

_EVERY_S = 0.1


class Meter:
    def __init__(self, total: int, report: Progress) -> None:
        self._total, self._report = total, report
        self._lock = threading.Lock()
        self._done = 0
        self._next = 0.0

    def add(self, count: int) -> None:
        now = time.monotonic()
        with self._lock:
            self._done += count
            due = now >= self._next
            if due:
                self._next = now + _EVERY_S
            done = self._done
        if due:
            self._report(min(done, self._total), self._total)

    def end(self) -> None:
        self._report(self._total, self._total)
