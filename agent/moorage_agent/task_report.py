"""What a task's view means to the operator: its state, reason and message. Pure. (restarts, state) only grows."""

from __future__ import annotations

from moorage_agent.errors import readable
from moorage_agent.protocol import Exit, ImageReport, TaskReport
from moorage_agent.restart import crash_looping
from moorage_agent.steps import cut_off
from moorage_agent.task_state import DISCONNECTED, HOST_REBOOTED, REMOVED, REPLACED, UNHEALTHY, ImageView, Moment, Record, TaskView

REPORTED_EXITS = 5
CRASH_LOOP = "CrashLoop"


def task_report(view: TaskView, now: Moment) -> TaskReport:
    """The report of one task. `stopping` says that the container is on its way out for good."""
    record, seen = view.record, view.seen
    state, reason, message = _state(view, now)
    last: Exit | None = record.exits[-1] if record.exits else None
    return TaskReport(
        uid=view.uid,
        state=state,
        reason=reason,
        message=readable(message),
        restarts=record.restarts,
        exit_code=last.code if last else None,
        oom_killed=last.oom_killed if last else False,
        last_exits=record.exits[-REPORTED_EXITS:],
        started_at=seen.started_at if seen and view.alive else None,
        pid=seen.pid if seen and view.alive else None,
        healthy=(view.healthy if not _ending(view) else False) if view.alive else None,
        stopping=not view.wanted or _stopped_for(view) == REPLACED,
    )


def image_report(digest: str, image: ImageView) -> ImageReport:
    return ImageReport(digest, image.state, image.reason, readable(image.message), image.done, image.total)


def _state(view: TaskView, now: Moment) -> tuple[str, str, str]:
    if view.record.end is not None:
        end = view.record.end
        return end.state, end.reason, end.message
    if view.alive or view.unnoted is not None:
        return _alive(view)
    if _lost(view, now):
        return _reached(view), HOST_REBOOTED, "the host was restarted, and the container with it"
    if view.record.noted > 0 or view.record.run > 0:
        return _between_runs(view, now)
    return _before_first_run(view, now)


def _ending(view: TaskView) -> bool:
    """The container is no more, and whoever saw its end has not said so yet."""
    return view.alive and view.seen is not None and view.seen.pid is None


def _alive(view: TaskView) -> tuple[str, str, str]:
    if _ending(view):
        return "Running" if view.record.began else "Starting", "Ended", "the container ended; its exit code is being looked for"
    stopped, state = _stopped_for(view), _reached(view)
    if stopped == UNHEALTHY or (view.healthy is False and stopped is None):
        return state, UNHEALTHY, "the health check failed; the container is being stopped"
    if stopped is not None and stopped != REMOVED:
        return state, stopped, "the container is being stopped"
    return (state, "", "") if state == "Running" else (state, "HealthCheck", "runs; waits for its health check")


def _reached(view: TaskView) -> str:
    """How far the present run came."""
    proven = view.healthcheck is None or view.healthy or view.record.healthy_run == view.record.run
    return "Running" if proven else "Starting"


def _lost(view: TaskView, now: Moment) -> bool:
    """A run that ended with an earlier boot, not yet noted."""
    return view.record.run > view.record.noted and view.record.boot_id != now.boot_id


def _between_runs(view: TaskView, now: Moment) -> tuple[str, str, str]:
    record = view.record
    waits = _hindrance(view, now)
    if waits:
        return "Starting", *waits
    if record.hindered:
        return "Starting", _hindered_by(record), record.message
    if not record.exits:
        return "Starting", "", ""
    last = record.exits[-1].reason
    if last in (HOST_REBOOTED, DISCONNECTED):
        return "Starting", last, record.message
    return "Starting", CRASH_LOOP if crash_looping(record) else last or "CrashLoopBackOff", record.message


def _hindered_by(record: Record) -> str:
    """Of a crash loop the operator tries another node."""
    return CRASH_LOOP if crash_looping(record) else record.hindered


def _before_first_run(view: TaskView, now: Moment) -> tuple[str, str, str]:
    waits = _hindrance(view, now)
    if waits is None and view.record.hindered:
        waits = _hindered_by(view.record), view.record.message
        if waits[0] == CRASH_LOOP and not view.record.ready:
            return "Starting", *waits
    if view.record.ready:
        return "Ready", *(waits or ("", "prepared"))
    return "Preparing", *(waits or ("", ""))


def _hindrance(view: TaskView, now: Moment) -> tuple[str, str] | None:
    """What keeps the task from starting, other than its own back-off."""
    if view.image.state != "Ready":
        return _image_hindrance(view.image)
    if view.missing:
        kind = "WaitingForSecrets" if any(key.startswith("secret/") for key in view.missing) else "WaitingForConfigs"
        return kind, _missing(view)
    if cut_off(view, now):
        return DISCONNECTED, "waits for the operator: the task must not run without it (onDisconnect.stopAfter)"
    if view.way_blocked and view.spec is not None and view.spec.desired_state == "Running":
        return "WaitingForPredecessor", "waits until the task it replaces has stopped"
    return None


def _image_hindrance(image: ImageView) -> tuple[str, str]:
    if image.state == "Failed":
        return image.reason, image.message
    return "Pulling", image.message or "pulling the image"  # how far it is stands in the image's own report


def _missing(view: TaskView) -> str:
    names = ", ".join(sorted({"/".join(key.split("/")[:4]) for key in view.missing}))
    return f"waits for {names}" + (f": {view.missing_why}" if view.missing_why else "; the operator sends them when it is connected")


def _stopped_for(view: TaskView) -> str | None:
    stop = view.record.stop
    return stop.reason if stop is not None and view.alive else None
