"""Whether this process lived through the time that its clocks say has passed."""

from __future__ import annotations

from typing import Final

from moorage_operator.kube.clock import Clock

BEAT_S: Final = 1.0
GAP_S: Final = 5.0
"""A busy event loop is late by less."""


class Pulse:
    """A process that was stopped or suspended, or whose time of day was set, heard nobody for as long as its clocks went on without it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: tuple[float, float] | None = None

    def beat(self) -> None:
        self._last = self._clocks()

    def missed(self) -> bool:
        """Whether that happened since the last beat; never so before the first."""
        if self._last is None:
            return False
        passed, told = (now - then for now, then in zip(self._clocks(), self._last, strict=True))
        return passed > GAP_S or abs(told - passed) > GAP_S

    def _clocks(self) -> tuple[float, float]:
        return self._clock.monotonic(), self._clock.now().timestamp()
