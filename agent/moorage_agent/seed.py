"""What a new named volume begins with: the image's own directory at the place it is mounted on, its owner and mode first of all.

Without it a program that does not run as root could not write to its volume. Layers are hostile: no symbolic link of theirs is followed,
every step is one name from an open directory. Device nodes and set-user-id bits are left behind: they would have no power in a volume.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from moorage_agent.images.merged import Merged
from moorage_agent.images.tree import is_whiteout

_INTO = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 24


def seed(volume: str, layers: Sequence[str], target: str) -> None:
    """Fill the empty directory `volume` with what the image has at `target`; nothing there: nothing happens. Raises OSError."""
    merged = Merged(layers)
    try:
        into = os.open(volume, _INTO)
        try:
            _copy_directory(merged, os.fsencode(os.path.normpath(target).strip("/")), into)
        finally:
            os.close(into)
    finally:
        merged.close()


def _copy_directory(merged: Merged, path: bytes, into: int) -> None:
    found = merged.directories(path)
    if not found:
        return
    names = {os.fsencode(name) for one in found for name in os.listdir(one.fd)}
    status = os.fstat(found[0].fd)
    for name in sorted(names):
        _copy(merged, path + b"/" + name, name, into)
    os.fchown(into, status.st_uid, status.st_gid)
    os.fchmod(into, stat.S_IMODE(status.st_mode) & 0o1777)
    os.utime(into, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy(merged: Merged, path: bytes, name: bytes, into: int) -> None:
    there = merged.lookup(path)
    if there is None:
        return
    found, status = there
    if is_whiteout(status):
        return
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(name, 0o700, dir_fd=into)
        below = os.open(name, _INTO, dir_fd=into)
        try:
            _copy_directory(merged, path, below)
        finally:
            os.close(below)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=found.fd), name, dir_fd=into)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=into, follow_symlinks=False)
    elif stat.S_ISREG(status.st_mode):
        _copy_file(found.fd, name, status, into)


def _copy_file(directory: int, name: bytes, status: os.stat_result, into: int) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    target = -1
    try:
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=into)
        _copy_bytes(source, target)
        os.fchown(target, status.st_uid, status.st_gid)
        os.fchmod(target, stat.S_IMODE(status.st_mode) & 0o1777)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(source)
        if target >= 0:
            os.close(target)


def _copy_bytes(source: int, target: int) -> None:
    """By sharing extents where the file system can, else inside the kernel."""
    try:
        while os.copy_file_range(source, target, _CHUNK):
            pass
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        while os.sendfile(target, source, None, _CHUNK):
            pass
