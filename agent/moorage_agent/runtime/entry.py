"""How the zygote comes to be: a sealed interpreter, a lean mount namespace, cgroups and a socket of its own; then it serves.

It runs from a copy of the interpreter in memory that nobody can write to: a container which reaches /proc/self/exe before its program is
there can read, but never change, what root runs here (CVE-2019-5736).
"""

from __future__ import annotations

import _socket
import errno
import gc
import os
import sys

from moorage_agent.runtime import cgroup, confine, devices, linux, maker, supervisor
from moorage_agent.runtime.home import Home
from moorage_agent.runtime.zygote import Zygote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

OOM_SCORE = b"-999"
LACKS = (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP, errno.EROFS)
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
BOOTSTRAP = f"import sys; sys.path.insert(0, {PACKAGE!r}); from moorage_agent.runtime.entry import main; main()"


def main() -> None:
    """Arguments: root, run, boot id, version, cgroup root, "scope" when systemd gave us one. Returns when the zygote serves, or cannot.

    Exits with EX_UNAVAILABLE when this host does not let a zygote be, with another code for what may pass.
    """
    try:
        if not os.readlink("/proc/self/exe").startswith("/memfd:"):
            _exec_sealed()
        root, run, boot_id, version, cgroup_root, where = sys.argv[1:]
        base = _own_v2_cgroup() if where == "scope" else ""
        cgroups = cgroup.Cgroups(cgroup.mounted(), cgroup_root, v2_base=base)
        home = Home(root=root, run=run, boot_id=boot_id, version=version, cgroups=cgroups)
        _leave_scope_top(cgroups)
        ready, tell = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
    except OSError as error:
        os.write(2, f"{error}\n".encode())
        os._exit(_exit_code(error))
    if child:
        os.close(tell)
        message = os.read(ready, 4096)
        if message == b"ready":
            os._exit(0)
        os.write(2, message or b"the zygote ended before it served\n")
        os._exit(os.WEXITSTATUS(os.waitpid(child, 0)[1]) or os.EX_TEMPFAIL)
    os.close(ready)
    try:
        zygote = _settle(home)
    except OSError as error:
        os.write(tell, f"{error}\n".encode())
        os._exit(_exit_code(error))
    os.write(tell, b"ready")
    os.close(tell)
    zygote.serve()
    os._exit(0)


def _exit_code(error: OSError) -> int:
    return os.EX_UNAVAILABLE if error.errno in LACKS else os.EX_TEMPFAIL


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
    os.umask(0o022)  # the daemon's is 077, and programs that are not root read their limits in their cgroup
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
        if signum not in (9, 19):
            linux.stop_ignoring(signum)
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
