"""Files that were kept because they may be wanted again. Apart from download.py: the daemon tidies, and must not load a TLS library."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection
from contextlib import suppress

KEPT_S = 24 * 3600.0
KEPT_ON_FULL_DISK_S = 3600.0
"""Longer than a registry's rate limit keeps half a download from going on: to begin anew fills the disk again."""

PART = "part."
"""Begins the names of downloads that come; who downloads holds a lock on the file (flock), which ends with the process."""


def drop_old_downloads(directory: str, *, keep_since: float) -> None:
    """Whole ones that are older than `keep_since`, and those which nobody finishes any more."""
    parts = [name for name in os.listdir(directory) if name.startswith(PART)]
    for name in parts:
        with suppress(FileNotFoundError, BlockingIOError):  # it was finished just now; it is being finished
            _drop_unlocked(f"{directory}/{name}")
    drop_old(directory, keep_since=keep_since, wanted=parts)


def drop_old(directory: str, *, keep_since: float, wanted: Collection[str]) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # others rename and remove here
                if entry.name not in wanted and entry.stat().st_mtime < keep_since:
                    os.unlink(entry.path)


def _drop_unlocked(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(fd)
