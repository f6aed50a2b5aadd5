"""What to do next. Pure: reads views of tasks and images, returns steps; at most one step changes a task at a time.

Every step may be repeated and every state between two steps may be found again after a crash: the next call goes on from what is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Union

from moorage_agent.protocol import Exit, ImageSource, ImageSpec
from moorage_agent.task_state import (
    DISCONNECTED,
    HOST_REBOOTED,
    REMOVED,
    REPLACED,
    UNHEALTHY,
    End,
    ImageView,
    Moment,
    Stop,
    TaskView,
    Trouble,
)

KILL_AGAIN_S = 10.0

# --- the steps


@dataclass(frozen=True)
class PullImage:
    digest: str
    source: ImageSource

    def describe(self) -> str:
        return f"pull image {self.digest}"


@dataclass(frozen=True)
class AskValues:
    """Ask the operator for values; they arrive when they arrive."""

    keys: tuple[str, ...]

    def describe(self) -> str:
        return f"ask the operator for {', '.join(self.keys)}"


@dataclass(frozen=True)
class Prepare:
    """Make volumes and files and resolve the launch, so that a start can only fail in the kernel."""

    uid: str

    def describe(self) -> str:
        return f"prepare {self.uid}: volumes, files, root"


@dataclass(frozen=True)
class Start:
    uid: str
    run: int

    def describe(self) -> str:
        return f"start {self.uid}, run {self.run}"


@dataclass(frozen=True)
class NoteExit:
    """Record the end of a run; the restart policy follows from the record."""

    uid: str
    run: int
    exit: Exit

    def describe(self) -> str:
        why = f" ({self.exit.reason})" if self.exit.reason else ""
        return f"note that run {self.run} of {self.uid} ended with {'an unknown code' if self.exit.code is None else self.exit.code}{why}"


@dataclass(frozen=True)
class BackOff:
    """Record what kept the task from its program and may pass: it is tried again later, and the restart policy has no say."""

    uid: str
    trouble: Trouble

    def describe(self) -> str:
        return f"try {self.uid} again later ({self.trouble.code}): {self.trouble.message}"


@dataclass(frozen=True)
class BeginStop:
    uid: str
    reason: str
    signal: int
    grace_s: float

    def describe(self) -> str:
        return f"stop {self.uid} ({self.reason}): signal {self.signal}, kill after {self.grace_s:g} s"


@dataclass(frozen=True)
class Kill:
    uid: str

    def describe(self) -> str:
        return f"kill {self.uid}"


@dataclass(frozen=True)
class Finish:
    """Give the task its last state."""

    uid: str
    end: End

    def describe(self) -> str:
        return f"finish {self.uid}: {self.end.state} ({self.end.reason}) {self.end.message}".rstrip()


@dataclass(frozen=True)
class Remove:
    """Remove the container's files and the task's record. Volumes stay."""

    uid: str

    def describe(self) -> str:
        return f"remove {self.uid}"


@dataclass(frozen=True)
class Wait:
    """Nothing to do before `until` (boot time), unless something changes."""

    uid: str
    until: float
    why: str

    def describe(self) -> str:
        return f"wait: {self.why} of {self.uid}"


Step = Union[PullImage, AskValues, Prepare, Start, NoteExit, BackOff, BeginStop, Kill, Finish, Remove, Wait]


# --- the decisions


def steps(tasks: Iterable[TaskView], images: Iterable[ImageSpec], held: Mapping[str, ImageView], now: Moment) -> list[Step]:
    """The next steps of a whole node, in an order that does not depend on the order of the input."""
    found: list[Step] = []
    for view in sorted(tasks, key=lambda view: view.uid):
        found += task_steps(view, now)
    for image in sorted(images, key=lambda image: image.digest):
        found += image_steps(image, held.get(image.digest, ImageView()), now)
    return list(dict.fromkeys(found))


def task_steps(view: TaskView, now: Moment) -> tuple[Step, ...]:
    """The next step of one task: of its running container, of an end nobody noted, or on the way to the next start."""
    if view.busy:
        return ()
    if view.trouble is not None and view.wanted and not view.alive:
        return (_settle(view, now),)
    if view.unnoted is not None and view.seen is not None and view.record.end is None:
        return (NoteExit(view.uid, view.seen.run, _named(view.unnoted, view)),)
    if view.alive:
        return _stopping(view, now) if _stop_of(view) else _running(view, now)
    if not view.wanted or view.spec is None:
        return (Remove(view.uid),)
    if view.record.end is not None:
        return ()
    return _towards_start(view, now)


def image_steps(image: ImageSpec, held: ImageView, now: Moment) -> tuple[PullImage, ...]:
    """An image the node should hold, whether or not a task waits for it."""
    if held.state == "Absent" or (held.state == "Failed" and held.retry_at is not None and held.retry_at <= now.boot):
        return (PullImage(image.digest, image.source),)
    return ()


def _running(view: TaskView, now: Moment) -> tuple[Step, ...]:
    reason = stop_reason(view, now)
    if reason is not None:
        return (BeginStop(view.uid, reason, view.stop_signal, view.grace_s),)
    return _watch_for_silence(view)


def stop_reason(view: TaskView, now: Moment) -> str | None:
    """Why a running container should stop; None: it should not."""
    if not view.wanted:
        return REMOVED
    if view.host_stops:
        return HOST_REBOOTED
    if view.heir_ready:
        return REPLACED
    if cut_off(view, now):
        return DISCONNECTED
    if view.healthy is False:
        return UNHEALTHY
    return None


def cut_off(view: TaskView, now: Moment) -> bool:
    """True when the task must not run without an operator's word and has waited too long for one; never heard in this boot is too long."""
    if view.spec is None or view.spec.stop_after_s is None:
        return False
    return view.heard_at is None or now.boot - view.heard_at >= view.spec.stop_after_s


