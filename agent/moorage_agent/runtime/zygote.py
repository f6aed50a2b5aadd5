"""The process containers come from: small, single-threaded, everything imported once and then only forked. It decides nothing.

It is the subreaper of its shims: a container whose shim dies becomes its child, and it forks an adopter. It serves one message at a time on
`<run>/zygote.sock`; what a message asks for happens in a fork that answers by itself. It runs from a sealed copy of the interpreter, so
that a container which reaches /proc/self/exe before its program is there can read, but never change, what root runs here (CVE-2019-5736).
"""

from __future__ import annotations

import _socket
import errno
import gc
import marshal
import os
import select
import sys
from struct import iter_unpack, unpack

from moorage_agent.runtime import cgroup, confine, devices, execute, linux, maker, record, shim, supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from moorage_agent.runtime.request import State

MAX_FDS = 253  # SCM_MAX_FD
OOM_SCORE = b"-999"
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BOOTSTRAP = f"import sys; sys.path.insert(0, {PACKAGE!r}); from moorage_agent.runtime.zygote import main; main()"


class Home:
    """What every fork finds in its memory: where things are, what this host has."""

    __slots__ = ("boot_id", "cgroups", "last_cap", "root", "run", "version")

    def __init__(self, *, root: str, run: str, boot_id: str, version: str, cgroups: cgroup.Cgroups) -> None:
        self.root, self.run, self.boot_id, self.version, self.cgroups = root, run, boot_id, version, cgroups
        self.last_cap = confine.last_capability()


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
        connection = _socket.socket(fileno=self.listener._accept()[0])  # type: ignore[attr-defined]
        try:
            fds = self._handle(connection)
        except (OSError, ValueError):
            fds = []  # a peer that left, or spoke nonsense
        connection.close()
        for fd in fds:
            os.close(fd)

    def _handle(self, connection: _socket.socket) -> list[int]:
        """Serve one message: a verb, a uid, descriptors. Returns those to close here."""
        connection.settimeout(2.0)
        text, ancillary, _, _ = connection.recvmsg(256, _socket.CMSG_SPACE(4 * MAX_FDS), _socket.MSG_CMSG_CLOEXEC)
        connection.setblocking(True)
        fds = [fd for _, _, data in ancillary for (fd,) in iter_unpack("i", data)]
        verb, _, uid = text.decode().partition(" ")
        if not _is_root(connection):
            return fds
        if verb == "start" and fds:
            self._fork_start(uid, connection, fds)
            return fds[1:]
        if verb == "exec" and fds:
            self._fork_exec(uid, connection, fds)
        elif verb == "hello":
            connection.send(marshal.dumps(self._facts(), 2))
        elif verb == "retire":
            self.retired = True
            self.epoll.unregister(self.listener.fileno())
        return fds

    def _facts(self) -> dict[str, object]:
        cgroups = self.home.cgroups
        return {"pid": os.getpid(), "version": self.home.version, "controllers": cgroups.versions, "tops": cgroups.tops()}

    def _fork_start(self, uid: str, connection: _socket.socket, fds: list[int]) -> None:
        pid = os.fork()
        if pid == 0:
            self._become_child()
            shim.start(self.home, uid, connection, fds[0], fds[1:])
        self._watch(pid, Watched(pid, uid, fds[0]))

    def _fork_exec(self, uid: str, connection: _socket.socket, fds: list[int]) -> None:
        pid = os.fork()
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
        """At the start: containers of an earlier zygote whose shim is gone too. They are nobody's children now."""
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


# --- the beginning


def main() -> None:
    """Arguments: root, run, boot id, version, cgroup root, "scope" when systemd gave us one. Returns when the zygote serves, or cannot."""
    if not os.readlink("/proc/self/exe").startswith("/memfd:"):
        _exec_sealed()
    root, run, boot_id, version, cgroup_root, where = sys.argv[1:]
    base = _own_v2_cgroup() if where == "scope" else ""
    cgroups = cgroup.Cgroups(cgroup.mounted(), cgroup_root, v2_base=base)
    home = Home(root=root, run=run, boot_id=boot_id, version=version, cgroups=cgroups)
    _leave_scope_top(cgroups)
    ready, tell = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(tell)
        message = os.read(ready, 4096)
        if message != b"ready":
            os.write(2, message or b"the zygote ended before it served\n")
        os._exit(0 if message == b"ready" else 1)
    os.close(ready)
    try:
        zygote = _settle(home)
    except OSError as error:
        os.write(tell, f"{error}\n".encode())
        os._exit(1)
    os.write(tell, b"ready")
    os.close(tell)
    zygote.serve()
    os._exit(0)


