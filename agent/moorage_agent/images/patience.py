"""When to try again, and when to give up for now."""

from __future__ import annotations

from dataclasses import dataclass

from moorage_agent.errors import ImageError
from moorage_agent.images.cancellation import Cancellation
from moorage_agent.images.transport import Transient

_RATE_LIMITED_S = 300.0
_UNREACHABLE_S = 30.0


@dataclass(frozen=True)
class Patience:
    """Tries of one request, and seconds between them: doubling from first_s to most_s, unless the server says when."""

    tries: int = 5
    first_s: float = 2.0
    most_s: float = 60.0

    def wait_s(self, failed: int, failure: Transient) -> float | None:
        """After `failed` failures in a row; None: give up. A server that asks for longer than most_s is left alone."""
        asked = failure.retry_after_s
        if failed >= self.tries or (asked is not None and asked > self.most_s):
            return None
        return min(self.first_s * 2.0 ** (failed - 1), self.most_s) if asked is None else asked


class Tries:
    """Counts the failures in a row of one undertaking."""

    def __init__(self, patience: Patience, cancellation: Cancellation) -> None:
        self._patience, self._cancellation = patience, cancellation
        self._failed = 0

    def again(self, failure: Transient, *, progressed: bool = False) -> None:
        """Sleep before the next try. Raises ImageError when there is to be none, Interrupted."""
        self._failed = 1 if progressed else self._failed + 1
        wait_s = self._patience.wait_s(self._failed, failure)
        if wait_s is None:
            later_s = failure.retry_after_s or (_RATE_LIMITED_S if failure.code == "RateLimited" else _UNREACHABLE_S)
            tries = f"{self._failed} {'try' if self._failed == 1 else 'tries'}"
            raise ImageError(failure.code, f"{failure.message} ({tries})", later_s) from failure
        self._cancellation.sleep(wait_s)
