"""What can go wrong between a client and an API server, on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tests.operator.fakeapi.refusal import Refusal

Obj = dict[str, Any]
Delivery = Literal["drop", "duplicate"]
When = Callable[[str, Obj], bool]


@dataclass
class Failure:
    """The next `times` requests that match are answered so; `after`: carried out first, so only the answer is lost."""

    verb: str
    plural: str
    code: int
    times: int
    retry_after_s: int = 0
    after: bool = False
    message: str = "injected"

    def matches(self, verb: str, plural: str) -> bool:
        return self.times > 0 and self.verb in ("*", verb) and self.plural in ("*", plural)


class Faults:
    """Plurals may name a part: "swarmtasks/status". Code 0 cuts the connection without an answer."""

    def __init__(self) -> None:
        self.delay_s: dict[str, float] = {}
        self.watch_delay_s = 0.0
        self._failures: list[Failure] = []
        self._deliveries: list[tuple[Delivery, When | None]] = []
        self.happened: Counter[str] = Counter()

    def fail(
        self, verb: str, plural: str, code: int, *, times: int = 1, retry_after_s: int = 0, after: bool = False, message: str = "injected"
    ) -> None:
        self._failures.append(Failure(verb, plural, code, times, retry_after_s, after=after, message=message))

    def delay(self, verb: str, seconds: float) -> None:
        """Every request of this verb ("*": all) takes so much longer; 0 ends it."""
        self.delay_s[verb] = seconds

    def drop_events(self, times: int = 1, *, when: When | None = None) -> None:
        """The next watch events that match never arrive: what a client sees that missed something without being told."""
        self._deliveries += [("drop", when)] * times

    def duplicate_events(self, times: int = 1, *, when: When | None = None) -> None:
        self._deliveries += [("duplicate", when)] * times

    def clear(self) -> None:
        self._failures.clear()
        self._deliveries.clear()
        self.delay_s.clear()
        self.watch_delay_s = 0.0

    def failure(self, verb: str, plural: str) -> Failure | None:
        """The failure this request meets, used up by one."""
        for failure in self._failures:
            if failure.matches(verb, plural):
                failure.times -= 1
                self.happened[f"{failure.code}"] += 1
                return failure
        return None

    def copies(self, kind: str, obj: Obj) -> int:
        """How often a watch event is delivered."""
        for number, (delivery, when) in enumerate(self._deliveries):
            if when is None or when(kind, obj):
                del self._deliveries[number]
                self.happened[delivery] += 1
                return 0 if delivery == "drop" else 2
        return 1


REASONS = {
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


def refusal_of(failure: Failure) -> Refusal:
    return Refusal(failure.code, REASONS.get(failure.code, "Unknown"), failure.message, retry_after_s=failure.retry_after_s)
