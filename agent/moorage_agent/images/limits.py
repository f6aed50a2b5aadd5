"""How much an image may cost this host. An image is hostile input: 1 MB of gzip can say 1 GB of zeros, or a million directories."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Callable

from moorage_agent.errors import ImageError


@dataclass(frozen=True)
class Limits:
    """Bytes, counts. `reserve`: what must stay free on the store's file system. `ratio` is checked once `ratio_after` bytes came out."""

    unpacked: int = 20 << 30
    entries: int = 1_000_000
    ratio: int = 200
    ratio_after: int = 100 << 20
    reserve: int = 512 << 20
    reserve_inodes: int = 5_000


DEFAULT = Limits()


class Budget:
    """What is left of the limits for one image; its layers are unpacked by several threads and share it."""

    def __init__(self, limits: Limits, free: Callable[[], tuple[int, int]]) -> None:
        self.limits = limits
        self._free = free
        self._lock = threading.Lock()
        self._bytes = self._entries = 0
        self._look_again_at = 0

    def spend(self, count: int, *, entries: int = 0) -> None:
        """Raises ImageError(InvalidImage) past a limit, ImageError(DiskFull) when the file system runs low."""
        with self._lock:
            self._bytes += count
            self._entries += entries
            look = self._bytes + 16384 * self._entries >= self._look_again_at
            if look:
                self._look_again_at = self._bytes + 16384 * self._entries + (64 << 20)
        if self._bytes > self.limits.unpacked:
            raise ImageError("InvalidImage", f"the image unpacks to more than {self.limits.unpacked >> 20} MiB, which this host allows")
        if self._entries > self.limits.entries:
            raise ImageError("InvalidImage", f"the image has more than {self.limits.entries} files, which this host allows")
        if look:
            self.check_room()

    def check_room(self, needed: int = 0) -> None:
        """Raises ImageError(DiskFull) unless `needed` bytes fit and the reserve stays free."""
        free, inodes = self._free()
        if free - needed < self.limits.reserve:
            raise disk_full(f"{free >> 20} MiB are free, {(needed + self.limits.reserve) >> 20} MiB are needed")
        if inodes < self.limits.reserve_inodes:
            raise disk_full(f"{inodes} inodes are free")


def free_on(directory: str) -> Callable[[], tuple[int, int]]:
    """Bytes and inodes free below `directory`. File systems without fixed inodes (btrfs) report 0 of 0: never short of them."""

    def look() -> tuple[int, int]:
        fs = os.statvfs(directory)
        return fs.f_bavail * fs.f_frsize, fs.f_favail if fs.f_files else 1 << 40

    return look


def disk_full(why: str) -> ImageError:
    return ImageError("DiskFull", f"no room for the image: {why}; free space on the host, or remove images", 60)
