"""The supervisor of one run of a container: pumps its output to the disk, records its end, tells the daemon, cleans up, ends.

One small process per container. It needs nobody: the daemon may be away, the zygote dead. `adopt` is the same for a container whose shim
died. Order at an exit: drain the output, read the OOM counter, record, reap, tell; information first, cleaning after.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select
import time
from struct import pack, unpack_from

from moorage_agent.runtime import cgroup, linux, record
from moorage_agent.runtime.logs import CHUNK, LogWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from moorage_agent.runtime.home import Home
    from moorage_agent.runtime.request import State

DRAIN_S = 2.0
# <linux/pidfd.h>, 6.15: struct pidfd_info of 64 bytes, {u64 mask, u64 cgroupid, 11 u32 ids, s32 exit_code}
PIDFD_GET_INFO, PIDFD_INFO_EXIT, _EXIT_CODE_AT = 0xC040FF0B, 8, 60


class Run:
    """One run of one container, as its supervisor holds it."""

    __slots__ = (
        "home",
        "lock",
        "log",
        "mount_namespace",
        "pid",
        "pidfd",
        "records",
        "run_dir",
        "sources",
        "state",
        "task_dir",
        "uid",
    )

    def __init__(self, home: Home, uid: str) -> None:
        self.home, self.uid = home, uid
        self.task_dir, self.run_dir = f"{home.root}/tasks/{uid}", f"{home.run}/tasks/{uid}"
        self.sources: dict[int, bytes] = {}  # descriptors to read output from, and the letter of their stream
        self.pid = self.pidfd = self.records = self.lock = self.mount_namespace = -1
        self.log: LogWriter
        self.state: State

    def open_sources(self) -> None:
        """The FIFOs, to read. A terminal has none: it ends with the process that holds it."""
        for name, letter in (("out", b"o"), ("err", b"e")):
            self.sources[os.open(f"{self.run_dir}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)] = letter


def lock(run: Run) -> None:
    """Held by the one supervisor of a container. A POSIX lock: it is not inherited by children and ends with the process."""
    run.lock = os.open(f"{run.run_dir}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(100):  # the shim of the run before may still be cleaning up
        try:
            fcntl.lockf(run.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            time.sleep(0.02)
        else:
            return
    raise OSError(errno.EBUSY, "another run of this container is still supervised", run.run_dir)


def supervise(run: Run, *, verdict: int = -1) -> NoReturn:
    """Pump output until the container's first process ends, then see to its end. `verdict`: where an adopter hears the exit status."""
    poll = select.poll()
    poll.register(run.pidfd, select.POLLIN)
    for fd in run.sources:
        poll.register(fd, select.POLLIN)
    ended = False
    while not ended:
        for fd, _ in poll.poll():
            if fd == run.pidfd:
                ended = True
            elif not _pump(run, fd):
                poll.unregister(fd)
    _end(run, verdict)


def _pump(run: Run, fd: int) -> bool:
    """One read to the log; False when no writer is left."""
    try:
        chunk = os.read(fd, CHUNK)
    except BlockingIOError:
        return True
    except OSError:
        return False  # EIO: the last holder of the terminal is gone
    if chunk:
        run.log.write(run.sources[fd], chunk, time.time_ns())
    return bool(chunk)


def _end(run: Run, verdict: int) -> NoReturn:
    ended_ns = time.time_ns()
    if not run.state["private_pid"]:
        _kill_cgroup(run)  # without a pid namespace its children outlive it
    _drain(run)
    status = _status(run, verdict)
    if status is None and run.pidfd < 0:  # over before we came: the daemon, which held a descriptor, may know; if not, it says so
        _clean(run)
        os._exit(0)
    oom = cgroup.oom_kills(*run.state["memory"])
    fields = {
        "run": run.state["run"],
        "boot": run.home.boot_id,
        "started": run.state["started_ns"],
        "ended": ended_ns,
        "code": None if status is None else exit_code(status),
        "oom": oom,
        "reason": "SupervisorLost" if status is None else None,
    }
    record.write_record(run.records, fields, sync=True)
    if verdict < 0:
        os.waitpid(run.pid, 0)
    notify(run.home, run.uid)
    if run.mount_namespace >= 0:
        os.close(run.mount_namespace)
    _clean(run)
    os._exit(0)


