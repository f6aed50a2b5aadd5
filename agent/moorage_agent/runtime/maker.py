"""Makes the pieces of one run that take time and memory: the directories of its root, its cgroups, the clone. Then this process ends.

It is a child of the shim that gives the container to its own parent (CLONE_PARENT): the shim stays small, because what runs here touches
pages of here only, and builds the cgroups while init builds the mounts. It reports through a pipe: the container's pid, then that all
limits are set.
"""

from __future__ import annotations

import errno
import fcntl
import os

from moorage_agent.runtime import cgroup, confine, devices, init, linux, scene

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

    from moorage_agent.runtime.home import Home
    from moorage_agent.runtime.request import Rule, StartRequest

F_SETPIPE_SZ, PIPE_BYTES = 1031, 1 << 20
MADE = b"made"


def make(home: Home, request: StartRequest, pipes: init.Pipes, binds: list[int], report: int) -> NoReturn:
    """Reports `<pid>\\n`, then MADE; or, at any point, a failure as confine.describe() words it."""
    steps = confine.Steps()
    try:
        _make(home, request, pipes, binds, report, steps)
    except OSError as error:
        os.write(report, confine.describe(error, steps))
        os._exit(1)
    os._exit(0)


def _make(home: Home, request: StartRequest, pipes: init.Pipes, binds: list[int], report: int, steps: confine.Steps) -> None:
    steps.at = "files of the task"
    place = _place(home, request)
    steps.at = "cgroups"
    cgroup_fd = _make_v2(home, request, place)
    steps.at = "clone"
    if not request["tty"]:
        run_dir = f"{home.run}/tasks/{request['uid']}"
        pipes.out, pipes.err = (_open_fifo(f"{run_dir}/{name}") for name in ("out", "err"))
    pid, _ = linux.clone3(_namespaces(request) | linux.CLONE_PARENT, cgroup_fd=cgroup_fd)
    if pid == 0:
        os.close(report)
        init.run(request, place, pipes, binds)
    os.write(report, b"%d\n" % pid)
    steps.at = "cgroups"
    for _, top in home.cgroups.v1:
        os.mkdir(f"{top}/{cgroup_name(request)}", 0o755)
    _limit(home.cgroups, request, version=1)
    os.write(report, MADE)


def _place(home: Home, request: StartRequest) -> scene.Place:
    place = scene.Place(f"{home.root}/tasks/{request['uid']}".encode(), request["run"])
    place.last_cap = home.last_cap
    os.mkdir(place.root.rpartition(b"/")[0], 0o700)
    for directory in (place.root, place.upper, place.work):
        os.mkdir(directory, 0o755)
    # An overlay shows its upper directory's attributes as those of "/": take them from the image, whatever our umask.
    image = os.stat(request["layers"][0])
    os.chown(place.upper, image.st_uid, image.st_gid)
    os.chmod(place.upper, image.st_mode & 0o7777)
    name = cgroup_name(request)
    place.cgroups = [(",".join(found.controllers).encode(), f"{top}/{name}".encode()) for found, top in home.cgroups.v1]
    if home.cgroups.v2:
        place.v2_cgroup = f"{home.cgroups.v2[1]}/{name}".encode()
    return place


def cgroup_name(request: StartRequest) -> str:
    """Below each of our tops. The run is part of it: what a process that cannot die still holds is not used again."""
    return f"{'std' if request['device_rules'] is None else 'own'}/{request['uid']}.{request['run']}"


def _make_v2(home: Home, request: StartRequest, place: scene.Place) -> int:
    """Before the clone, which goes right into it: that costs 30 µs, moving a process later an RCU grace period. -1 without version 2."""
    if not place.v2_cgroup:
        return -1
    os.mkdir(place.v2_cgroup, 0o755)
    _limit(home.cgroups, request, version=2)
    return os.open(place.v2_cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _limit(cgroups: cgroup.Cgroups, request: StartRequest, *, version: int) -> None:
    """All limits, before any process is inside."""
    name = cgroup_name(request)
    for controller, file, value, may_be_missing in request["limits"]:
        if cgroups.versions.get(controller) == version:
            try:
                cgroup.write(f"{cgroups.top_of(controller)}/{name}/{file}", value)
            except FileNotFoundError:
                if not may_be_missing:
                    raise
    if request["device_rules"] is not None and not request["privileged"]:
        deny_devices(cgroups, name, request["device_rules"], version=version)


def deny_devices(cgroups: cgroup.Cgroups, name: str, rules: Iterable[Rule], *, version: int) -> None:
    """Deny all but `rules` in the cgroup `name`, if `version` is the one that has the say here."""
    top = cgroups.top_of("devices")
    if top is not None and version == 1:
        cgroup.write(f"{top}/{name}/devices.deny", b"a")
        for line in devices.v1_lines(rules):
            cgroup.write(f"{top}/{name}/devices.allow", line)
    elif top is None and version == 2 and cgroups.v2:
        program = linux.bpf_load_device_program(devices.bpf_program(rules))
        directory = os.open(f"{cgroups.v2[1]}/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        linux.bpf_attach_device_program(directory, program)
        os.close(program)
        os.close(directory)


def _open_fifo(path: str) -> int:
    """For both directions: without any reader a write then waits instead of failing with EPIPE."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EBUSY):
            raise  # the host allows less; the usual 64 KiB will do
    return fd


def _namespaces(request: StartRequest) -> int:
    """All but the cgroup namespace: that one is entered after the cgroups, or it would show the host's path."""
    flags = linux.CLONE_NEWNS | linux.CLONE_NEWUTS
    flags |= linux.CLONE_NEWPID if request["private_pid"] else 0
    flags |= linux.CLONE_NEWIPC if request["private_ipc"] else 0
    return flags | (linux.CLONE_NEWNET if request["isolated_network"] else 0)
