"""Exec: one more process in a running container, with the container's own confinement, never wider.

Two forks from the zygote: the supervisor stays on the host, enforces the time and answers; its child enters the namespaces, and the child
of that, which alone is in the pid namespace, becomes the program.
"""

from __future__ import annotations

import _socket
import errno
import marshal
import os
import select

from moorage_agent.runtime import confine, linux, maker, mounts, passwd, record, supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from moorage_agent.runtime.home import Home
    from moorage_agent.runtime.request import Confinement, ExecRequest, StartRequest, State

TIMED_OUT = 124


def supervise(home: Home, uid: str, connection: _socket.socket, fds: list[int]) -> NoReturn:
    """fds: the ExecRequest, where output goes. Answers with the code, or with the step that failed."""
    os.setsid()
    linux.set_process_name(b"moorage-exec")
    steps = confine.Steps()
    try:
        request: ExecRequest = marshal.loads(os.pread(fds[0], os.fstat(fds[0]).st_size, 0))
        answer = _run(home, uid, request, connection, fds[1], steps)
    except (OSError, ValueError) as error:
        failed = maker.Failed.parse(confine.describe(error, steps))
        answer = {"code": 126, "errno": failed.errno, "step": failed.step, "words": failed.words}
    maker.answer(connection, answer)
    os._exit(0)


def _run(home: Home, uid: str, request: ExecRequest, connection: _socket.socket, output: int, steps: confine.Steps) -> dict[str, object]:
    steps.at = "container"
    state = record.read_state(f"{home.run}/tasks/{uid}")
    if state is None or state["boot_id"] != home.boot_id or not record.lives(state):
        raise ProcessLookupError(errno.ESRCH, "the container does not run")
    target = os.pidfd_open(state["pid"])
    if not record.lives(state):
        raise ProcessLookupError(errno.ESRCH, "the container does not run")
    environment = _environment(state)
    error_read, error_write = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = linux.clone3(0)
    if pid == 0:
        _enter(home, state, environment, request, target, output, error_write)
    os.close(error_write)
    os.close(output)
    _await(pidfd, request["timeout_s"], connection)
    failure = b"" if _alive(pidfd) else os.read(error_read, 4096)
    if _alive(pidfd):
        _kill_tree(pid)
        os.waitpid(pid, 0)
        return {"code": TIMED_OUT}
    status = os.waitpid(pid, 0)[1]
    if failure:
        failed = maker.Failed.parse(failure)
        return {"code": failed.exit_code, "errno": failed.errno, "step": failed.step, "words": failed.words}
    return {"code": supervisor.exit_code(status)}


def _environment(state: State) -> list[bytes]:
    """What the container was started with: from the memory of its supervisor, or, when every one that knew it was killed, its own."""
    try:
        fd = os.open(f"/proc/{state['shim']}/fd/{state['request']}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        with open(f"/proc/{state['pid']}/environ", "rb") as file:
            return [variable for variable in file.read().split(b"\0") if b"=" in variable[1:]]
    request: StartRequest = marshal.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    os.close(fd)
    return request["confinement"]["env"]


def _await(pidfd: int, timeout_s: float, connection: _socket.socket) -> None:
    """Until the program ends, the time is up, or whoever asked has gone."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(connection.fileno(), select.POLLIN | select.POLLHUP)
    poll.poll(int(timeout_s * 1000))


def _alive(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)


def _kill_tree(waiter: int) -> None:
    """The program's session, which it is the leader of; then the one that waits for it ends by itself, or here if it has none yet."""
    programs = _children(waiter)
    for pid in programs:
        for kill in (os.killpg, os.kill):
            try:
                kill(pid, 9)
            except ProcessLookupError:
                pass
    if not programs:
        os.kill(waiter, 9)


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
        return [int(word) for word in file.read().split()]


def _enter(home: Home, state: State, env: list[bytes], request: ExecRequest, target: int, output: int, error_fd: int) -> NoReturn:
    """Into the cgroups while they can be named, then the namespaces, then one more clone: a pid namespace holds only children."""
    steps = confine.Steps()
    try:
        steps.at = "isolate"
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
        confine.lock_down()
        steps.at = "cgroups"
        v2 = _join_cgroups(state["cgroups"])
        proc = os.open("/proc", mounts.DIRECTORY)  # the host's, which nothing in the container can stand in for
        steps.at = "namespaces"
        _join(target, state)
        steps.at = "fork"
        pid, _ = linux.clone3(0, cgroup_fd=v2)
        if pid == 0:
            linux.setns(target, linux.CLONE_NEWCGROUP)
            _become(home, {**state["confinement"], "env": env}, request, proc, output, error_fd, steps)
        confine.close_all_but()
        status = os.waitpid(pid, 0)[1]
    except BaseException as error:  # the supervisor must hear of it
        os.write(error_fd, confine.describe(error, steps))
        os._exit(126)
    os._exit(supervisor.exit_code(status))


def _join_cgroups(paths: list[str]) -> int:
    """Those of version 1 by ourselves; of version 2 a descriptor to clone into, -1 without."""
    v2 = -1
    for path in paths:
        if os.path.exists(f"{path}/tasks"):
            _write(f"{path}/tasks", b"0")
        else:
            v2 = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return v2


def _write(path: str, value: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, value)
    os.close(fd)


def _join(target: int, state: State) -> None:
    """All namespaces the container has of its own, at once (5.8), but the cgroup namespace.

    From inside that one the kernel would let us clone into no cgroup, because ours is not in it (nsdelegate).
    """
    flags = linux.CLONE_NEWNS | linux.CLONE_NEWUTS
    flags |= linux.CLONE_NEWPID if state["private_pid"] else 0
    flags |= linux.CLONE_NEWIPC if state["private_ipc"] else 0
    flags |= linux.CLONE_NEWNET if state["isolated_network"] else 0
    linux.setns(target, flags)


def _become(
    home: Home, confinement: Confinement, request: ExecRequest, proc: int, output: int, error_fd: int, steps: confine.Steps
) -> NoReturn:
    try:
        steps.at = "standard streams"
        os.setsid()
        os.chdir(b"/")
        null = os.open(b"/dev/null", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        for source, fd in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, fd)
        steps.at = "user"
        root = os.open(b"/", mounts.DIRECTORY)
        identity = passwd.resolve(
            confinement["user"],
            confinement["groups"],
            mounts.read_file(root, b"etc/passwd", 1 << 22),
            mounts.read_file(root, b"etc/group", 1 << 22),
        )
        confine.set_oom_score(proc, confinement, steps)
        confine.label(proc, confinement, steps)
        confine.apply(confinement, identity[:3], home.last_cap, steps, error_fd)
        confine.default_signals()
        confine.run(request["argv"], confine.environment(confinement["env"], identity[3]), confinement, steps)
    except BaseException as error:  # the supervisor must hear of it
        os.write(error_fd, confine.describe(error, steps))
    os._exit(126)
