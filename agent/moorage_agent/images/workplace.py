"""The place where one layer is made, by one process or thread at a time: a directory under making/, locked while its maker lives."""

from __future__ import annotations

import contextlib
import fcntl
import os

from moorage_agent.images.layer import Layer
from moorage_agent.images.tree import remove_at


class Workplace:
    """`fs`: an empty directory to unpack to. Becomes a layer by being renamed, so the content must be on disk before `publish`."""

    def __init__(self, path: str, fd: int) -> None:
        self.path, self._fd = path, fd
        self.fs = f"{path}/fs"

    @staticmethod
    def claim(path: str) -> Workplace | None:
        """The workplace at `path`, cleared of all but downloads to resume. None while somebody else is at it."""
        while True:
            fd = _made(path)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
            if _is_at(path, fd):
                place = Workplace(path, fd)
                place._clear(0.0)
                os.mkdir(place.fs)
                return place
            os.close(fd)  # its maker published or removed it between our open and our lock

    def part(self, blob: str) -> str:
        """Where the bytes of the blob (64 hex digits) are kept while they come."""
        return f"{self.path}/{blob}.part"

    def begin_again(self) -> None:
        remove_at(self._fd, b"fs")
        os.mkdir(self.fs)

    def finish(self, layer: Layer) -> None:
        """Say what was made. The next step is to sync the file system."""
        for name in os.listdir(self._fd):
            if name.endswith(".part"):
                os.unlink(name, dir_fd=self._fd)
        with open(f"{self.path}/ok", "wb") as file:
            file.write(layer.to_json())

    def publish(self, path: str) -> None:
        os.rename(self.path, path)
        self.release()

    def release(self) -> None:
        """Free for others; what was unpacked goes, what was downloaded stays."""
        if self._fd >= 0:
            if _is_at(self.path, self._fd):
                self._clear(0.0)
            os.close(self._fd)
            self._fd = -1

    def _clear(self, keep_since: float) -> None:
        for name in os.listdir(self._fd):
            if not name.endswith(".part") or os.lstat(name, dir_fd=self._fd).st_mtime < keep_since:
                remove_at(self._fd, name)

    def abandon(self, *, keep_since: float) -> None:
        """Remove older downloads too, and the workplace itself when nothing is left."""
        self._clear(keep_since)
        if not os.listdir(self._fd):
            os.rmdir(self.path)
        os.close(self._fd)
        self._fd = -1


def clear_workplaces(making: str, *, keep_since: float) -> None:
    """What dead makers left, downloads since then apart. The living hold their locks."""
    for name in os.listdir(making):
        place = Workplace.claim(f"{making}/{name}")
        if place is not None:
            place.abandon(keep_since=keep_since)


def _made(path: str) -> int:
    while True:
        os.makedirs(path, mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # published by its maker just now
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _is_at(path: str, fd: int) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return there.st_ino == os.fstat(fd).st_ino