def _watch_for_silence(view: TaskView) -> tuple[Step, ...]:
    if view.spec is None or view.spec.stop_after_s is None or view.heard_at is None:
        return ()
    return (Wait(view.uid, view.heard_at + view.spec.stop_after_s, "stopAfter"),)


def _stop_of(view: TaskView) -> Stop | None:
    return view.record.stop if view.seen is not None and view.seen.run == view.record.run else None


def _stopping(view: TaskView, now: Moment) -> tuple[Step, ...]:
    stop = view.record.stop
    assert stop is not None
    due = stop.began + view.grace_s if stop.killed_at is None else stop.killed_at + KILL_AGAIN_S
    if now.boot >= due or stop.boot_id != now.boot_id:
        return (Kill(view.uid),)
    return (Wait(view.uid, due, "grace" if stop.killed_at is None else "death"),)


def _named(ended: Exit, view: TaskView) -> Exit:
    """The exit with the reason only this side knows: it was asked for."""
    stop = _stop_of(view)
    if stop is None or ended.reason is not None:
        return ended
    return Exit(ended.code, ended.at, ended.oom_killed, ended.started_at, stop.reason)


def _towards_start(view: TaskView, now: Moment) -> tuple[Step, ...]:
    assert view.spec is not None
    if view.record.run > view.record.noted and view.record.boot_id != now.boot_id:
        return (NoteExit(view.uid, view.record.run, Exit(None, now.wall, reason=HOST_REBOOTED)),)
    if view.heir_ready:
        return (Finish(view.uid, End("Complete", REPLACED, "made way for the task that replaces it")),)
    return _image_of(view, now) or _values_of(view) or _hindered(view, now) or _prepared(view) or _start(view, now)


def _settle(view: TaskView, now: Moment) -> Step:
    """A task that never ran and never can is Rejected; what may pass is waited for; anything else is one more failed run.

    What ran before may run again: after a reboot a file system it needs may just not be mounted yet. A program that was reached after
    all, and ended, counts as any other.
    """
    trouble = view.trouble
    assert trouble is not None
    if view.unnoted is not None and view.unnoted.started_at is not None and view.seen is not None:
        return NoteExit(view.uid, view.seen.run, _named(view.unnoted, view))
    if not trouble.permanent:
        return BackOff(view.uid, trouble)
    if not view.record.began:
        return Finish(view.uid, End("Rejected", trouble.code, trouble.message))
    run = max(view.record.run, view.record.noted + 1)
    return NoteExit(view.uid, run, Exit(trouble.exit_code, now.wall, reason=trouble.code))


def _image_of(view: TaskView, now: Moment) -> tuple[Step, ...]:
    assert view.spec is not None
    image = view.image
    if image.state == "Ready":
        return ()
    if image.state == "Failed" and image.retry_at is None:
        return (Finish(view.uid, End("Rejected", image.reason, image.message)),)
    if image.state == "Failed" and image.retry_at is not None and image.retry_at > now.boot:
        return (Wait(view.uid, image.retry_at, f"pull ({image.reason})"),)
    if image.state in ("Queued", "Pulling"):
        return (Wait(view.uid, float("inf"), "pull"),)
    return (PullImage(view.spec.image.digest, view.spec.image.source),)


def _values_of(view: TaskView) -> tuple[Step, ...]:
    return (AskValues(view.missing),) if view.missing else ()


def _hindered(view: TaskView, now: Moment) -> tuple[Step, ...]:
    return _backed_off(view, now) if view.record.hindered else ()


def _prepared(view: TaskView) -> tuple[Step, ...]:
    return () if view.prepared else (Prepare(view.uid),)


def _start(view: TaskView, now: Moment) -> tuple[Step, ...]:
    assert view.spec is not None
    if not may_start(view, now):
        return ()
    return _backed_off(view, now) or (Start(view.uid, max(view.record.run, view.record.noted + 1)),)


def may_start(view: TaskView, now: Moment) -> bool:
    """False when the task must not run now, whatever it has for it."""
    if not view.wanted or view.spec is None or view.spec.desired_state != "Running":
        return False
    return not (cut_off(view, now) or view.way_blocked or view.host_stops)


def _backed_off(view: TaskView, now: Moment) -> tuple[Step, ...]:
    record = view.record
    waits = record.boot_id == now.boot_id and record.restart_at > now.boot
    return (Wait(view.uid, record.restart_at, "back-off"),) if waits else ()
