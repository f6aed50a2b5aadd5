"""Task.status: what the agent reports, and what only the operator can say (waiting for a node, lost with its node).

(restarts, state) only grows. A good life is two writes, the Task itself and Running: ask `task_status` what there is to say and `write_at`
when it is worth saying; states that pass before that time are never written.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from moorage_agent.protocol import Exit, TaskReport

from moorage_operator.api import Condition, ExitStatus, Task, TaskStatus, is_true, stamped
from moorage_operator.plan.placement_outcome import Unplaceable

ORDER: Final = {
    state: rank
    for rank, state in enumerate(
        ("Pending", "Assigned", "Preparing", "Ready", "Starting", "Running", "Complete", "Failed", "Rejected", "Orphaned")
    )
}
ENDED: Final = frozenset(("Complete", "Failed", "Rejected", "Orphaned"))
WORTH_KNOWING: Final = ENDED | {"Ready", "Running"}

TRANSIENT: Final = timedelta(milliseconds=200)
QUEUED: Final = timedelta(seconds=1)
PROGRESS_EVERY: Final = timedelta(seconds=5)
MAX_EXITS: Final = 5
MAX_MESSAGE: Final = 1024


def task_state(task: Task) -> str:
    """A Task whose status nobody wrote yet is Assigned, or Pending without a node."""
    return task.status.state or ("Pending" if task.spec.node_name is None else "Assigned")


def task_status(task: Task, report: TaskReport, *, now: datetime) -> TaskStatus | None:
    """The status after this report; None when the report says nothing new, or comes too late."""
    restarts = _restarts(task, report)
    if restarts is None:
        return None
    status = TaskStatus(
        observed_generation=task.metadata.generation,
        state=report.state,
        reason=report.reason or None,
        message=report.message[:MAX_MESSAGE] or None,
        restarts=restarts,
        exit_code=_code(report.exit_code),
        oom_killed=report.oom_killed or None,
        last_exits=tuple(_exit(one) for one in reversed(report.last_exits[-MAX_EXITS:])),
        started_at=None if report.started_at is None else _second(report.started_at),
        addresses=task.status.addresses,
        conditions=_conditions(task, report.state, ready=_ready(report), reason=report.reason, message=report.message, now=now),
    )
    return None if _same(status, task.status) else status


def pending_status(task: Task, why: Unplaceable, *, now: datetime) -> TaskStatus | None:
    """The status of a task without a node; None when it says so already."""
    status = TaskStatus(
        observed_generation=task.metadata.generation,
        state="Pending",
        reason=why.reason,
        message=why.message[:MAX_MESSAGE],
        restarts=0,
        conditions=_conditions(task, "Pending", ready=False, reason=why.reason, message=why.message, now=now),
    )
    return None if ORDER[task_state(task)] > ORDER["Pending"] or _same(status, task.status) else status


def orphaned_status(task: Task, message: str, *, now: datetime) -> TaskStatus | None:
    """The status of a task given up with its node; None for one that has ended."""
    if task_state(task) in ENDED:
        return None
    changes = {
        "observed_generation": task.metadata.generation,
        "state": "Orphaned",
        "reason": "NodeLost",
        "message": message[:MAX_MESSAGE],
        "started_at": None,
        "conditions": _conditions(task, "Orphaned", ready=False, reason="NodeLost", message=message, now=now),
    }
    return task.status.model_copy(update=changes)


def write_at(before: TaskStatus, after: TaskStatus, *, first_seen: datetime) -> datetime:
    """When `after` is worth a write. `first_seen`: since when something about this Task was left unwritten.

    At once where somebody may wait for it: readiness, an exit, the gate, the end. A state on the way there after 200 ms, and so another
    reason; after 1 s where there is nothing to say but that it is on its way, which in a burst would double the API server's work. The
    same with other words, such as the progress of a pull, every 5 s.
    """
    urgent = after.state in WORTH_KNOWING and before.state != after.state
    if urgent or _progress(before) != _progress(after):
        return first_seen
    if (before.state, before.reason) == (after.state, after.reason):
        return first_seen + PROGRESS_EVERY
    return first_seen + (TRANSIENT if after.reason or after.message else QUEUED)


def _restarts(task: Task, report: TaskReport) -> int | None:
    """The count of restarts that goes with the report; None for a report from the past.

    An agent whose disk was lost counts anew. The container did start once more then, so the count goes on and the pair still grows.
    """
    known, state = task.status.restarts or 0, task_state(task)
    if state in ENDED and report.state != state:
        return None
    if report.restarts > known or ORDER.get(report.state, 0) >= ORDER[state]:
        return max(known, report.restarts)
    return known + 1 if report.restarts < known else None


def _ready(report: TaskReport) -> bool:
    return report.state == "Running" and report.healthy is not False and not report.stopping


def _conditions(task: Task, state: str, *, ready: bool, reason: str, message: str, now: datetime) -> tuple[Condition, ...]:
    placed = task.spec.node_name is not None
    wanted = (
        _condition("Scheduled", "Placed" if placed else reason or state, "" if placed else message, holds=placed),
        _condition("Ready", reason or state, "" if ready else message, holds=ready),
        _condition("Complete", state, message if state in ENDED else "", holds=state == "Complete"),
    )
    return stamped(wanted, task.status.conditions, generation=task.metadata.generation, now=now)


def _condition(kind: str, reason: str, message: str, *, holds: bool) -> Condition:
    return Condition(type=kind, status="True" if holds else "False", reason=reason, message=message[:MAX_MESSAGE])


def _exit(one: Exit) -> ExitStatus:
    return ExitStatus(
        code=_code(one.code),
        at=_second(one.at),
        started_at=None if one.started_at is None else _second(one.started_at),
        oom_killed=one.oom_killed or None,
        reason=one.reason,
    )


def _code(code: int | None) -> int | None:
    """A status the API server would refuse must not keep the rest from being written."""
    return code if code is not None and -1 <= code <= 255 else None


def _second(at: float) -> datetime:
    """Whole seconds, as the API server keeps times: otherwise each report would differ from what was written."""
    return datetime.fromtimestamp(int(at), UTC)


def _progress(status: TaskStatus) -> tuple[int, bool]:
    return status.restarts or 0, is_true(status.conditions, "Ready")


def _same(one: TaskStatus, other: TaskStatus) -> bool:
    """Whether nothing a reader cares about differs: a new generation alone (desiredState) is no news."""
    return _essence(one) == _essence(other)


def _essence(status: TaskStatus) -> TaskStatus:
    conditions = tuple(condition.model_copy(update={"observed_generation": None}) for condition in status.conditions)
    return status.model_copy(update={"observed_generation": None, "conditions": conditions})
