"""The process that starts one run of a container and then supervises it: one per container, forked from the zygote.

Order: everything an exit will need is on the disk, every limit is set and the facts of the run are written before init is let go, so that
the shortest life leaves them. What takes time and memory is done by a child of ours (maker.py).
"""

from __future__ import annotations

import _socket
import errno
import marshal
import os
import time
from struct import unpack_from

from moorage_agent.runtime import cgroup, confine, init, linux, maker, record
from moorage_agent.runtime.logs import LogWriter
from moorage_agent.runtime.supervisor import Run, lock, remove_file, supervise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from moorage_agent.runtime.home import Home
    from moorage_agent.runtime.request import StartRequest


class Failed(Exception):
    """A step before the program failed; `words` as confine.describe() has them."""

    def __init__(self, number: int, step: str, words: str) -> None:
        super().__init__(words)
        self.errno, self.step, self.words = number, step, words

    @classmethod
    def parse(cls, described: bytes) -> Failed:
        number, step, words = described.decode(errors="replace").split("\0", 2)
        return cls(int(number), step, words)

    @property
    def exit_code(self) -> int:
        """As shells and Docker count: 127 not found, 126 not executable, 125 anything before."""
        if self.step != "exec":
            return 125
        return 127 if self.errno == errno.ENOENT else 126


class Ends:
    """Our ends of what connects us to init and maker."""

    __slots__ = ("failures", "go", "report", "terminal")

    def __init__(self, *, go: int, failures: int, report: int, terminal: int) -> None:
        self.go, self.failures, self.report, self.terminal = go, failures, report, terminal


def start(home: Home, uid: str, connection: _socket.socket, request_fd: int, binds: list[int]) -> NoReturn:
    """Start the container, answer on `connection`, supervise it to its end. The process ends with it."""
    os.setsid()
    linux.set_process_name(b"moorage-shim")
    run = Run(home, uid)
    request: StartRequest = marshal.loads(os.pread(request_fd, os.fstat(request_fd).st_size, 0))
    try:
        _start(run, request, connection, request_fd, binds)
    except Exception as error:  # of any kind: there is nobody above, and the daemon waits
        failure = error if isinstance(error, Failed) else Failed(0, "shim", repr(error))
        _give_up(run, request, failure)
        answer(connection, {"code": failure.exit_code, "errno": failure.errno, "step": failure.step, "words": failure.words})
        os._exit(0)
    answer(connection, {"pid": run.pid, "started_ns": run.state["started_ns"]})
    connection.close()
    supervise(run)


