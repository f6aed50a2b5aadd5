"""The first process of a container, from the clone to its program. It runs as the host's root inside the container's namespaces: nothing
may be imported, and no path of the image followed, that the kernel does not keep inside. Every failure goes to the shim through
`error_fd`.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import stat
from struct import pack

from moorage_agent.runtime import confine, linux, mounts, passwd, reaper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from moorage_agent.runtime.request import StartRequest

NODES = ((b"null", 1, 3), (b"zero", 1, 5), (b"full", 1, 7), (b"random", 1, 8), (b"urandom", 1, 9), (b"tty", 5, 0))
LINKS = ((b"/proc/self/fd", b"fd"), (b"/proc/self/fd/0", b"stdin"), (b"/proc/self/fd/1", b"stdout"), (b"/proc/self/fd/2", b"stderr"))
NO_SUID_DEV_EXEC = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
TIOCSPTLCK, TIOCGPTPEER, TIOCSCTTY, TIOCSWINSZ = 0x40045431, 0x5441, 0x540E, 0x5414
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
MAX_PASSWD = 4 * 1024 * 1024


class Pipes:
    """The descriptors an init was born with. `tty` is a socket to hand the terminal's master over, -1 without one."""

    __slots__ = ("err", "error", "go", "out", "tty")

    def __init__(self, *, go: int, error: int, tty: int) -> None:
        self.go, self.error, self.tty = go, error, tty
        self.out = self.err = -1


class Place:
    """Where the pieces of this container are on the host. `cgroups` are of version 1: (names below /sys/fs/cgroup, directory)."""

    __slots__ = ("cgroups", "last_cap", "root", "upper", "v2_cgroup", "work")

    def __init__(self, task_dir: bytes, run: int) -> None:
        base = b"%b/root-%d" % (task_dir, run)
        self.root, self.upper, self.work = base + b"/merged", base + b"/upper", base + b"/work"
        self.cgroups: list[tuple[bytes, bytes]] = []
        self.v2_cgroup = b""
        self.last_cap = 40


def run(request: StartRequest, place: Place, pipes: Pipes, binds: list[int]) -> NoReturn:
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


def _become(request: StartRequest, place: Place, pipes: Pipes, binds: list[int], steps: confine.Steps) -> None:
    steps.at = "isolate"
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    _new_keyring()
    _set_oom_score(request["confinement"]["oom_score_adj"])
    confine.lock_down()
    root = _make_root(request, place, steps)
    null = _kernel_file_systems(request, root, steps)
    _user_mounts(request, root, binds, steps)
    steps.at = "user"
    identity = passwd.resolve(
        request["confinement"]["user"],
        request["confinement"]["groups"],
        mounts.read_file(root, b"etc/passwd", MAX_PASSWD),
        mounts.read_file(root, b"etc/group", MAX_PASSWD),
    )
    steps.at = "working directory"
    os.close(mounts.make_directory(root, request["confinement"]["cwd"]))
    _join_cgroups(request, place, pipes, root, steps)
    proc = os.open(b"proc", mounts.DIRECTORY, dir_fd=root)
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


