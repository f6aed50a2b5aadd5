"""What a container sees: its root with /proc, /dev and /sys, what its author mounts, its cgroups, and what of the host is covered.

Called by init in this order, in its own mount namespace, most of it before the root is entered. Targets that an image could turn into
links are opened inside the root (mounts.py); what is attached is attached to descriptors.
"""

from __future__ import annotations

import errno
import os
import stat

from moorage_agent.runtime import confine, linux, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from moorage_agent.runtime.request import StartRequest

NODES = ((b"null", 1, 3), (b"zero", 1, 5), (b"full", 1, 7), (b"random", 1, 8), (b"urandom", 1, 9), (b"tty", 5, 0))
LINKS = ((b"/proc/self/fd", b"fd"), (b"/proc/self/fd/0", b"stdin"), (b"/proc/self/fd/1", b"stdout"), (b"/proc/self/fd/2", b"stderr"))
NO_SUID_DEV_EXEC = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC


class Place:
    """Where the pieces of this container are on the host. `cgroups` are of version 1: (names below /sys/fs/cgroup, directory)."""

    __slots__ = ("cgroups", "last_cap", "root", "upper", "v2_cgroup", "work")

    def __init__(self, task_dir: bytes, run: int) -> None:
        base = b"%b/root-%d" % (task_dir, run)
        self.root, self.upper, self.work = base + b"/merged", base + b"/upper", base + b"/work"
        self.cgroups: list[tuple[bytes, bytes]] = []
        self.v2_cgroup = b""
        self.last_cap = 40


def make_root(request: StartRequest, place: Place, steps: confine.Steps) -> int:
    """The overlay, with the few files every container needs, as a descriptor; the working directory is on it."""
    steps.at = "root"
    root = mounts.overlay(request["layers"], place.upper, place.work, place.root, nodev=request["nodev"])
    os.fchdir(root)
    steps.at = "files in /etc"
    for directory, name, content in request["files"]:
        mounts.write_file(root, directory, name, content)
    return root


def kernel_file_systems(request: StartRequest, root: int, steps: confine.Steps) -> int:
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


def user_mounts(request: StartRequest, root: int, binds: list[int], steps: confine.Steps) -> None:
    plain = 0 if request["privileged"] else linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV
    proc = os.stat(b"proc", dir_fd=root).st_dev
    read_only_later = []
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
            _, _, size, mode, read_only = mount
            place = mounts.make_directory(root, target)
            _keep_off(proc, place, target)
            options = f"mode={mode:o}" + ("" if size is None else f",size={size}")
            linux.mount(b"tmpfs", b"/proc/self/fd/%d" % place, b"tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)
            os.close(place)
            if read_only:
                read_only_later.append(mounts.open_in(root, target, mounts.DIRECTORY))
    for place in read_only_later:  # now that what is mounted inside has its directories
        flags = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV
        linux.mount(None, b"/proc/self/fd/%d" % place, None, flags)
        os.close(place)


def _keep_off(proc: int, place: int, target: bytes) -> None:
    """No link of the image may lead a mount into /proc: what we write there later would end up in it (CVE-2025-52881)."""
    if os.fstat(place).st_dev == proc:
        raise OSError(errno.EPERM, "the image leads this mount into /proc", target)


def show_cgroups(request: StartRequest, place: Place, root: int) -> None:
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


def tree_of(fd: int) -> int:
    return linux.open_tree(fd, b"", linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | linux.AT_EMPTY_PATH)


def make_read_only(path: bytes) -> None:
    try:
        linux.mount(path, path, None, linux.MS_BIND | linux.MS_REC)
    except FileNotFoundError:
        return
    linux.mount(None, path, None, linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | NO_SUID_DEV_EXEC)


def mask(paths: list[bytes], null: int) -> None:
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
            source = tree_of(null)
        elif empty < 0:
            linux.mount(b"tmpfs", b"/proc/self/fd/%d" % target, b"tmpfs", NO_SUID_DEV_EXEC | linux.MS_RDONLY, b"nr_blocks=1,nr_inodes=2")
            empty = os.open(path, mounts.DIRECTORY)
            os.close(target)
            continue
        else:
            source = tree_of(empty)
        mounts.attach(source, target, 0, about=path)