def _start(run: Run, request: StartRequest, connection: _socket.socket, request_fd: int, binds: list[int]) -> None:
    steps = confine.Steps()
    ends = None
    try:
        steps.at = "files of the task"
        for path in (run.task_dir, run.run_dir):
            cgroup.make(path)
        lock(run)
        ends = _fork_maker(run, request, connection, binds)
        run.go = ends.go
        _open_files(run, request)
        steps.at = "clone"
        run.pid = _hear_pid(ends.report)
        run.pidfd = os.pidfd_open(run.pid)
        run.mount_namespace = os.open(f"/proc/{run.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        steps.at = "state"
        _write_state(run, request, request_fd)
        _hear_made(ends.report)
    except OSError as error:
        raise (_said_by_init(ends) if ends else None) or Failed.parse(confine.describe(error, steps)) from None
    try:
        os.write(ends.go, b"g")
    except BrokenPipeError:
        pass  # init is gone, and said why
    os.close(ends.go)
    run.go = -1
    failure = os.read(ends.failures, 4096)  # nothing: execve closed it
    os.close(ends.failures)
    if failure:
        raise Failed.parse(failure)
    if ends.terminal >= 0:
        run.sources = {_receive(ends.terminal): b"o"}


def _fork_maker(run: Run, request: StartRequest, connection: _socket.socket, binds: list[int]) -> Ends:
    """Output goes through FIFOs that have a name: if this process dies, another opens them again."""
    go_read, go_write = os.pipe2(os.O_CLOEXEC)
    error_read, error_write = os.pipe2(os.O_CLOEXEC)
    report_read, report_write = os.pipe2(os.O_CLOEXEC)
    terminal, terminal_end = _socketpair() if request["tty"] else (-1, -1)
    for name in () if request["tty"] else ("out", "err"):
        remove_file(f"{run.run_dir}/{name}")
        os.mkfifo(f"{run.run_dir}/{name}", 0o600)
    pipes = init.Pipes(go=go_read, error=error_write, tty=terminal_end)
    run.maker = os.fork()
    if run.maker == 0:
        connection.close()
        for fd in (go_write, error_read, report_read, terminal):
            if fd >= 0:
                os.close(fd)  # kept here they would outlive the shim, and init would wait for it for ever
        maker.make(run.home, request, pipes, binds, report_write)
    for fd in (go_read, error_write, report_write, terminal_end, *binds):
        if fd >= 0:
            os.close(fd)
    return Ends(go=go_write, failures=error_read, report=report_read, terminal=terminal)


def _socketpair() -> tuple[int, int]:
    one, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    return one.detach(), other.detach()


def _open_files(run: Run, request: StartRequest) -> None:
    """What an exit will need, while there is nothing that can exit."""
    run.records = record.open_records(run.task_dir)
    record.write_record(run.records, {"run": request["run"], "boot": run.home.boot_id, "started": time.time_ns()}, sync=False)
    run.log = LogWriter(f"{run.task_dir}/log", max_size=request["log_size"], max_files=request["log_files"])
    if not request["tty"]:
        run.open_sources()


def _said_by_init(ends: Ends) -> Failed | None:
    """What we stumbled over may be that init is gone already; then it knows better why."""
    os.set_blocking(ends.failures, False)
    try:
        described = os.read(ends.failures, 4096)
    except BlockingIOError:
        return None
    return Failed.parse(described) if described else None


def _hear_pid(report: int) -> int:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(report, 1)  # one by one: what follows is another message
        if not byte:
            raise _report_of(line)
        line += byte
    return int(line)


def _hear_made(report: int) -> None:
    heard = b""
    while chunk := os.read(report, 4096):
        heard += chunk
    os.close(report)
    if heard != maker.MADE:
        raise _report_of(heard)


def _report_of(described: bytes) -> Failed:
    return Failed.parse(described) if b"\0" in described else Failed(errno.ECHILD, "clone", "the process that makes the container died")


def _write_state(run: Run, request: StartRequest, request_fd: int) -> None:
    run.state = {
        "run": request["run"],
        "pid": run.pid,
        "starttime": record.start_time(run.pid) or 0,
        "boot_id": run.home.boot_id,
        "started_ns": time.time_ns(),
        "shim": os.getpid(),
        "request": request_fd,
        "cgroups": [f"{top}/{maker.cgroup_name(request)}" for top in run.home.cgroups.tops()],
        "memory": _memory(run.home.cgroups, maker.cgroup_name(request)),
        "tty": request["tty"],
        "private_pid": request["private_pid"],
        "private_ipc": request["private_ipc"],
        "isolated_network": request["isolated_network"],
        "confinement": {**request["confinement"], "env": []},
        "log_size": request["log_size"],
        "log_files": request["log_files"],
    }
    record.write_state(run.run_dir, run.state)


def _memory(cgroups: cgroup.Cgroups, name: str) -> tuple[str, int]:
    top = cgroups.top_of("memory")
    return (f"{top}/{name}", cgroups.versions["memory"]) if top else ("", 0)


def _receive(end: int) -> int:
    """The terminal's master, sent by init."""
    carrier = _socket.socket(fileno=end)
    _, ancillary, _, _ = carrier.recvmsg(1, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    carrier.close()
    (master,) = unpack_from("i", ancillary[0][2])
    os.set_blocking(master, False)
    return int(master)


def answer(connection: _socket.socket, words: dict[str, object]) -> None:
    try:
        connection.send(marshal.dumps(words, 2), _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
    except OSError:
        pass  # the daemon is gone; it will observe


def _give_up(run: Run, request: StartRequest, failure: Failed) -> None:
    """Leave no process and no cgroup of a start that failed, and a record that it did."""
    if run.maker < 0:
        return  # nothing was begun: this run may even be the one that is alive
    if run.go >= 0:
        os.close(run.go)  # an init we were never told of ends by this
    for pid in (run.maker, run.pid):
        if pid > 0:
            _kill(pid)
    _bury_all()
    if run.records >= 0:
        fields = {
            "run": request["run"],
            "boot": run.home.boot_id,
            "ended": time.time_ns(),
            "code": failure.exit_code,
            "reason": "StartFailed",
        }
        record.write_record(run.records, fields, sync=True)
    for top in run.home.cgroups.tops():
        cgroup.remove(f"{top}/{maker.cgroup_name(request)}")


def _kill(pid: int) -> None:
    """A child of ours, not buried yet: the number is still its own."""
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        pass


def _bury_all() -> None:
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass
