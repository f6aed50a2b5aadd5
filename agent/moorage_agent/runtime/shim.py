"""The process that has one run of a container: forked from the zygote, it lets a child start it (maker.py) and supervises it to its end."""

from __future__ import annotations

import _socket
import os
from struct import unpack_from

from moorage_agent.runtime import cgroup, linux, maker, record
from moorage_agent.runtime.logs import LogWriter
from moorage_agent.runtime.supervisor import Run, lock, supervise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from moorage_agent.runtime.home import Home


def start(home: Home, orders: maker.Orders) -> NoReturn:
    """Have the container started and answered for, supervise it. The process ends with it, or with the failure to start it."""
    os.setsid()
    linux.set_process_name(b"moorage-shim")
    run, step = Run(home, orders.uid), "directories of the task"
    try:
        for path in (run.task_dir, run.run_dir):
            cgroup.make(path)
        step = "lock"
        lock(run)
        step = "fork"
        ready, go, terminal, maker_pid = _fork_maker(home, orders)
    except OSError as error:
        maker.answer(orders.connection, maker.Failed.of(error, step).answer())
        os._exit(1)
    if os.read(ready, 1) == maker.READY:
        _open(run)
        os.write(go, b"g")
    os.close(go)  # without the byte an init that is there ends by this
    started = os.waitpid(maker_pid, 0)[1] == 0
    if not started:
        _bury(run)
        os._exit(0)
    if run.state["tty"]:
        run.sources = {_receive(terminal): b"o"}
    terminal.close()
    supervise(run)


def _fork_maker(home: Home, orders: maker.Orders) -> tuple[int, int, _socket.socket, int]:
    """Our ends: where it says that all is ready, what lets init go, where a terminal comes from; and its pid."""
    go_read, go_write = os.pipe2(os.O_CLOEXEC)
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        for fd in (go_write, ready_read, ours.detach()):
            os.close(fd)  # kept here they would outlive the shim, and init would wait for it for ever
        orders.go, orders.ready, orders.terminal = go_read, ready_write, theirs.detach()
        maker.make(home, orders)
    orders.connection.close()
    for fd in (go_read, ready_write, theirs.detach(), *orders.binds):
        os.close(fd)
    return ready_read, go_write, ours, pid


def _open(run: Run) -> None:
    """What the end of the container will need, while it cannot come to one."""
    state = record.read_state(run.run_dir)
    assert state is not None
    run.state, run.pid = state, state["pid"]
    run.pidfd = os.pidfd_open(run.pid)
    try:
        run.mount_namespace = os.open(f"/proc/{run.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        pass  # init failed already, and tells the maker why
    run.records = record.open_records(run.task_dir)
    run.log = LogWriter(f"{run.task_dir}/log", max_size=state["log_size"], max_files=state["log_files"])
    if not state["tty"]:
        run.open_sources()


def _receive(carrier: _socket.socket) -> int:
    """The terminal's master, sent by init."""
    _, ancillary, _, _ = carrier.recvmsg(1, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    (master,) = unpack_from("i", ancillary[0][2])
    os.set_blocking(master, False)
    return int(master)


def _bury(run: Run) -> None:
    """The start failed, or its maker was killed: whatever is our child must end."""
    if run.pidfd >= 0:
        linux.pidfd_kill(run.pidfd)
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass
