"""What follows when a Task has ended: another one, later, or none. The agent restarts inside a Task; this is about what lies beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from moorage_agent.protocol import Restart

from moorage_operator.plan.slot_task import COMPLETE, CRASH_LOOP, ORPHANED, REPLACED, STARTING, SlotTask

SHORTEST_WAIT: Final = timedelta(seconds=1)
MOVE_WAIT_PER_RESTART: Final = timedelta(minutes=1)
LONGEST_MOVE_WAIT: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Again:
    """A new Task is due at `at`; it answers a failure if `counts`."""

    at: datetime
    reason: str
    counts: bool = False


@dataclass(frozen=True, slots=True)
class Over:
    """There will be no further Task of this version. `failure` says why, unless the slot has simply done its work."""

    failure: str | None = None


def after_end(ended: Sequence[SlotTask], policy: Restart, now: datetime) -> Again | Over:
    """What follows the last of `ended`: the slot's ended Tasks of one version, the oldest first."""
    last = ended[-1]
    if last.reason == REPLACED:
        return Again(now, "the task it made way for is gone")
    if last.state == COMPLETE:
        return Over()
    if policy.condition == "None":
        return Over(f"{last.name} is {last.state} and restart.condition is None: {last.message or last.reason}")
    if last.state == ORPHANED:
        return Again(now, f"{last.name} was lost with node {last.node}")
    if policy.max_attempts is not None and (last.reason == "MaxAttempts" or spent(ended, policy, now) >= policy.max_attempts):
        why = f"all {policy.max_attempts} of restart.maxAttempts are used up"
        return Over(f"{last.name} is {last.state} and {why}: {last.message or last.reason}")
    return Again(_retry_at(ended, policy), f"{last.name} is {last.state}: {last.message or last.reason}", counts=True)


def spent(tasks: Sequence[SlotTask], policy: Restart, now: datetime) -> int:
    """Restarts that the slot's Tasks of one version have used of maxAttempts; with a window, those in it."""
    if not tasks:
        return 0
    if policy.window_s is None:
        return tasks[-1].attempts_used + tasks[-1].restarts
    since = now - timedelta(seconds=policy.window_s)
    return sum(1 for task in tasks for at in (task.exits or _rejection(task)) if at > since)


def _rejection(task: SlotTask) -> tuple[datetime, ...]:
    return (task.ended_at,) if task.failed and task.ended_at is not None else ()


def _retry_at(ended: Sequence[SlotTask], policy: Restart) -> datetime:
    """Twice the wait before: the times of the Tasks themselves tell it, so that no operator needs to remember."""
    last = ended[-1]
    wait = max(timedelta(seconds=policy.delay_s), SHORTEST_WAIT)
    if len(ended) > 1 and ended[-2].failed and ended[-2].ended_at is not None:
        wait = max(wait, 2 * (last.created - ended[-2].ended_at))
    return (last.ended_at or last.created) + min(wait, max(timedelta(seconds=policy.max_delay_s), SHORTEST_WAIT))


def move_at(task: SlotTask) -> datetime | None:
    """When a task that is out of its crash budget may try another node: at once the first time, then ever more rarely."""
    if task.state != STARTING or task.reason != CRASH_LOOP:
        return None
    return task.created + min(task.attempts_used * MOVE_WAIT_PER_RESTART, LONGEST_MOVE_WAIT)
