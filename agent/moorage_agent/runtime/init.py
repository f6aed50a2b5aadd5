"""The first process of a container, from the clone to its program. It runs as the host's root inside the container's namespaces: nothing
may be imported, and no path of the image followed, that the kernel does not keep inside. Every failure goes to the shim through
`error_fd`.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
from struct import pack

from moorage_agent.runtime import confine, linux, mounts, passwd, reaper, scene

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from moorage_agent.runtime.request import StartRequest

TIOCSPTLCK, TIOCGPTPEER, TIOCSCTTY, TIOCSWINSZ = 0x40045431, 0x5441, 0x540E, 0x5414
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
MAX_PASSWD = 4 * 1024 * 1024


class Pipes:
    """The descriptors an init was born with. `tty` is a socket to hand the terminal's master over, -1 without one."""

    __slots__ = ("err", "error", "go", "out", "tty")

    def __init__(self, *, go: int, error: int, tty: int) -> None:
        self.go, self.error, self.tty = go, error, tty
        self.out = self.err = -1


def run(request: StartRequest, place: scene.Place, pipes: Pipes, binds: list[int]) -> NoReturn:
    """Never returns: the process becomes the program, or ends."""
    steps = confine.Steps()
    try:
        _become(request, place, pipes, binds, steps)
    except BaseException as error:  # there is nobody above: the shim must hear of it
        try:
            os.write(pipes.error, confine.describe(error, steps))
        except OSError:
            pass
    os._exit(127)


def _become(request: StartRequest, place: scene.Place, pipes: Pipes, binds: list[int], steps: confine.Steps) -> None:
    steps.at = "isolate"
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    _new_keyring()
    confine.lock_down()
    root = scene.make_root(request, place, steps)
    null = scene.kernel_file_systems(request, root, steps)
    scene.user_mounts(request, root, binds, steps)
    steps.at = "user"
    identity = passwd.resolve(
        request["confinement"]["user"],
        request["confinement"]["groups"],
        mounts.read_file(root, b"etc/passwd", MAX_PASSWD),
        mounts.read_file(root, b"etc/group", MAX_PASSWD),
    )
    steps.at = "working directory"
    os.close(mounts.make_directory(root, request["confinement"]["cwd"]))
    proc = os.open(b"proc", mounts.DIRECTORY, dir_fd=root)
    confine.set_oom_score(proc, request["confinement"], steps)
    _join_cgroups(request, place, pipes, root, steps)
    steps.at = "enter the root"
    _pivot(root)
    _settle(request, proc, null, steps)
    _standard_streams(request, pipes, null, identity[0], steps)
    confine.label(proc, request["confinement"], steps)
    confine.apply(request["confinement"], identity[:3], place.last_cap, steps, pipes.error)
    environment = confine.environment(request["confinement"]["env"], identity[3])
    confine.default_signals()
    if request["init"]:
        program = reaper.Program(request["argv"], environment, request["confinement"], own_session=not request["tty"])
        reaper.run(program, steps, pipes.error)
    confine.run(request["argv"], environment, request["confinement"], steps)


def _new_keyring() -> None:
    try:
        linux.keyctl_join_session_keyring()
    except OSError:
        pass  # no keyrings in this kernel, or the quota is used up: the filter forbids keyctl anyway


def _join_cgroups(request: StartRequest, place: scene.Place, pipes: Pipes, root: int, steps: confine.Steps) -> None:
    """Wait until the shim has made them and set their limits, then move in by ourselves.

    A single-threaded process that writes 0 into `tasks` moves without the thread-group lock, which costs others an RCU grace period (12
    ms).
    """
    steps.at = "wait for the shim"
    if os.read(pipes.go, 1) != b"g":
        raise OSError(errno.ECHILD, "the supervisor ended")  # nobody would ever know of us
    steps.at = "cgroups"
    for _, directory in place.cgroups:
        tasks = os.open(directory + b"/tasks", os.O_WRONLY | os.O_CLOEXEC)
        os.write(tasks, b"0")
        os.close(tasks)
    linux.unshare(linux.CLONE_NEWCGROUP)
    steps.at = "/sys/fs/cgroup"
    scene.show_cgroups(request, place, root)


def _pivot(root: int) -> None:
    """Put the root below, then let go of the host's: "." twice needs no directory inside the image."""
    os.fchdir(root)
    linux.pivot_root(b".", b".")
    linux.umount2(b".", linux.MNT_DETACH)
    os.chdir(b"/")


def _settle(request: StartRequest, proc: int, null: int, steps: confine.Steps) -> None:
    steps.at = "hostname"
    if request["hostname"]:
        _socket.sethostname(request["hostname"].decode())
    if request["isolated_network"]:
        steps.at = "loopback"
        _loopback_up()
    for name, value in request["sysctls"]:
        steps.at = f"sysctl {name.decode()}"
        _write_sysctl(proc, name, value)
    steps.at = "masked paths"
    for path in request["read_only_paths"]:
        scene.make_read_only(path)
    scene.mask(request["masked"], null)
    if request["read_only"]:
        steps.at = "read-only root"
        flags = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | (linux.MS_NODEV if request["nodev"] else 0)
        linux.mount(None, b"/", None, flags)


def _loopback_up() -> None:
    """struct ifreq is a name of 16 bytes and a union of 24."""
    udp = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    interface = bytearray(pack("=16sh22x", b"lo", IFF_UP))
    fcntl.ioctl(udp.fileno(), SIOCSIFFLAGS, interface)
    udp.close()


def _write_sysctl(proc: int, name: bytes, value: bytes) -> None:
    """Through the procfs we mounted ourselves: nothing can lead elsewhere from there (CVE-2025-52881)."""
    fd = os.open(b"sys/" + name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=proc)
    os.write(fd, value)
    os.close(fd)


def _standard_streams(request: StartRequest, pipes: Pipes, null: int, uid: int, steps: confine.Steps) -> None:
    steps.at = "standard streams"
    os.setsid()
    if request["tty"]:
        return _terminal(pipes, uid)
    os.dup2(null, 0)
    os.dup2(pipes.out, 1)
    os.dup2(pipes.err, 2)
    for fd in (1, 2):
        os.fchown(fd, uid, -1)  # so that /dev/stdout can be opened again
    return None


def _terminal(pipes: Pipes, uid: int) -> None:
    """A pts of the container's own devpts. The slave comes from the master, not from a path (CVE-2025-52565)."""
    master = os.open(b"/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, TIOCSPTLCK, pack("i", 0))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(slave, TIOCSWINSZ, pack("4H", 24, 80, 0, 0))
    os.close(os.open(b"/dev/console", os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, 0o600))
    console = os.open(b"/dev/console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    mounts.attach(scene.tree_of(slave), console, 0, about=b"/dev/console")
    carrier = _socket.socket(fileno=pipes.tty)
    carrier.sendmsg([b"t"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack("i", master))])
    os.fchown(slave, uid, 5)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    fcntl.ioctl(0, TIOCSCTTY, 0)