def _set_oom_score(score: int) -> None:
    fd = os.open(b"/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, b"%d" % score)
    os.close(fd)


def _make_root(request: StartRequest, place: Place, steps: confine.Steps) -> int:
    """The overlay, with the few files every container needs, as a descriptor; the working directory is on it."""
    steps.at = "root"
    root = mounts.overlay(request["layers"], place.upper, place.work, place.root, nodev=request["nodev"])
    os.fchdir(root)
    steps.at = "files in /etc"
    for directory, name, content in request["files"]:
        mounts.write_file(root, directory, name, content)
    return root


def _kernel_file_systems(request: StartRequest, root: int, steps: confine.Steps) -> int:
    """/proc, /dev, /sys. Returns a descriptor of our own /dev/null, for masks.

    Paths are relative to the root and each first name is known to be a real directory: nobody else can touch this overlay yet.
    """
    steps.at = "/proc, /dev and /sys"
    for name in (b"proc", b"dev", b"sys"):
        mounts.require_directory(root, name)
    linux.mount(b"proc", b"proc", b"proc", NO_SUID_DEV_EXEC)
    linux.mount(b"tmpfs", b"dev", b"tmpfs", linux.MS_NOSUID | linux.MS_NOEXEC, b"mode=755,size=65536k,nr_inodes=4096")
    for name in (b"dev/pts", b"dev/shm", b"dev/mqueue"):
        os.mkdir(name, 0o755)
    linux.mount(b"devpts", b"dev/pts", b"devpts", linux.MS_NOSUID | linux.MS_NOEXEC, b"newinstance,ptmxmode=0666,mode=0620,gid=5")
    linux.mount(b"sysfs", b"sys", b"sysfs", NO_SUID_DEV_EXEC | (0 if request["privileged"] else linux.MS_RDONLY))
    if request["private_ipc"]:
        linux.mount(b"shm", b"dev/shm", b"tmpfs", NO_SUID_DEV_EXEC, b"mode=1777,size=%d" % request["shm_size"])
    linux.mount(b"mqueue", b"dev/mqueue", b"mqueue", NO_SUID_DEV_EXEC)
    return _device_nodes(request)


def _device_nodes(request: StartRequest) -> int:
    os.umask(0)
    for name, major, minor in NODES:
        os.mknod(b"dev/" + name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for target, name in (*LINKS, (b"pts/ptmx", b"ptmx")):
        os.symlink(target, b"dev/" + name)
    for path, kind, major, minor, mode in request["devices"]:
        _device_node(path, kind, os.makedev(major, minor), mode)
    os.umask(0o22)
    return os.open(b"dev/null", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)


def _device_node(path: bytes, kind: str, number: int, mode: int) -> None:
    """`path` is below /dev: on the tmpfs that is ours alone."""
    parent = b""
    for name in path.split(b"/")[1:-1]:
        parent += name + b"/"
        try:
            os.mkdir(parent, 0o755)
        except FileExistsError:
            pass
    try:
        os.unlink(path[1:])
    except FileNotFoundError:
        pass
    os.mknod(path[1:], (stat.S_IFBLK if kind == "b" else stat.S_IFCHR) | mode, number)


def _user_mounts(request: StartRequest, root: int, binds: list[int], steps: confine.Steps) -> None:
    plain = 0 if request["privileged"] else linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV
    proc = os.stat(b"proc", dir_fd=root).st_dev
    for mount in request["mounts"]:
        target = mount[1]
        assert isinstance(target, bytes)
        steps.at = f"mount {target.decode(errors='replace')}"
        if mount[0] == "bind":
            _, _, index, read_only, directory = mount
            assert isinstance(index, int)
            place = mounts.make_directory(root, target) if directory else mounts.make_file(root, target)
            _keep_off(proc, place, target)
            mounts.attach(binds[index], place, plain | (linux.MOUNT_ATTR_RDONLY if read_only else 0), about=target)
        else:
            place = mounts.make_directory(root, target)
            _keep_off(proc, place, target)
            options = f"size={mount[2]},mode={mount[3]:o}".encode()
            linux.mount(b"tmpfs", b"/proc/self/fd/%d" % place, b"tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)
            os.close(place)


def _keep_off(proc: int, place: int, target: bytes) -> None:
    """No link of the image may lead a mount into /proc: what we write there later would end up in it (CVE-2025-52881)."""
    if os.fstat(place).st_dev == proc:
        raise OSError(errno.EPERM, "the image leads this mount into /proc", target)


def _join_cgroups(request: StartRequest, place: Place, pipes: Pipes, root: int, steps: confine.Steps) -> None:
    """Wait until the shim has made them and set their limits, then move in by ourselves.

    A single-threaded process that writes 0 into `tasks` moves without the thread-group lock, which costs others an RCU grace period (12
    ms).
    """
    steps.at = "wait for the shim"
    if os.read(pipes.go, 1) != b"g":
        os._exit(125)  # the shim died: nobody would ever know of us
    steps.at = "cgroups"
    for _, directory in place.cgroups:
        tasks = os.open(directory + b"/tasks", os.O_WRONLY | os.O_CLOEXEC)
        os.write(tasks, b"0")
        os.close(tasks)
    linux.unshare(linux.CLONE_NEWCGROUP)
    steps.at = "/sys/fs/cgroup"
    _show_cgroups(request, place, root)


def _show_cgroups(request: StartRequest, place: Place, root: int) -> None:
    """Its own cgroups read-only at /sys/fs/cgroup: programs read their limits there. A host without the directory shows none."""
    try:
        target = mounts.open_in(root, b"sys/fs/cgroup", mounts.DIRECTORY)
    except FileNotFoundError:
        return
    attributes = linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV | linux.MOUNT_ATTR_NOEXEC
    attributes |= 0 if request["privileged"] else linux.MOUNT_ATTR_RDONLY
    if not place.cgroups:
        mounts.attach(_tree_at(place.v2_cgroup), target, attributes, about=b"/sys/fs/cgroup")
        return
    linux.mount(b"tmpfs", b"/proc/self/fd/%d" % target, b"tmpfs", NO_SUID_DEV_EXEC, b"mode=755,size=64k")
    os.close(target)
    target = mounts.open_in(root, b"sys/fs/cgroup", mounts.DIRECTORY)
    for names, directory in place.cgroups + ([(b"unified", place.v2_cgroup)] if place.v2_cgroup else []):
        first, *others = names.split(b",")
        os.mkdir(first, 0o755, dir_fd=target)
        mounts.attach(_tree_at(directory), os.open(first, mounts.DIRECTORY, dir_fd=target), attributes, about=first)
        for other in others:
            os.symlink(first, other, dir_fd=target)
    linux.mount(None, b"/proc/self/fd/%d" % target, None, linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | NO_SUID_DEV_EXEC)
    os.close(target)


def _tree_at(path: bytes) -> int:
    """By path: a descriptor from the zygote would be of its mount namespace, and only mounts of our own can be copied."""
    return linux.open_tree(linux.AT_FDCWD, path)


def _tree(fd: int) -> int:
    return linux.open_tree(fd, b"", linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | linux.AT_EMPTY_PATH)


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
        _make_read_only(path)
    _mask(request["masked"], null)
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


def _make_read_only(path: bytes) -> None:
    try:
        linux.mount(path, path, None, linux.MS_BIND | linux.MS_REC)
    except FileNotFoundError:
        return
    linux.mount(None, path, None, linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | NO_SUID_DEV_EXEC)


def _mask(paths: list[bytes], null: int) -> None:
    """Files get our own null device, directories one empty read-only tmpfs: both attached by descriptor (CVE-2025-31133)."""
    seen = os.fstat(null)
    if not stat.S_ISCHR(seen.st_mode) or seen.st_rdev != os.makedev(1, 3):
        raise OSError(errno.EINVAL, "/dev/null is not the null device", b"/dev/null")
    empty = -1
    for path in paths:
        try:
            target = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            source = _tree(null)
        elif empty < 0:
            linux.mount(b"tmpfs", b"/proc/self/fd/%d" % target, b"tmpfs", NO_SUID_DEV_EXEC | linux.MS_RDONLY, b"nr_blocks=1,nr_inodes=2")
            empty = os.open(path, mounts.DIRECTORY)
            os.close(target)
            continue
        else:
            source = _tree(empty)
        mounts.attach(source, target, 0, about=path)


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
    mounts.attach(_tree(slave), console, 0, about=b"/dev/console")
    carrier = _socket.socket(fileno=pipes.tty)
    carrier.sendmsg([b"t"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack("i", master))])
    os.fchown(slave, uid, 5)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    fcntl.ioctl(0, TIOCSCTTY, 0)
