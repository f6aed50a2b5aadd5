"""Starts one run of a container, in a process forked from the zygote, which then supervises it.

Order: everything an exit will need is on the disk before the clone; limits are set before anything is inside; the facts of the run are
written before init is let go, so that the shortest life leaves them.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import marshal
import os
import time
from struct import unpack_from

from moorage_agent.runtime import cgroup, confine, devices, init, linux, record
from moorage_agent.runtime.logs import LogWriter
from moorage_agent.runtime.supervisor import Run, lock, remove_file, supervise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from moorage_agent.runtime.request import StartRequest
    from moorage_agent.runtime.zygote import Home

F_SETPIPE_SZ, PIPE_BYTES = 1031, 1 << 20


class Failed(Exception):
    """A step before the program failed; fields as confine.describe() joins them."""

    def __init__(self, number: int, step: str, words: str) -> None:
        super().__init__(words)
        self.errno, self.step, self.words = number, step, words


def start(home: Home, uid: str, connection: _socket.socket, request_fd: int, binds: list[int]) -> NoReturn:
    """Start the container, answer on `connection`, supervise it to its end. The process ends with it."""
    os.setsid()
    linux.set_process_name(b"moorage-shim")
    run = Run(home, uid)
    request: StartRequest = marshal.loads(os.pread(request_fd, os.fstat(request_fd).st_size, 0))
    try:
        started = _start(run, request, request_fd, binds)
    except Failed as failure:
        _give_up(run, request, failure)
        _answer(connection, {"code": exit_code_of(failure), "errno": failure.errno, "step": failure.step, "words": failure.words})
        os._exit(0)
    _answer(connection, {"pid": run.pid, "started_ns": started})
    connection.close()
    supervise(run)


def _start(run: Run, request: StartRequest, request_fd: int, binds: list[int]) -> int:
    steps = confine.Steps()
    try:
        steps.at = "files of the task"
        place = _prepare(run, request)
        steps.at = "clone"
        pipes, go, failures, terminal = _pipes(run, request)
        cgroup_fd = os.open(place.v2_cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if place.v2_cgroup else -1
        run.pid, run.pidfd = linux.clone3(_namespaces(request), cgroup_fd=cgroup_fd)
        if run.pid == 0:
            init.run(request, place, pipes, binds)
        for fd in (pipes.go, pipes.error, *binds, pipes.tty, pipes.out, pipes.err, cgroup_fd):
            if fd >= 0:
                os.close(fd)
        steps.at = "cgroups"
        _make_cgroups(run, request)
        steps.at = "state"
        run.mount_namespace = os.open(f"/proc/{run.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        started = time.time_ns()
        _write_state(run, request, request_fd, started)
    except OSError as error:
        number, step, words = confine.describe(error, steps).decode().split("\0", 2)
        raise Failed(int(number), step, words) from None
    os.write(go, b"g")
    os.close(go)
    failure = os.read(failures, 4096)  # nothing: execve closed it
    os.close(failures)
    if failure:
        number, step, words = failure.decode(errors="replace").split("\0", 2)
        raise Failed(int(number), step, words)
    if request["tty"]:
        run.sources = {_receive(terminal): b"o"}
    return started


def _prepare(run: Run, request: StartRequest) -> init.Place:
    """Everything on the disk that an exit will need, before there is anything that can exit."""
    for path in (run.task_dir, run.run_dir):
        cgroup.make(path)
    lock(run)
    run.records = record.open_records(run.task_dir)
    record.write_record(run.records, {"run": request["run"], "boot": run.home.boot_id, "started": time.time_ns()}, sync=False)
    run.log = LogWriter(f"{run.task_dir}/log", max_size=request["log_size"], max_files=request["log_files"])
    place = init.Place(run.task_dir.encode(), request["run"])
    os.mkdir(place.root.rpartition(b"/")[0], 0o700)
    for directory in (place.root, place.upper, place.work):
        os.mkdir(directory, 0o755)
    place.last_cap = run.home.last_cap
    name = _cgroup_name(request)
    for hierarchy, top in run.home.cgroups.v1:
        place.cgroups.append((",".join(hierarchy.controllers).encode(), f"{top}/{name}".encode()))
    if run.home.cgroups.v2:
        path = f"{run.home.cgroups.v2[1]}/{name}"
        os.mkdir(path, 0o755)
        place.v2_cgroup = path.encode()
        _limit(run, request, version=2)
    return place


def _pipes(run: Run, request: StartRequest) -> tuple[init.Pipes, int, int, _socket.socket | None]:
    """What connects the two sides. Output goes through FIFOs that have a name: if this process dies, another opens them again.

    The container's ends are opened for both directions: without any reader a write then waits instead of failing with EPIPE.
    """
    go_read, go_write = os.pipe2(os.O_CLOEXEC)
    error_read, error_write = os.pipe2(os.O_CLOEXEC)
    if request["tty"]:
        ours, theirs = (_socket.socket(fileno=end) for end in _socketpair())
        return init.Pipes(go=go_read, error=error_write, out=-1, err=-1, tty=theirs.detach()), go_write, error_read, ours
    ends = {}
    for name, letter in (("out", b"o"), ("err", b"e")):
        path = f"{run.run_dir}/{name}"
        remove_file(path)
        os.mkfifo(path, 0o600)
        ends[name] = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        fcntl.fcntl(ends[name], F_SETPIPE_SZ, PIPE_BYTES)
        run.sources[os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)] = letter
    return init.Pipes(go=go_read, error=error_write, out=ends["out"], err=ends["err"], tty=-1), go_write, error_read, None


def _socketpair() -> tuple[int, int]:
    one, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    return one.detach(), other.detach()


def _receive(carrier: _socket.socket | None) -> int:
    """The terminal's master, sent by init."""
    assert carrier is not None
    _, ancillary, _, _ = carrier.recvmsg(1, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    carrier.close()
    (master,) = unpack_from("i", ancillary[0][2])
    os.set_blocking(master, False)
    return int(master)


def _namespaces(request: StartRequest) -> int:
    """All but the cgroup namespace: that one is entered after the cgroups, or it would show the host's path."""
    flags = linux.CLONE_NEWNS | linux.CLONE_NEWUTS
    flags |= linux.CLONE_NEWPID if request["private_pid"] else 0
    flags |= linux.CLONE_NEWIPC if request["private_ipc"] else 0
    return flags | (linux.CLONE_NEWNET if request["isolated_network"] else 0)


def _make_cgroups(run: Run, request: StartRequest) -> None:
    """Version 1, while init builds the mounts: it waits for us before it moves in. Every limit is set before."""
    for _, top in run.home.cgroups.v1:
        os.mkdir(f"{top}/{_cgroup_name(request)}", 0o755)
    _limit(run, request, version=1)


def _cgroup_name(request: StartRequest) -> str:
    """Below each of our tops. The run is part of it: what a process that cannot die still holds is not used again."""
    return f"{'std' if request['device_rules'] is None else 'own'}/{request['uid']}.{request['run']}"


def _limit(run: Run, request: StartRequest, *, version: int) -> None:
    name = _cgroup_name(request)
    cgroups = run.home.cgroups
    for controller, file, value, may_be_missing in request["limits"]:
        if cgroups.versions.get(controller) == version:
            try:
                cgroup.write(f"{cgroups.top_of(controller)}/{name}/{file}", value)
            except FileNotFoundError:
                if not may_be_missing:
                    raise
    if request["device_rules"] is not None and not request["privileged"]:
        cgroup_devices(cgroups, name, request["device_rules"], version=version)


def cgroup_devices(cgroups: cgroup.Cgroups, name: str, rules: object, *, version: int) -> None:
    """Deny all but `rules` in the cgroup `name`, by the version that has the say here."""
    top = cgroups.top_of("devices")
    if top is not None and version == 1:
        cgroup.write(f"{top}/{name}/devices.deny", b"a")
        for line in devices.v1_lines(rules):  # type: ignore[arg-type]
            cgroup.write(f"{top}/{name}/devices.allow", line)
    elif top is None and version == 2 and cgroups.v2:
        program = linux.bpf_load_device_program(devices.bpf_program(rules))  # type: ignore[arg-type]
        directory = os.open(f"{cgroups.v2[1]}/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        linux.bpf_attach_device_program(directory, program)
        os.close(program)
        os.close(directory)


def _write_state(run: Run, request: StartRequest, request_fd: int, started_ns: int) -> None:
    run.state = {
        "run": request["run"],
        "pid": run.pid,
        "starttime": record.start_time(run.pid) or 0,
        "boot_id": run.home.boot_id,
        "started_ns": started_ns,
        "shim": os.getpid(),
        "request": request_fd,
        "cgroup": _cgroup_name(request),
        "tty": request["tty"],
        "private_pid": request["private_pid"],
        "log_size": request["log_size"],
        "log_files": request["log_files"],
    }
    record.write_state(run.run_dir, run.state)


def _answer(connection: _socket.socket, answer: dict[str, object]) -> None:
    try:
        connection.send(marshal.dumps(answer, 2), _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
    except OSError:
        pass  # the daemon is gone; it will observe


def exit_code_of(failure: Failed) -> int:
    if failure.step != "exec":
        return 125
    return 127 if failure.errno == errno.ENOENT else 126


def _give_up(run: Run, request: StartRequest, failure: Failed) -> None:
    """Leave no process and no cgroup of a start that failed, and a record that it did."""
    if run.pid > 0:
        _kill(run.pidfd)
        os.waitpid(run.pid, 0)
    if run.records >= 0:
        fields = {
            "run": request["run"],
            "boot": run.home.boot_id,
            "ended": time.time_ns(),
            "code": exit_code_of(failure),
            "reason": "StartFailed",
        }
        record.write_record(run.records, fields, sync=True)
    if failure.errno != errno.EBUSY or failure.step != "files of the task":
        for top in run.home.cgroups.tops():
            cgroup.remove(f"{top}/{_cgroup_name(request)}")


def _kill(pidfd: int) -> None:
    try:
        linux.pidfd_send_signal(pidfd, 9)
    except ProcessLookupError:
        pass
