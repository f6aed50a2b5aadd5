"""What the API server refuses while an object is worked on: a quota, a policy, a webhook. The object's status tells it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from moorage_operator.errors import Forbidden, Invalid
from moorage_operator.plan.service_plan import Problem

RETRY_S: Final = 30.0
"""A write that was refused is tried again: quotas and policies change without telling us."""


class Refusals:
    """Of one look at one object."""

    def __init__(self) -> None:
        self._of: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    @contextmanager
    def noted(self, what: str) -> Iterator[None]:
        """`what` is the kind of what is written in it."""
        try:
            yield
        except (Forbidden, Invalid) as error:
            self._of.setdefault(f"{error.reason} {what}", []).append(str(error))

    def problems(self) -> Iterator[Problem]:
        """One for each kind, however many objects were refused."""
        for of, said in self._of.items():
            reason, what = of.split(" ", 1)
            count = f"{len(said)} {what}s" if len(said) > 1 else f"the {what}"
            yield Problem(reason, f"the API server refused {count}, tried again every {RETRY_S:g} s: {said[0]}")
