"""Waiting for the world to reach a state, with a message when it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(what: str, probe: Callable[[], T | None], *, timeout_s: float = 30.0, every_s: float = 0.05) -> T:
    """The first truthy answer of `probe`. Raises TimeoutError naming `what` and the last answer."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not so within {timeout_s:g} s (last answer: {answer!r})")
        time.sleep(every_s)
