"""Cgroups: which hierarchies this host has, and the directories of one container in them.

Each controller is looked up by itself: version 1, version 2 and both beside each other (hybrid, where an empty version 2 hierarchy still
kills, freezes and takes clones) are one case. A container is `<hierarchy>/<root>/<group>/<name>`; the group `std` holds the default device
rules, which its children inherit, `own` allows all and its children bring rules of their own. What parses is pure.
"""

from __future__ import annotations

import errno
import os
import time

CONTROLLERS = ("memory", "cpu", "cpuacct", "pids", "devices")  # those a container is put under; version 2 has no cpuacct and no devices
GROUPS = ("std", "own")
NO_LIMIT = 1 << 62


class Hierarchy:
    """One mounted hierarchy. `controllers` of version 2 are those that can be enabled below its top."""

    __slots__ = ("controllers", "mountpoint", "version")

    def __init__(self, mountpoint: str, version: int, controllers: tuple[str, ...]) -> None:
        self.mountpoint, self.version, self.controllers = mountpoint, version, controllers

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hierarchy) and (self.mountpoint, self.version, self.controllers) == (
            other.mountpoint,
            other.version,
            other.controllers,
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Hierarchy({self.mountpoint!r}, {self.version}, {self.controllers!r})"


def hierarchies(mountinfo: str, v2_controllers: str) -> list[Hierarchy]:
    """The hierarchies in the text of /proc/self/mountinfo that hold a controller of ours, and version 2 if it is mounted at all.

    Mounts whose root is "/" are of this cgroup namespace and come before others. `v2_controllers`: the text of its cgroup.controllers.
    """
    found: dict[str, Hierarchy] = {}
    for mountpoint, fstype, options in sorted(_cgroup_mounts(mountinfo), key=lambda mount: mount[1]):
        if fstype == "cgroup2":
            found.setdefault("2", Hierarchy(mountpoint, 2, tuple(name for name in CONTROLLERS if name in v2_controllers.split())))
            continue
        names = tuple(name for name in CONTROLLERS if name in options.split(","))
        if names and not any(name in found for name in names):
            found.update(dict.fromkeys(names, Hierarchy(mountpoint, 1, names)))
    unique: list[Hierarchy] = []
    for hierarchy in found.values():
        if hierarchy not in unique:
            unique.append(hierarchy)
    return unique


def _cgroup_mounts(mountinfo: str) -> list[tuple[str, str, str]]:
    """(mountpoint, fstype, super options), own namespace first, of mounts at one place the last: that is the one seen."""
    seen: dict[str, tuple[bool, str, str, str]] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, more = left.split(" "), right.split(" ")
        if len(fields) < 5 or len(more) < 3:
            continue
        mountpoint = fields[4].replace("\\040", " ")
        seen.pop(mountpoint, None)
        if more[0] in ("cgroup", "cgroup2"):
            seen[mountpoint] = (fields[3] != "/", mountpoint, more[0], more[2])
    return [mount[1:] for mount in sorted(seen.values(), key=lambda mount: mount[0])]


def mounted() -> list[Hierarchy]:
    """The hierarchies of this process's mount namespace."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mountinfo = file.read()
    v2 = next((mount for mount, fstype, _ in _cgroup_mounts(mountinfo) if fstype == "cgroup2"), None)
    return hierarchies(mountinfo, read(f"{v2}/cgroup.controllers") if v2 else "")


def read(path: str) -> str:
    """The text of a control file; "" when there is none."""
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def write(path: str, value: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


class Cgroups:
    """Our directories on this host. `v2_base`: where below the version 2 mount we may work (a delegated scope of systemd), "" for its
    top."""

    __slots__ = ("base", "root", "v1", "v2", "versions")

    def __init__(self, found: list[Hierarchy], root: str, *, v2_base: str = "") -> None:
        self.root, self.base = root, v2_base
        self.v1 = [(hierarchy, f"{hierarchy.mountpoint}/{root}") for hierarchy in found if hierarchy.version == 1]
        self.v2 = next(((hierarchy, f"{hierarchy.mountpoint}{v2_base}/{root}") for hierarchy in found if hierarchy.version == 2), None)
        self.versions = {name: hierarchy.version for hierarchy in found for name in hierarchy.controllers}

    def tops(self) -> list[str]:
        """Our top directory in each hierarchy, version 2 last."""
        return [path for _, path in self.v1] + ([self.v2[1]] if self.v2 else [])

    def top_of(self, controller: str) -> str | None:
        """Where `controller` is, None: the host has it not."""
        for hierarchy, path in self.v1:
            if controller in hierarchy.controllers:
                return path
        return self.v2[1] if self.v2 and controller in self.v2[0].controllers else None

    def prepare(self) -> None:
        """Make our directories and enable the version 2 controllers down to them. Safe to repeat."""
        for top in self.tops():
            for path in (top, *(f"{top}/{group}" for group in GROUPS)):
                make(path)
        if self.v2 and self.v2[0].controllers:
            wanted = " ".join(f"+{name}" for name in self.v2[0].controllers).encode()
            parent = self.v2[1].rpartition("/")[0]
            for path in (parent, self.v2[1], *(f"{self.v2[1]}/{group}" for group in GROUPS)):
                if not {*self.v2[0].controllers} <= {*read(f"{path}/cgroup.subtree_control").split()}:
                    write(f"{path}/cgroup.subtree_control", wanted)

    def names(self) -> set[tuple[str, str]]:
        """(group, name) of every container that has a directory in any hierarchy."""
        return {(group, name) for top in self.tops() for group in GROUPS for name in _directories(f"{top}/{group}")}


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def make(path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass


def processes(path: str) -> list[int]:
    """Everything in the cgroup and those below it, threads of them once."""
    pids = [int(word) for word in read(f"{path}/cgroup.procs").split()]
    for name in _directories(path):
        pids += processes(f"{path}/{name}")
    return pids


def kill(path: str) -> None:
    """Send SIGKILL to all in the cgroup and below: by cgroup.kill (5.14), else until nobody is left to be seen forking."""
    try:
        write(f"{path}/cgroup.kill", b"1")
    except OSError:
        for _ in range(20):
            pids = processes(path)
            for pid in pids:
                _sigkill(pid)
            if not pids:
                return
            time.sleep(0.005)


def _sigkill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        pass


def remove(path: str, *, tries: int = 100) -> bool:
    """Remove a cgroup with those the container made inside. False when a process is still in it after `tries` times 5 ms."""
    for _ in range(tries):
        for name in _directories(path):
            remove(f"{path}/{name}", tries=1)
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(0.005)
        else:
            return True
    return False


def oom_kills(memory: str, version: int) -> int:
    """How many processes the kernel killed for the memory limit of this cgroup. Read before the directory is removed."""
    text = read(f"{memory}/memory.oom_control") if version == 1 else read(f"{memory}/memory.events")
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return 0
