"""One control group per bare host in every hierarchy this machine has, version 1 or 2. Standard library only (see kernel.py)."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

# Where the processes of a version 2 host itself are: a group with processes in it passes no controllers on.
LEAF = "init.scope"


@dataclass(frozen=True)
class Hierarchy:
    """`kind` is the file system: cgroup or cgroup2; `options` what mounts version 1 again: controllers or name=..."""

    mountpoint: Path
    kind: str
    options: str


def hierarchies(mountinfo: str) -> list[Hierarchy]:
    """From the text of /proc/self/mountinfo (proc(5)): id parent dev root mountpoint options [tags] - type source super-options."""
    found = []
    for line in mountinfo.splitlines():
        before, after = line.split(" - ", 1)
        kind, _source, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            wanted = [option for option in options.split(",") if option not in ("rw", "ro", "xattr", "nsdelegate", "clone_children")]
            found.append(Hierarchy(Path(before.split(" ")[4]), kind, ",".join(wanted) if kind == "cgroup" else ""))
    return found


def of_this_machine() -> list[Hierarchy]:
    return hierarchies(Path("/proc/self/mountinfo").read_text())


def create(group: str) -> None:
    """`group` is run/host; made in each hierarchy, usable at once."""
    for hierarchy in of_this_machine():
        path = hierarchy.mountpoint
        for part in group.split("/"):
            if path != hierarchy.mountpoint:  # what the machine's own topmost passes on is not ours to change
                pass_on_controllers(path)
            path /= part
            path.mkdir(exist_ok=True)
            inherit_cpuset(path)


def pass_on_controllers(parent: Path) -> None:
    """Version 2: children have the controllers their parent passes on."""
    available = parent / "cgroup.controllers"
    if available.exists() and (controllers := available.read_text().split()):
        (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))


def inherit_cpuset(path: Path) -> None:
    """Version 1: a new cpuset is empty and takes no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        own = path / name
        if own.exists() and not (path / "cgroup.controllers").exists():
            own.write_text((path.parent / name).read_text())


def join(group: str) -> None:
    """This process into `group` everywhere.

    The write of 0 to `tasks` by a single-threaded process itself takes no thread-group lock, which would cost an RCU grace period
    (12 ms) in each of ten hierarchies.
    """
    for hierarchy in of_this_machine():
        own = hierarchy.mountpoint / group
        if hierarchy.kind == "cgroup":
            (own / "tasks").write_text("0")
        else:
            leaf = own / LEAF
            (leaf if leaf.exists() else own).joinpath("cgroup.procs").write_text("0")


def folders(group: str) -> list[Path]:
    """Every group at or below `group`, the deepest first, in every hierarchy."""
    found = []
    for hierarchy in of_this_machine():
        top = hierarchy.mountpoint / group
        found += [Path(folder) for folder, _, _ in os.walk(top, topdown=False)]
    return found


def processes(group: str) -> set[int]:
    """Process ids, as this machine sees them, of all at or below `group`."""
    pids: set[int] = set()
    for folder in folders(group):
        try:
            pids.update(int(pid) for pid in (folder / "cgroup.procs").read_text().split() if pid != "0")
        except OSError:
            continue  # removed meanwhile
    return pids


def set_frozen(group: str, *, frozen: bool) -> None:
    """All of `group` at once, by the freezer of version 1 where there is one, else by version 2."""
    v1 = [hierarchy for hierarchy in of_this_machine() if "freezer" in hierarchy.options.split(",")]
    if v1:
        (v1[0].mountpoint / group / "freezer.state").write_text("FROZEN" if frozen else "THAWED")
        return
    for hierarchy in of_this_machine():
        if hierarchy.kind == "cgroup2":
            (hierarchy.mountpoint / group / "cgroup.freeze").write_text("1" if frozen else "0")


def destroy(group: str, timeout_s: float = 20.0) -> None:
    """End every process in `group` and remove it from every hierarchy. Raises TimeoutError when something cannot be ended."""
    deadline = time.monotonic() + timeout_s
    while remaining := folders(group):
        for folder in remaining:
            thaw(folder)
        for pid in processes(group):
            signal_process(pid, signal.SIGKILL)
        for folder in remaining:
            remove(folder)
        if time.monotonic() > deadline:
            raise TimeoutError(f"cannot end processes {sorted(processes(group))} of control group {group}")
        time.sleep(0.005)


def thaw(folder: Path) -> None:
    """A frozen process of version 1 does not even notice SIGKILL."""
    state = folder / "freezer.state"
    try:
        if state.exists() and state.read_text().strip() != "THAWED":
            state.write_text("THAWED")
    except OSError:
        return


def signal_process(pid: int, signum: signal.Signals) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return


def remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # busy until its processes are reaped; tried again
