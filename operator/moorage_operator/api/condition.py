"""Conditions as metav1 and kstatus mean them: Ready, Progressing, Stalled and the like, one entry per type."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from moorage_operator.api.scalars import Count, Message, Time, Word
from moorage_operator.api.schema import Model, list_map

Truth = Literal["True", "False", "Unknown"]


class Condition(Model):
    """metav1.Condition."""

    type: Word
    """What the condition is about, such as Ready."""

    status: Truth
    """True, False or Unknown."""

    reason: Word
    """Why, as one stable CamelCase word for programs."""

    message: Message = ""
    """Why, and what to do about it, for people."""

    last_transition_time: Time | None = None
    """When status last changed."""

    observed_generation: Count | None = None
    """The metadata.generation this was said about."""


Conditions = Annotated[tuple[Condition, ...], list_map("type", most=16)]


def find(conditions: Iterable[Condition], kind: str) -> Condition | None:
    return next((condition for condition in conditions if condition.type == kind), None)


def is_true(conditions: Iterable[Condition], kind: str, *, generation: int | None = None) -> bool:
    """Whether the condition holds; with `generation`, only if it speaks about that one."""
    found = find(conditions, kind)
    return found is not None and found.status == "True" and generation in (None, found.observed_generation)


def stamped(wanted: Iterable[Condition], before: Iterable[Condition], *, generation: int, now: datetime) -> tuple[Condition, ...]:
    """`wanted` with its times: a condition whose status did not change keeps the time it has in `before`."""
    return tuple(_stamp(condition, find(before, condition.type), generation, now) for condition in wanted)


def _stamp(condition: Condition, before: Condition | None, generation: int, now: datetime) -> Condition:
    unchanged = before is not None and before.status == condition.status and before.last_transition_time is not None
    since = before.last_transition_time if before is not None and unchanged else now.replace(microsecond=0)
    return condition.model_copy(update={"last_transition_time": since, "observed_generation": generation})
