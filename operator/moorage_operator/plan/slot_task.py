"""A Task as its slot sees it: the few facts on which replacing, restarting and counting depend."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from moorage_operator.api import GROUP, Task

HOME_ANNOTATION: Final = f"{GROUP}/home"
"""The node a slot belongs to, on Tasks that wait for it: the slot's earlier Tasks may be gone by then."""

PENDING, ASSIGNED, PREPARING, READY, STARTING, RUNNING = "Pending", "Assigned", "Preparing", "Ready", "Starting", "Running"
COMPLETE, FAILED, REJECTED, ORPHANED = "Complete", "Failed", "Rejected", "Orphaned"
ENDED: Final = frozenset((COMPLETE, FAILED, REJECTED, ORPHANED))
HAS_RUN: Final = frozenset((STARTING, RUNNING))
CRASH_LOOP: Final = "CrashLoop"
REPLACED: Final = "Replaced"
STABLE: Final = timedelta(seconds=60)
"""A container that runs so long after an exit has recovered: the agent's back-off starts anew at the same time."""

_ASKED_FOR: Final = frozenset(("Removed", REPLACED, "Disconnected", "HostRebooted"))
_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)


class SlotTask(NamedTuple):
    """A tuple, because a frozen dataclass of this size takes three times as long to make, and a plan makes one per Task.

    `ready_since` is set while condition Ready is True. `exits` are the times at which the container ended unasked. `home` is the node it
    is on, or was meant for. `restarts` are those that a failure caused. `leaving`: deleted, not yet gone.
    """

    name: str
    uid: str
    slot: str
    attempt: int
    version: str
    created: datetime
    node: str | None = None
    home: str | None = None
    replaces: str | None = None
    start_first: bool = False
    wants_run: bool = True
    leaving: bool = False
    state: str = PENDING
    reason: str = ""
    message: str = ""
    ready_since: datetime | None = None
    restarts: int = 0
    exits: tuple[datetime, ...] = ()
    ended_at: datetime | None = None
    attempts_used: int = 0

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def failed(self) -> bool:
        return self.state in (FAILED, REJECTED)

    def settled(self, now: datetime, monitor: timedelta) -> bool:
        """Proven: ready for as long as `monitor`, and after an exit for a minute at least."""
        if self.state == COMPLETE:
            return True
        return self.ready_since is not None and now >= self.settles_at(monitor)

    def settles_at(self, monitor: timedelta) -> datetime:
        """When a task that is ready now will be proven."""
        assert self.ready_since is not None
        return self.ready_since + (max(monitor, STABLE) if self.exits else monitor)


def slot_task(task: Task) -> SlotTask:
    meta, spec, status = task.metadata, task.spec, task.status
    ready = next((one for one in status.conditions if one.type == "Ready"), None)
    state = status.state or (PENDING if spec.node_name is None else ASSIGNED)
    return SlotTask(
        name=meta.name,
        uid=meta.uid,
        slot=spec.slot,
        attempt=spec.attempt,
        version=spec.version,
        created=meta.creation_timestamp or _BEGINNING,
        node=spec.node_name,
        home=spec.node_name or meta.annotations.get(HOME_ANNOTATION),
        replaces=spec.replaces,
        start_first=spec.handover == "StartFirst",
        wants_run=spec.desired_state == "Running",
        leaving=meta.deletion_timestamp is not None,
        state=state,
        reason=status.reason or "",
        message=status.message or "",
        ready_since=ready.last_transition_time if ready is not None and ready.status == "True" else None,
        restarts=max(0, (status.restarts or 0) - _excused(task, state)),
        exits=tuple(one.at or _BEGINNING for one in status.last_exits if one.reason not in _ASKED_FOR) if status.last_exits else (),
        ended_at=_ended_at(task, state),
        attempts_used=_attempts_used(spec.container),
    )


def _ended_at(task: Task, state: str) -> datetime | None:
    """The end of the last run; for a Task that never ran, when its last condition changed."""
    if state not in ENDED:
        return None
    times = [one.at for one in task.status.last_exits if one.at is not None]
    times = times or [one.last_transition_time for one in task.status.conditions if one.last_transition_time is not None]
    return max(times, default=task.metadata.creation_timestamp)


def _excused(task: Task, state: str) -> int:
    """Restarts that answered no failure: a reboot, a disconnect. The newest exit of a Task that ended was answered by none."""
    answered = task.status.last_exits[1:] if state in ENDED else task.status.last_exits
    return sum(one.reason in _ASKED_FOR for one in answered)


def _attempts_used(container: Any) -> int:
    used = container.get("restart", {}).get("attemptsUsed", 0)
    return used if isinstance(used, int) else 0
