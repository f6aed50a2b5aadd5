"""What the files say of containers. Right after a crash of anything, too; nothing is remembered that can be read here."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from moorage_agent.paths import Paths
from moorage_agent.protocol import Exit
from moorage_agent.runtime import record

SUPERVISOR_LOST = "SupervisorLost"
HOST_REBOOTED = "HostRebooted"


@dataclass(frozen=True)
class ContainerState:
    """The newest run of a container: alive (`pid`), or ended (`exit`). A failed start is an end with code 125, 126 or 127.

    Neither pid nor exit: it just ended and its end is about to be recorded.
    """

    uid: str
    run: int
    pid: int | None = None
    started_at: float | None = None
    exit: Exit | None = None


def observe(paths: Paths, boot_id: str) -> list[ContainerState]:
    """Every container that was ever started and not removed."""
    found = (observe_one(paths, uid, boot_id) for uid in uids(paths))
    return [state for state in found if state is not None]


def uids(paths: Paths) -> list[str]:
    """Of containers that have a directory on the disk or of this boot."""
    names = set()
    for path in (paths.tasks, f"{paths.run}/tasks"):
        try:
            names.update(os.listdir(path))
        except FileNotFoundError:
            continue
    return sorted(name for name in names if len(name) == 36)


def observe_one(paths: Paths, uid: str, boot_id: str) -> ContainerState | None:
    """The newest run of one container; None when it was never started."""
    records = record.read_records(paths.task(uid))
    if not records:
        return None
    newest = records[-1]
    if "ended" in newest:
        return _ended(uid, newest)
    run, started = int(newest["run"]), int(newest.get("started", "0")) / 1e9
    if newest.get("boot") != boot_id:
        return ContainerState(uid, run, started_at=started, exit=Exit(None, time.time(), started_at=started, reason=HOST_REBOOTED))
    state = record.read_state(paths.task_run(uid))
    if state is not None and state["run"] == run and record.lives(state):
        return ContainerState(uid, run, pid=state["pid"], started_at=state["started_ns"] / 1e9)
    return ContainerState(uid, run, started_at=started)


def is_unburied(paths: Paths, uid: str) -> bool:
    """Its first process ended and its parent has not waited for it yet: until then the kernel tells its exit code to nobody else."""
    state = record.read_state(paths.task_run(uid))
    return state is not None and record.start_time(state["pid"]) == state["starttime"]


def _ended(uid: str, fields: dict[str, str]) -> ContainerState:
    started = int(fields["started"]) / 1e9 if "started" in fields else None
    exit_ = Exit(
        code=int(fields["code"]) if "code" in fields else None,
        at=int(fields["ended"]) / 1e9,
        oom_killed=fields.get("oom", "0") != "0",
        started_at=started,
        reason=fields.get("reason"),
    )
    return ContainerState(uid, int(fields["run"]), started_at=started, exit=exit_)
