"""The process containers come from: small, single-threaded, everything imported once and then only forked. It decides nothing.

It is the subreaper of its shims: a container whose shim dies becomes its child, and it forks an adopter. It serves one message at a time on
`<run>/zygote.sock`; what a message asks for happens in a fork that answers by itself. How it comes to be is in entry.py.
"""

from __future__ import annotations

import _socket
import marshal
import os
import select
from struct import iter_unpack, unpack

from moorage_agent.runtime import cgroup, execute, linux, maker, record, shim, supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from moorage_agent.runtime.home import Home
    from moorage_agent.runtime.request import State

MAX_FDS = 253  # SCM_MAX_FD


class Zygote:
    """`watched`: descriptors of processes to hear the end of, and whose they are. `lost`: statuses of children nobody asked for yet."""

    def __init__(self, home: Home, listener: _socket.socket) -> None:
        self.home, self.listener = home, listener
        self.watched: dict[int, Watched] = {}
        self.lost: dict[int, int] = {}
        self.verdicts: dict[int, int] = {}
        self.retired = False
        self.epoll = select.epoll()
        self.epoll.register(listener.fileno(), select.EPOLLIN)
        self.deaths, self.bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.epoll.register(self.deaths, select.EPOLLIN)
        linux.wake_on_child(self.bell)

    def serve(self) -> None:
        """Until retired and childless."""
        self._adopt_all()
        while not (self.retired and not self.watched):
            for fd, _ in self.epoll.poll():
                if fd == self.listener.fileno():
                    self._accept()
                elif fd == self.deaths:
                    os.read(self.deaths, 4096)
                    self._reap()
                elif fd in self.watched:
                    self._ended(fd)

    def _accept(self) -> None:
        """Serve one message. What it came with is closed here, but for what is kept, see _handle."""
        connection = _socket.socket(fileno=self.listener._accept()[0])  # type: ignore[attr-defined]
        fds: list[int] = []
        try:
            connection.settimeout(2.0)
            text, ancillary, _, _ = connection.recvmsg(256, _socket.CMSG_SPACE(4 * MAX_FDS), _socket.MSG_CMSG_CLOEXEC)
            connection.setblocking(True)
            fds += [fd for _, _, data in ancillary for (fd,) in iter_unpack("i", data)]
            self._handle(connection, text.decode(), fds)
        except (OSError, ValueError):
            pass  # a peer that left, or spoke nonsense; or there was no fork, and it knows
        connection.close()
        for fd in fds:
            os.close(fd)

    def _handle(self, connection: _socket.socket, message: str, fds: list[int]) -> None:
        """A verb, a uid, descriptors: those that are kept are taken out of `fds`."""
        verb, _, uid = message.partition(" ")
        if not _is_root(connection):
            return
        if verb == "start" and fds:
            self._fork_start(uid, connection, fds)
            del fds[0]
        elif verb == "exec" and fds:
            self._fork_exec(uid, connection, fds)
        elif verb == "hello":
            connection.send(marshal.dumps(self._facts(), 2))
        elif verb == "adopt":
            self._adopt_all()
            connection.send(marshal.dumps({}, 2))
        elif verb == "retire":
            self.retired = True
            self.epoll.unregister(self.listener.fileno())

    def _facts(self) -> dict[str, object]:
        cgroups = self.home.cgroups
        return {"pid": os.getpid(), "version": self.home.version, "controllers": cgroups.versions, "tops": cgroups.tops()}

    def _fork_start(self, uid: str, connection: _socket.socket, fds: list[int]) -> None:
        pid = _fork(connection)
        if pid == 0:
            self._become_child()
            shim.start(self.home, maker.Orders(uid, connection, fds[0], fds[1:]))
        self._watch(pid, Watched(pid, uid, fds[0]))

    def _fork_exec(self, uid: str, connection: _socket.socket, fds: list[int]) -> None:
        pid = _fork(connection)
        if pid == 0:
            self._become_child()
            execute.supervise(self.home, uid, connection, fds)
        self._watch(pid, Watched(pid, "", -1))

    def _become_child(self) -> None:
        """Close what belongs to the zygote, or its requests and verdicts would live as long as we."""
        linux.wake_on_child(-1)
        self.epoll.close()
        self.listener.close()
        os.close(self.deaths)
        os.close(self.bell)
        for fd, watched in self.watched.items():
            os.close(fd)
            if watched.request >= 0:
                os.close(watched.request)
        for fd in self.verdicts.values():
            os.close(fd)

    def _watch(self, pid: int, watched: Watched) -> None:
        fd = os.pidfd_open(pid)
        self.watched[fd] = watched
        self.epoll.register(fd, select.EPOLLIN)

    def _ended(self, fd: int) -> None:
        watched = self.watched.pop(fd)
        self.epoll.unregister(fd)
        os.close(fd)
        self._reap()
        status = self.lost.get(watched.pid, 0)
        if watched.pid in self.verdicts:
            self._pass_verdict(watched.pid, status)
        elif watched.uid and os.WIFSIGNALED(status):  # one that failed by itself would do so again
            self._replace(watched)
        if watched.request >= 0:
            os.close(watched.request)

    def _reap(self) -> None:
        """Bury every dead child and keep its status: a container may be one, whose shim's end we have not seen yet.

        At once, not at the next occasion: a process nobody buries keeps the first process of its pid namespace from ending.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.lost[pid] = status
            if len(self.lost) > 4096:
                del self.lost[next(iter(self.lost))]

    def _pass_verdict(self, pid: int, status: int) -> None:
        fd = self.verdicts.pop(pid)
        try:
            os.write(fd, b"%d" % status)
        except OSError:
            pass
        os.close(fd)

    def _replace(self, dead: Watched) -> None:
        """A supervisor died by force. If its container is not recorded as ended, another takes over."""
        state = record.read_state(f"{self.home.run}/tasks/{dead.uid}")
        if state is None or state["boot_id"] != self.home.boot_id or _is_recorded(f"{self.home.root}/tasks/{dead.uid}", state["run"]):
            return
        self._fork_adopter(dead.uid, state, dead.request)

    def _adopt_all(self) -> None:
        """Containers of an earlier zygote whose shim is gone too. They are nobody's children now."""
        try:
            uids = os.listdir(f"{self.home.run}/tasks")
        except FileNotFoundError:
            return
        for uid in uids:
            state = record.read_state(f"{self.home.run}/tasks/{uid}")
            if state is None or state["boot_id"] != self.home.boot_id or _is_recorded(f"{self.home.root}/tasks/{uid}", state["run"]):
                continue
            if not supervisor.is_supervised(f"{self.home.run}/tasks/{uid}"):
                self._fork_adopter(uid, state, -1)

    def _fork_adopter(self, uid: str, state: State, request: int) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        kept = os.dup(request) if request >= 0 else -1
        pid = os.fork()
        if pid == 0:
            os.close(write)
            own = os.dup(request) if request >= 0 else -1
            self._become_child()
            supervisor.adopt(self.home, uid, state, read, own)
        os.close(read)
        self._watch(pid, Watched(pid, uid, kept))
        self._expect(state, write)

    def _expect(self, state: State, verdict: int) -> None:
        """Hear of the end of an adopted container, unless it is nobody's child of ours, or was buried already."""
        pid = state["pid"]
        self._reap()
        if pid in self.verdicts:  # of the adopter before this one
            os.close(self.verdicts.pop(pid))
        alive = record.start_time(pid) == state["starttime"]
        if not alive and pid in self.lost:
            self.verdicts[pid] = verdict
            self._pass_verdict(pid, self.lost[pid])
        elif alive and _is_my_child(pid):
            self.verdicts[pid] = verdict
            self._watch(pid, Watched(pid, "", -1))
        else:
            os.close(verdict)


class Watched:
    """A process whose end matters: a supervisor (`uid`, and `request`, the descriptor an adopter inherits), or an adopted container."""

    __slots__ = ("pid", "request", "uid")

    def __init__(self, pid: int, uid: str, request: int) -> None:
        self.pid, self.uid, self.request = pid, uid, request


def _fork(connection: _socket.socket) -> int:
    """As os.fork; who asked for it hears that there is none to be had."""
    try:
        return os.fork()
    except OSError as error:
        maker.answer(connection, maker.Failed.of(error, "fork").answer())
        raise


def _is_root(connection: _socket.socket) -> bool:
    """SO_PEERCRED is {pid, uid, gid}. The socket is 0600 in a directory of root's; this is the second door."""
    return bool(unpack("3i", connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))[1] == os.getuid())


def _is_recorded(task_dir: str, run: int) -> bool:
    return any(found["run"] == str(run) and "ended" in found for found in record.read_records(task_dir))


def _is_my_child(pid: int) -> bool:
    for line in cgroup.read(f"/proc/{pid}/status").splitlines():
        if line.startswith("PPid:"):
            return int(line.split()[1]) == os.getpid()
    return False
