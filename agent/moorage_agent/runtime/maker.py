"""Starts one run of a container for its shim, and ends when the program runs or will not.

It is a child of the shim that gives the container to its own parent (CLONE_PARENT). All that a start touches, pages of memory too, is
touched here, so that the shim, which stays for the life of the container, stays small. Order: everything an exit will need is on the disk
and every limit is set before the shim is told; the shim opens what it needs and lets init go, so that the shortest life leaves its facts.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import marshal
import os
import select
import time

from moorage_agent.runtime import cgroup, confine, devices, init, linux, record, scene
from moorage_agent.runtime.logs import LogWriter
from moorage_agent.runtime.supervisor import remove_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

    from moorage_agent.runtime.home import Home
    from moorage_agent.runtime.request import Rule, StartRequest, State

F_SETPIPE_SZ, PIPE_BYTES = 1031, 1 << 20
READY = b"r"


class Failed(Exception):
    """A step before the program failed; `words` as confine.describe() has them."""

    def __init__(self, number: int, step: str, words: str) -> None:
        super().__init__(words)
        self.errno, self.step, self.words = number, step, words

    @classmethod
    def parse(cls, described: bytes) -> Failed:
        number, step, words = described.decode(errors="replace").split("\0", 2)
        return cls(int(number), step, words)

    @classmethod
    def of(cls, error: Exception, step: str) -> Failed:
        steps = confine.Steps()
        steps.at = step
        return cls.parse(confine.describe(error, steps))

    @property
    def exit_code(self) -> int:
        """As shells and Docker count: 127 not found, 126 not executable, 125 anything before."""
        if self.step != "exec":
            return 125
        return 127 if self.errno == errno.ENOENT else 126

    def answer(self) -> dict[str, object]:
        return {"code": self.exit_code, "errno": self.errno, "step": self.step, "words": self.words}


class Orders:
    """What the shim hands over. `request` is the descriptor of the StartRequest, in the shim too; `ready` is where it waits for us."""

    __slots__ = ("binds", "connection", "go", "ready", "request", "terminal", "uid")

    def __init__(self, uid: str, connection: _socket.socket, request: int, binds: list[int]) -> None:
        self.uid, self.connection, self.request, self.binds = uid, connection, request, binds
        self.go = self.ready = self.terminal = -1


class _Begun:
    """How far we are: what a failure must undo."""

    __slots__ = ("pid", "pidfd", "records")

    def __init__(self) -> None:
        self.pid = self.pidfd = self.records = -1


def make(home: Home, orders: Orders) -> NoReturn:
    """Answers on the connection. Exit code 0: the program runs, and the rest is the shim's."""
    shim = os.getppid()
    request: StartRequest = marshal.loads(os.pread(orders.request, os.fstat(orders.request).st_size, 0))
    begun, steps = _Begun(), confine.Steps()
    try:
        started = _make(home, request, orders, begun, steps)
        _check_parent(shim)
    except Exception as error:  # of any kind: the daemon waits for an answer
        failure = error if isinstance(error, Failed) else Failed.parse(confine.describe(error, steps))
        _give_up(home, request, begun, failure)
        answer(orders.connection, failure.answer())
        os._exit(1)
    answer(orders.connection, {"pid": begun.pid, "started_ns": started})
    os._exit(0)


