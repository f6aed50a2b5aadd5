"""What a new named volume begins with: the image's own directory at the place it is mounted on, its owner and mode first of all.

Without it a program that does not run as root could not write to its volume. Layers are hostile: no symbolic link of theirs is followed,
every step is one name from an open directory. Device nodes and set-user-id bits are left behind: they would have no power in a volume.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from moorage_agent.errors import AgentError, ImageError, InvalidTask
from moorage_agent.images.copying import copy_data
from moorage_agent.images.limits import Budget, Limits, free_on
from moorage_agent.images.merged import Merged
from moorage_agent.images.tree import is_whiteout

_INTO = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# A file of the image with many names is copied once for each. The reserve is less than an image's: most volumes begin with little.
_LIMITS = Limits(reserve=64 << 20, reserve_inodes=500)


def seed(volume: str, layers: Sequence[str], target: str, *, limits: Limits = _LIMITS) -> None:
    """Fill the empty directory `volume` with what the image has at `target`; nothing there: nothing happens.

    Raises OSError, InvalidTask (InvalidVolume) when it is more than `limits`, AgentError (DiskFull).
    """
    merged = Merged(layers)
    try:
        into = os.open(volume, _INTO)
        try:
            _copy_directory(merged, os.fsencode(os.path.normpath(target).strip("/")), into, Budget(limits, free_on(volume)))
        finally:
            os.close(into)
    except ImageError as error:
        text = f"a new volume cannot begin with what the image has at {target}: {error.message}"
        raise AgentError(error.code, text) if error.code == "DiskFull" else InvalidTask("InvalidVolume", text) from error
    finally:
        merged.close()


def _copy_directory(merged: Merged, path: bytes, into: int, budget: Budget) -> None:
    found = merged.directories(path)
    if not found:
        return
    names = {os.fsencode(name) for one in found for name in os.listdir(one.fd)}
    status = os.fstat(found[0].fd)
    for name in sorted(names):
        _copy(merged, path + b"/" + name, name, into, budget)
    os.fchown(into, status.st_uid, status.st_gid)
    os.fchmod(into, stat.S_IMODE(status.st_mode) & 0o1777)
    os.utime(into, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy(merged: Merged, path: bytes, name: bytes, into: int, budget: Budget) -> None:
    there = merged.lookup(path)
    if there is None:
        return
    found, status = there
    if is_whiteout(status):
        return
    budget.spend(0, entries=1)
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(name, 0o700, dir_fd=into)
        below = os.open(name, _INTO, dir_fd=into)
        try:
            _copy_directory(merged, path, below, budget)
        finally:
            os.close(below)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=found.fd), name, dir_fd=into)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=into, follow_symlinks=False)
    elif stat.S_ISREG(status.st_mode):
        _copy_file(found.fd, name, status, into, budget)


def _copy_file(directory: int, name: bytes, status: os.stat_result, into: int, budget: Budget) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    target = -1
    try:
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=into)
        copy_data(source, target, status.st_size, budget.spend)
        os.fchown(target, status.st_uid, status.st_gid)
        os.fchmod(target, stat.S_IMODE(status.st_mode) & 0o1777)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(source)
        if target >= 0:
            os.close(target)
