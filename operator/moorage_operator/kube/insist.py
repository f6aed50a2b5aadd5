"""What a start cannot do without: asked for again and again, until it is there or the process is told to end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

from moorage_operator.errors import MoorageError
from moorage_operator.kube.backoff import Backoff
from moorage_operator.kube.clock import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSES = Backoff(base_s=0.5, cap_s=5.0)
"""Short: a process that waits here serves nobody, and asks for one object or one list at a time."""


async def insist(what: str, call: Callable[[], Awaitable[T]], *, clock: Clock, random: Random) -> T:
    """An API server that is away comes back, a role and a damaged Secret are mended by a person: none of it needs another process."""
    failures = 0
    while True:
        try:
            return await call()
        except MoorageError as error:
            failures += 1
            delay_s = PAUSES.delay(failures, random)
            about = {"needs": what, "reason": error.reason, "error": str(error), "again_in_s": round(delay_s, 1)}
            log.warning("not started yet", extra=about)
            await clock.sleep(delay_s)
