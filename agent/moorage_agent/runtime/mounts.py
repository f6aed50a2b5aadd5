"""The file system a container sees, built in its own mount namespace. Bytes paths and descriptors only; nothing here decides.

An image is not to be trusted: every target inside it is opened by the kernel with the root as the end of all paths (openat2), and mounts
are attached to the descriptor that was opened, never to a path that could mean another place a moment later.
"""

from __future__ import annotations

import errno
import os
import stat

from moorage_agent.runtime import linux

IN_ROOT = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_OVERLAY = (b"redirect_dir", b"nofollow"), (b"metacopy", b"off")  # what an upper layer says about other directories is not believed


def overlay(layers: list[bytes], upper: bytes, work: bytes, target: bytes, *, nodev: bool) -> int:
    """Mount the root of a container on the directory `target`; returns a descriptor of it. `layers`: topmost first.

    volatile (5.10): without it the last unmount writes back the whole upper file system, 150 ms beside a busy disk.
    """
    attributes = linux.MOUNT_ATTR_NODEV if nodev else 0
    try:
        tree = _overlay_tree(layers, upper, work, attributes)
    except OSError as error:
        if error.errno != errno.EINVAL and error.errno != errno.ENOSYS:
            raise
        return _overlay_by_options(layers, upper, work, target, nodev=nodev)
    directory = os.open(target, DIRECTORY)
    linux.move_mount(tree, directory, about=target)
    os.close(directory)
    return tree


def _overlay_tree(layers: list[bytes], upper: bytes, work: bytes, attributes: int) -> int:
    """Linux 6.5: each layer is a setting of its own, so neither their number nor the length of their names is bound by a page."""
    fs = linux.fsopen(b"overlay")
    try:
        for layer in layers:
            linux.fsconfig(fs, linux.FSCONFIG_SET_STRING, b"lowerdir+", layer)
        for key, value in ((b"upperdir", upper), (b"workdir", work), *_OVERLAY):
            linux.fsconfig(fs, linux.FSCONFIG_SET_STRING, key, value)
        linux.fsconfig(fs, linux.FSCONFIG_SET_FLAG, b"volatile")
        linux.fsconfig(fs, linux.FSCONFIG_CMD_CREATE)
        return linux.fsmount(fs, attributes)
    finally:
        os.close(fs)


def _overlay_by_options(layers: list[bytes], upper: bytes, work: bytes, target: bytes, *, nodev: bool) -> int:
    """The options of mount(2) are one page: layers are named by descriptor, 17 bytes each."""
    fds = [os.open(layer, DIRECTORY) for layer in layers]
    lower = b":".join(b"/proc/self/fd/%d" % fd for fd in fds)
    options = [b"lowerdir=" + lower, b"upperdir=" + upper, b"workdir=" + work, *(key + b"=" + value for key, value in _OVERLAY)]
    flags = linux.MS_NODEV if nodev else 0
    try:
        linux.mount(b"overlay", target, b"overlay", flags, b",".join([*options, b"volatile"]))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        linux.mount(b"overlay", target, b"overlay", flags, b",".join(options))
    for fd in fds:
        os.close(fd)
    return os.open(target, DIRECTORY)


def open_in(root: int, path: bytes, flags: int = os.O_PATH, *, follow: bool = True) -> int:
    """Open `path` with `root` as the end of all paths: absolute links and .. cannot leave it. Linux before 5.6: no links at all."""
    flags |= os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        return linux.openat2(root, path.lstrip(b"/") or b".", flags, IN_ROOT)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    return _walk(root, path, flags)


def _walk(root: int, path: bytes, flags: int) -> int:
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise OSError(errno.EINVAL, "a path inside an image holds ..", path)
    fd = os.open(b".", DIRECTORY, dir_fd=root)
    for at, name in enumerate(names):
        last = at == len(names) - 1
        following = os.open(name, (flags if last else DIRECTORY) | os.O_NOFOLLOW, dir_fd=fd)
        os.close(fd)
        fd = following
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise OSError(errno.ELOOP, "this kernel cannot follow links inside an image safely (openat2 came with Linux 5.6)", path)
    return fd


def make_directory(root: int, path: bytes, mode: int = 0o755) -> int:
    """A descriptor of the directory `path` inside `root`, made with its parents where missing."""
    try:
        return open_in(root, path, DIRECTORY)
    except FileNotFoundError:
        pass
    parent_path, _, name = path.rstrip(b"/").rpartition(b"/")
    if name in (b"", b".", b".."):
        raise OSError(errno.EINVAL, "a path inside the container ends in .. or nothing", path)
    parent = make_directory(root, parent_path, mode)
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        pass  # a dangling link: opening it again says ENOENT
    finally:
        os.close(parent)
    return open_in(root, path, DIRECTORY)


def make_file(root: int, path: bytes) -> int:
    """A descriptor of the file `path` inside `root`, made empty where missing."""
    try:
        return open_in(root, path)
    except FileNotFoundError:
        pass
    parent_path, _, name = path.rpartition(b"/")
    parent = make_directory(root, parent_path)
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))
    finally:
        os.close(parent)
    return open_in(root, path)


def write_file(root: int, directory: bytes, name: bytes, content: bytes) -> None:
    """Put a regular file into the root itself, in place of whatever the image has there; links are not followed."""
    parent = make_directory(root, directory)
    try:
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent)
        os.write(fd, content)
        os.close(fd)
    finally:
        os.close(parent)


def attach(tree: int, target: int, attributes: int, *, about: bytes) -> None:
    """Attach the detached mount `tree` on `target` with MOUNT_ATTR_* `attributes`, on everything below it too; closes both.

    It becomes private: the copy of a mount that the host shares, as systemd makes it share all, would pass on what is mounted inside of it,
    to the host and to every other container that has one.
    """
    at_once = _set_attributes(tree, attributes)
    linux.move_mount(tree, target, about=about)
    if not at_once:
        _change_attached(tree, attributes)
    os.close(tree)
    os.close(target)


def _set_attributes(tree: int, attributes: int) -> bool:
    """False before Linux 5.12."""
    try:
        linux.mount_setattr(tree, b"", linux.AT_EMPTY_PATH | linux.AT_RECURSIVE, attr_set=attributes, propagation=linux.MS_PRIVATE)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return False
    return True


def _change_attached(mount: int, attributes: int) -> None:
    """The older way, attributes on the top of the mount only: MOUNT_ATTR_ and MS_ have the same values for ro, nosuid, nodev and noexec."""
    path = b"/proc/self/fd/%d" % mount
    linux.mount(None, path, None, linux.MS_REC | linux.MS_PRIVATE)
    if attributes:
        linux.mount(None, path, None, linux.MS_REMOUNT | linux.MS_BIND | attributes & 15)


def require_directory(root: int, name: bytes) -> None:
    """`name` in the root is a real directory, made if missing: a link here would put kernel file systems where the image wants them."""
    try:
        mode = os.stat(name, dir_fd=root, follow_symlinks=False).st_mode
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=root)
        return
    if not stat.S_ISDIR(mode):
        raise OSError(errno.ENOTDIR, f"the image has no directory /{name.decode()} but something else of that name", name)


def read_file(root: int, path: bytes, limit: int) -> bytes:
    """A regular file of the image, b"" when there is none or it is something else (a pipe would block, a device act)."""
    try:
        fd = open_in(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        chunks = []
        while limit > 0 and (chunk := os.read(fd, min(limit, 65536))):
            chunks.append(chunk)
            limit -= len(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)