def _exec_sealed() -> NoReturn:
    """Run this interpreter again from a copy in memory that nobody can write to. argv[0] stays, Python finds its library by it."""
    path = os.readlink("/proc/self/exe")
    try:
        copy = os.memfd_create("moorage-zygote", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC | 0x10)  # MFD_EXEC, 6.3
    except OSError:
        copy = os.memfd_create("moorage-zygote", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    while os.sendfile(copy, source, None, 1 << 30):
        pass
    linux.seal(copy)
    os.execve(copy, [sys.executable, "-I", "-S", "-E", "-c", BOOTSTRAP, *sys.argv[1:]], {"LC_ALL": "C.UTF-8"})


def _settle(home: Home) -> Zygote:
    os.setsid()
    os.chdir("/")
    linux.set_process_name(b"moorage-zygote")
    _ignore_nothing()
    _detach_streams()
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    try:
        _write("/proc/self/oom_score_adj", OOM_SCORE)
    except OSError:
        pass  # without CAP_SYS_RESOURCE: reported as a missing feature
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
    _detach_mounts(home)
    home.cgroups.prepare()
    _deny_devices(home.cgroups)
    _remember_base(home)
    listener = _listen(f"{home.run}/zygote.sock")
    gc.collect()
    gc.freeze()
    gc.disable()
    return Zygote(home, listener)


def _own_v2_cgroup() -> str:
    """ "" at the top, else such as /moorage.slice/moorage-runtime-1.scope."""
    for line in cgroup.read("/proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            return line[3:].rstrip("/")
    return ""


def _leave_scope_top(cgroups: cgroup.Cgroups) -> None:
    """Version 2 lets no cgroup hold both processes and controllers for its children: in a scope of ours we move one down."""
    if cgroups.v2 and cgroups.base:
        supervisors = f"{cgroups.v2[0].mountpoint}{cgroups.base}/supervisors"
        cgroup.make(supervisors)
        cgroup.write(f"{supervisors}/cgroup.procs", b"%d" % os.getpid())


def _ignore_nothing() -> None:
    """What whoever started us ignored (a shell without a terminal: SIGHUP) would be ignored in every container."""
    for signum in range(1, 65):
        if signum not in (9, 19, 32, 33) and linux.is_ignored(signum):
            linux.set_signal(signum, linux.SIG_DFL)
    linux.set_signal(confine.SIGPIPE, linux.SIG_IGN)
    linux.set_signal(2, linux.SIG_DFL)


def _detach_streams() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def _write(path: str, value: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)


def _remember_base(home: Home) -> None:
    """Where in version 2 zygotes of this boot worked, one a line: who removes a container looks in all of them."""
    path = f"{home.run}/cgroup-bases"
    if home.cgroups.base not in cgroup.read(path).splitlines():
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.write(fd, home.cgroups.base.encode() + b"\n")
        os.close(fd)


def _detach_mounts(home: Home) -> None:
    """Keep only the mounts we work in: every container's mount namespace starts as a copy of ours, and a long table makes that slow.

    What containers bind comes as detached mounts from the daemon, which sees the host's.
    """
    with open("/proc/self/mountinfo", "rb") as file:
        points = [line.split(b" ")[4].replace(b"\\040", b" ") for line in file]
    kept = [os.path.realpath(path).encode() for path in (home.root, home.run)] + [
        top.rpartition("/")[0].encode() for top in home.cgroups.tops()
    ]
    for point in reversed(points):
        if point not in (b"/", b"/proc", b"/sys") and not any(_above(point, path) or _above(path, point) for path in kept):
            try:
                linux.umount2(point, linux.MNT_DETACH)
            except OSError:
                pass  # below one that is already detached


def _above(path: bytes, other: bytes) -> bool:
    return path == other or other.startswith(path.rstrip(b"/") + b"/")


def _deny_devices(cgroups: cgroup.Cgroups) -> None:
    """The standard rules, once: the group's children inherit them. `a` is refused while there are children, and not needed then."""
    version = 1 if any("devices" in hierarchy.controllers for hierarchy, _ in cgroups.v1) else 2
    top = cgroups.top_of("devices") if version == 1 else (cgroups.v2[1] if cgroups.v2 else None)
    if top is None or _has_children(f"{top}/std"):
        return
    try:
        maker.deny_devices(cgroups, "std", devices.STANDARD, version=version)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL, errno.ENOSYS) or version == 1:
            raise  # without bpf(2): nodev mounts and no CAP_MKNOD are what is left, reported as a missing feature


def _has_children(path: str) -> bool:
    return os.stat(path).st_nlink > 2


def _listen(path: str) -> _socket.socket:
    """The newest zygote owns the name: it is put in place by rename, one that served before keeps its children and no longer hears."""
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    supervisor.remove_file(f"{path}.new")
    old = os.umask(0o177)
    listener.bind(f"{path}.new")
    os.umask(old)
    listener.listen(512)
    os.rename(f"{path}.new", path)
    return listener
