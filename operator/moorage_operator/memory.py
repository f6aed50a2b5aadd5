"""Keeps the collection of garbage away from what stays.

Python looks for cycles among all its objects again and again as their number grows. 20,000 Tasks are three million objects without a
cycle: half the CPU of a start went there, and each full collection stopped the loop for half a second.
"""

from __future__ import annotations

import gc
from typing import Final

from moorage_operator.kube.clock import Clock

YOUNG: Final = 50_000
"""New objects that are still there, before cycles are looked for among them; about 10 MB."""

MIDDLE, OLD = 20, 20
FIRST_S: Final = 60.0
"""Until a process that has just begun has read and heard all there is."""

EVERY_S: Final = 900.0


def settle() -> None:
    """What is there now stays for long, and is not looked at again."""
    gc.collect()
    gc.freeze()


async def stay_settled(clock: Clock) -> None:
    """Endless; for a Supervisor."""
    gc.set_threshold(YOUNG, MIDDLE, OLD)
    await clock.sleep(FIRST_S)
    while True:
        settle()
        await clock.sleep(EVERY_S)