def exit_code(status: int) -> int:
    """As shells and Docker count: a signal n is 128 + n."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _kill_cgroup(run: Run) -> None:
    if run.state["cgroups"]:
        cgroup.kill(run.state["cgroups"][-1])


def _drain(run: Run) -> None:
    """What is still in the pipes. The end of a pid namespace killed every writer, so they come to their end; others get DRAIN_S."""
    deadline = time.monotonic() + DRAIN_S
    poll = select.poll()
    left = set(run.sources)
    for fd in left:
        poll.register(fd, select.POLLIN)
    while left and time.monotonic() < deadline:
        for fd, _ in poll.poll(100):
            if not _pump(run, fd):
                poll.unregister(fd)
                left.discard(fd)


def _status(run: Run, verdict: int) -> int | None:
    """The wait status; from the zygote, or the kernel's memory of it, when the process is not our child."""
    if verdict < 0:
        found = os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)
        assert found is not None
        return found.si_status << 8 if found.si_code == os.CLD_EXITED else found.si_status
    text = os.read(verdict, 16)
    if text:
        return int(text)
    for _ in range(1000):  # the kernel tells once its parent, some init, has buried it
        status = status_of_pidfd(run.pidfd)
        if status is not None or record.start_time(run.pid) != run.state["starttime"]:
            return status if status is not None else status_of_pidfd(run.pidfd)
        time.sleep(0.01)
    return None


def status_of_pidfd(pidfd: int) -> int | None:
    """The wait status of a process that was already waited for, from any descriptor of it. Linux 6.15; None before, or while it lives."""
    if pidfd < 0:
        return None
    info = bytearray(64)
    info[:8] = pack("=Q", PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, info, True)
    except OSError:
        return None
    (mask,) = unpack_from("=Q", info, 0)
    (status,) = unpack_from("=i", info, _EXIT_CODE_AT)
    return int(status) if mask & PIDFD_INFO_EXIT else None


def notify(home: Home, uid: str) -> None:
    """Tell the daemon, if it listens; if not it will read the record."""
    teller = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        teller.sendto(uid.encode(), _socket.MSG_DONTWAIT, f"{home.run}/exits.sock")
    except OSError:
        pass
    teller.close()


def _clean(run: Run) -> None:
    for path in run.state["cgroups"]:
        cgroup.remove(path)
    for name in ("out", "err"):
        remove_file(f"{run.run_dir}/{name}")


def is_supervised(run_dir: str) -> bool:
    """Somebody holds the lock."""
    try:
        fd = os.open(f"{run_dir}/lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return True
    finally:
        os.close(fd)
    return False


def adopt(home: Home, uid: str, state: State, verdict: int, request: int) -> NoReturn:
    """Take over a running container whose shim died; `verdict` gives the exit status once somebody reaped it, or ends without one.

    `request`: a descriptor of the StartRequest for exec to find here, -1 when nobody has it any more.
    """
    os.setsid()
    linux.set_process_name(b"moorage-shim")
    run = Run(home, uid)
    run.state, run.pid = state, state["pid"]
    lock(run)
    try:
        run.pidfd = os.pidfd_open(run.pid)
    except ProcessLookupError:
        run.pidfd = -1
    run.records = record.open_records(run.task_dir)
    run.log = LogWriter(f"{run.task_dir}/log", max_size=state["log_size"], max_files=state["log_files"])
    if not state["tty"]:
        run.open_sources()
    state["shim"], state["request"] = os.getpid(), request
    record.write_state(run.run_dir, state)
    if run.pidfd < 0 or record.start_time(run.pid) != state["starttime"]:
        _end(run, verdict)
    supervise(run, verdict=verdict)


def remove_file(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
