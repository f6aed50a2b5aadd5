"""Copying what is in a file and not its holes, inside the kernel; by sharing extents where the file system can."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Callable

_CHUNK = 1 << 24


def copy_data(source: int, target: int, size: int, spend: Callable[[int], None]) -> int:
    """Make the new file `target` hold what the first `size` bytes of `source` do; returns how many are data.

    `spend` is told of each piece before it is copied, and may raise. Raises OSError.
    """
    copied = 0
    for at, end in _stretches(source, size):
        while at < end:
            spend(min(end - at, _CHUNK))
            count = _copy(source, target, at, min(end - at, _CHUNK))
            if not count:
                break
            at += count
            copied += count
    os.ftruncate(target, size)
    return copied


def _stretches(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each stretch of data. A file system that knows no holes says that all is data."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            raise
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if start < end:
            yield start, end


def _copy(source: int, target: int, at: int, count: int) -> int:
    try:
        if hasattr(os, "copy_file_range"):  # not in every build of Python
            return os.copy_file_range(source, target, count, at, at)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    os.lseek(target, at, os.SEEK_SET)
    return os.sendfile(target, source, at, count)
