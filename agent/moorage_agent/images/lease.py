"""What running pulls need, so that a sweep beside them takes none of it. A lease lasts as long as the process that holds its lock."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Lease:
    """Names grow by `add`, under the store's lock: a sweep has either ended before and the names are to be looked up after, or waits."""

    def __init__(self, directory: str, lock_file: str) -> None:
        self._lock_file = lock_file
        self._names: set[str] = set()
        with store_lock(lock_file, exclusive=False):
            self._fd, self._path = tempfile.mkstemp(dir=directory)
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def add(self, names: Iterable[str]) -> None:
        self._names.update(names)
        data = json.dumps(sorted(self._names)).encode()
        with store_lock(self._lock_file, exclusive=False):
            os.pwrite(self._fd, data, 0)

    def end(self) -> None:
        os.unlink(self._path)
        os.close(self._fd)


def leased(directory: str) -> set[str]:
    """All names of the living; leases of the dead are removed. To be called under the exclusive store lock."""
    names: set[str] = set()
    for name in os.listdir(directory):
        path = f"{directory}/{name}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        except FileNotFoundError:
            pass
        except BlockingIOError:
            names.update(json.loads(os.read(fd, 1 << 20) or b"[]"))
        finally:
            os.close(fd)
    return names


@contextmanager
def store_lock(path: str, *, exclusive: bool) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)
