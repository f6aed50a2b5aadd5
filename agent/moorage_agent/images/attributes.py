"""Owner, extended attributes, mode and times of a file, in the order in which the kernel does not undo them.

chown(2) clears set-user-id bits and file capabilities, so it comes first; a write would too, so content comes before all of it.
"""

from __future__ import annotations

import errno
import os

from moorage_agent.errors import ImageError
from moorage_agent.images.tar import Entry


def apply_attributes(fd: int, entry: Entry) -> str | None:
    """To an open file or directory, times apart. Returns a warning when the file system cannot hold the extended attributes."""
    os.fchown(fd, entry.uid, entry.gid)
    warning = apply_xattrs(fd, entry.xattrs) if entry.xattrs else None
    os.fchmod(fd, entry.mode)
    return warning


def apply_xattrs(fd: int, xattrs: dict[bytes, bytes]) -> str | None:
    """Those an image may set. The rest would speak to the host: overlayfs, SELinux, access control lists, NFS."""
    warning = None
    for name, value in xattrs.items():
        if not _allowed(name):
            warning = f"extended attributes like {name[:60].decode(errors='replace')} were dropped"
            continue
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EINVAL):
                raise
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise ImageError(
                    "InvalidImage", f"the extended attribute {name[:60]!r} of a file cannot be set: {error.strerror}"
                ) from error
            warning = f"extended attributes like {name[:60].decode(errors='replace')} could not be set: {error.strerror}"
    return warning


def _allowed(name: bytes) -> bool:
    return b"\0" not in name and (name == b"security.capability" or (name.startswith(b"user.") and not name.startswith(b"user.overlay.")))


def kept_xattrs(fd: int) -> tuple[tuple[bytes, bytes], ...]:
    """Those of a file of ours that an image may have set."""
    try:
        names = sorted(map(os.fsencode, os.listxattr(fd)))
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return ()
        raise
    return tuple((name, os.getxattr(fd, name)) for name in names if _allowed(name))
