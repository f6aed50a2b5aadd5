"""Stopping work from another thread, even while it waits for the network."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

from moorage_agent.errors import Interrupted


class Cancellation:
    """Given to a long call by the one who may change their mind. `cancel` may be called from any thread, any number of times."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._hooks: dict[int, Callable[[], None]] = {}
        self._next = 0

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        self._event.set()
        with self._lock:
            hooks = list(self._hooks.values())
        for hook in hooks:
            hook()

    def check(self) -> None:
        """Raises Interrupted once `cancel` was called."""
        if self._event.is_set():
            raise Interrupted("Cancelled", "the pull was cancelled: its image is no longer wanted")

    def sleep(self, seconds: float) -> None:
        """Sleep, but not past `cancel`. Raises Interrupted."""
        self._event.wait(seconds)
        self.check()

    @contextmanager
    def breaking(self, hook: Callable[[], None]) -> Iterator[None]:
        """While inside, `cancel` also calls `hook`, which must end the wait inside (shut a socket down, kill a child)."""
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._hooks[number] = hook
        try:
            self.check()
            yield
        finally:
            with self._lock:
                del self._hooks[number]
