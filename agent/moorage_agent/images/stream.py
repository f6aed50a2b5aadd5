"""Bytes read in exact amounts from pieces of any size, hashed as they pass."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Callable

from moorage_agent.errors import ImageError


class ByteStream:
    """`count` is told of each piece as it arrives, and may raise: the place for budgets. Holds one piece at a time."""

    def __init__(self, pieces: Iterator[bytes], count: Callable[[int], None] = lambda _: None) -> None:
        self._pieces = pieces
        self._count = count
        self._hash = hashlib.sha256()
        self._piece = b""
        self._view = memoryview(b"")
        self._at = 0

    def digest(self) -> str:
        """Of all that was read so far, and of the rest of the piece being read: call it after `drain`."""
        return "sha256:" + self._hash.hexdigest()

    def block(self) -> bytes:
        """512 bytes, or fewer at the end."""
        at = self._at
        if at + 512 <= len(self._piece):
            self._at = at + 512
            return self._piece[at : at + 512]
        return self._gather(512)

    def take(self, size: int) -> bytes:
        """Raises ImageError(InvalidImage) when the stream ends before."""
        data = self._gather(size)
        if len(data) < size:
            raise _short()
        return data

    def skip(self, size: int) -> None:
        while size:
            size -= len(self._some(size))

    def copy(self, size: int, fd: int) -> None:
        """Write the next `size` bytes at the position of `fd`."""
        while size:
            some = self._some(size)
            size -= len(some)
            while some:  # write(2) may write less than asked, at a full disk or a signal
                some = some[os.write(fd, some) :]

    def drain(self) -> None:
        """Read to the end: what follows the archive belongs to its digest."""
        while self._more():
            pass
        self._at = len(self._piece)

    def _some(self, most: int) -> memoryview:
        if self._at >= len(self._piece) and not self._more():
            raise _short()
        start, self._at = self._at, min(self._at + most, len(self._piece))
        return self._view[start : self._at]

    def _gather(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size and (self._at < len(self._piece) or self._more()):
            data += self._some(size - len(data))
        return bytes(data)

    def _more(self) -> bool:
        for piece in self._pieces:
            if piece:
                self._count(len(piece))
                self._hash.update(piece)
                self._piece, self._view, self._at = piece, memoryview(piece), 0
                return True
        return False


def _short() -> ImageError:
    return ImageError("InvalidImage", "a layer's tar data ends too early", 60)