def _make(home: Home, request: StartRequest, orders: Orders, begun: _Begun, steps: confine.Steps) -> int:
    """When it was started."""
    steps.at = "files of the task"
    place = _place(home, request)
    _prepare_files(home, request, begun)
    steps.at = "cgroups"
    cgroup_fd = _make_v2(home, request, place)
    steps.at = "clone"
    error_read, error_write = os.pipe2(os.O_CLOEXEC)
    pipes = init.Pipes(go=orders.go, error=error_write, tty=orders.terminal)
    if not request["tty"]:
        pipes.out, pipes.err = (_open_fifo(f"{home.run}/tasks/{request['uid']}/{name}") for name in ("out", "err"))
    begun.pid, begun.pidfd = linux.clone3(_namespaces(request) | linux.CLONE_PARENT, cgroup_fd=cgroup_fd)
    if begun.pid == 0:
        os.close(orders.ready)
        init.run(request, place, pipes, orders.binds)
    os.close(error_write)
    steps.at = "cgroups"
    for _, top in home.cgroups.v1:
        os.mkdir(f"{top}/{cgroup_name(request)}", 0o755)
    _limit(home.cgroups, request, version=1)
    steps.at = "state"
    state = _state(home, request, begun.pid, orders.request)
    record.write_state(f"{home.run}/tasks/{request['uid']}", state)
    try:
        os.write(orders.ready, READY)
    except BrokenPipeError:
        raise _unsupervised() from None
    failure = os.read(error_read, 4096)  # nothing: execve closed it
    if failure:
        raise Failed.parse(failure)
    return state["started_ns"]


def _check_parent(shim: int) -> None:
    """An init that ended because its supervisor did looks, from here, as one that became the program."""
    if os.getppid() != shim:
        raise _unsupervised()


def _unsupervised() -> Failed:
    return Failed(errno.ECHILD, "supervise", "the supervisor was killed")


def _prepare_files(home: Home, request: StartRequest, begun: _Begun) -> None:
    """The records and the log are opened here to fail here, where it can be told; the FIFOs have names, so that another can open them."""
    task_dir, run_dir = f"{home.root}/tasks/{request['uid']}", f"{home.run}/tasks/{request['uid']}"
    begun.records = record.open_records(task_dir)
    record.write_record(begun.records, {"run": request["run"], "boot": home.boot_id, "started": time.time_ns()}, sync=False)
    LogWriter(f"{task_dir}/log", max_size=request["log_size"], max_files=request["log_files"]).close()
    for name in () if request["tty"] else ("out", "err"):
        remove_file(f"{run_dir}/{name}")
        os.mkfifo(f"{run_dir}/{name}", 0o600)


def _state(home: Home, request: StartRequest, pid: int, request_fd: int) -> State:
    name = cgroup_name(request)
    memory = home.cgroups.top_of("memory")
    return {
        "run": request["run"],
        "pid": pid,
        "starttime": record.start_time(pid) or 0,
        "boot_id": home.boot_id,
        "started_ns": time.time_ns(),
        "shim": os.getppid(),
        "request": request_fd,
        "cgroups": [f"{top}/{name}" for top in home.cgroups.tops()],
        "memory": (f"{memory}/{name}", home.cgroups.versions["memory"]) if memory else ("", 0),
        "tty": request["tty"],
        "private_pid": request["private_pid"],
        "private_ipc": request["private_ipc"],
        "isolated_network": request["isolated_network"],
        "confinement": {**request["confinement"], "env": []},
        "log_size": request["log_size"],
        "log_files": request["log_files"],
    }


def answer(connection: _socket.socket, words: dict[str, object]) -> None:
    try:
        connection.send(marshal.dumps(words, 2), _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
    except OSError:
        pass  # the daemon is gone; it will observe


def _give_up(home: Home, request: StartRequest, begun: _Begun, failure: Failed) -> None:
    """Leave no process and no cgroup of a start that failed, and a record that it did."""
    if begun.pid > 0:
        linux.pidfd_kill(begun.pidfd)
        poll = select.poll()
        poll.register(begun.pidfd, select.POLLIN)
        poll.poll()
    if begun.records >= 0:
        fields = {"run": request["run"], "boot": home.boot_id, "ended": time.time_ns(), "code": failure.exit_code, "reason": "StartFailed"}
        record.write_record(begun.records, fields, sync=True)
    for top in home.cgroups.tops():
        cgroup.remove(f"{top}/{cgroup_name(request)}")


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
