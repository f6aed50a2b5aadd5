"""What the API server refuses while an object is worked on: a quota, a policy, a webhook. The object's status tells it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from moorage_operator.errors import Forbidden, Invalid
from moorage_operator.plan.service_plan import Problem

RETRY_S: Final = 30.0
"""A write that was refused is tried again: quotas and policies change without telling us."""


class Refusals:
    """Of one object, as its spec is now. What was refused is not asked for again at each look: our own status would bring the next."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.until: datetime | None = None
        self._of: dict[tuple[str, str], list[str]] = {}

    def hold(self, *, now: datetime) -> bool:
        """Whether it is too early to ask again."""
        if self.until is not None and now >= self.until:
            self._of.clear()
            self.until = None
        return self.until is not None

    @contextmanager
    def noted(self, what: str, *, now: datetime) -> Iterator[None]:
        """`what` is the kind of what is written in it."""
        try:
            yield
        except (Forbidden, Invalid) as error:
            self._of.setdefault((error.reason, what), []).append(str(error))
            self.until = now + timedelta(seconds=RETRY_S)

    def problems(self) -> Iterator[Problem]:
        """One for each kind, however many objects were refused; the same words for the same refusals."""
        for (reason, what), said in self._of.items():
            count = f"{len(said)} {what}s" if len(said) > 1 else f"the {what}"
            yield Problem(reason, f"the API server refused {count}, tried again every {RETRY_S:g} s: {min(said)}")
