"""How long to wait after the n-th failure in a row. Pure but for the dice it is handed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Backoff:
    """Doubles from `base_s` to `cap_s`; each delay is drawn from its upper half, so that what failed together does not return together."""

    base_s: float = 0.1
    cap_s: float = 60.0

    def delay(self, failures: int, random: Random) -> float:
        # The exponent is bounded: 2.0 ** 1024 overflows, and a key may fail for weeks.
        full = min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 32))
        return full * random.uniform(0.5, 1.0)
