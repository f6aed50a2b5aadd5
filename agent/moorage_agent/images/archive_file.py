"""The members of an archive file by name, read in place. Compression is taken off first, into a file without a name."""

from __future__ import annotations

import os
import tempfile
from typing import NamedTuple

from moorage_agent.errors import ImageError
from moorage_agent.images import tar
from moorage_agent.images.compression import inflated
from moorage_agent.images.fetch import Pieces
from moorage_agent.images.limits import Budget
from moorage_agent.images.tar import TarReader
from moorage_agent.images.tree import cleaned

_CHUNK = 1 << 17
_MAX_HOPS = 16
_MAX_MEMBERS = 100_000
_MAX_DEPTH = 2  # blobs/sha256/<hex>, <id>/layer.tar


class Member(NamedTuple):
    """`link`: the member meant instead, for symbolic and hard links."""

    offset: int
    size: int
    link: bytes | None


class ArchiveFile:
    """Reads by offset, so several threads may read at once. Owns `fd`."""

    def __init__(self, fd: int, *, name: str) -> None:
        self.name = name
        self._fd = fd
        self.size = os.fstat(fd).st_size
        self._members: dict[bytes, Member] | None = None

    def close(self) -> None:
        os.close(self._fd)

    def bytes_from(self, start: int, end: int | None = None) -> Pieces:
        """Of the file itself."""
        end = self.size if end is None else end
        while start < end and (chunk := os.pread(self._fd, min(_CHUNK, end - start), start)):
            start += len(chunk)
            yield chunk

    def plain(self, directory: str, budget: Budget) -> ArchiveFile:
        """Itself when it is not compressed, else its content in a file in `directory` that is gone once it is closed."""
        if not _compressed(next(self.bytes_from(0), b"")):
            return self
        with tempfile.TemporaryFile(dir=directory) as file:
            for piece in inflated(self.bytes_from(0)):
                budget.spend(len(piece))
                file.write(piece)
            file.flush()
            return ArchiveFile(os.dup(file.fileno()), name=self.name)

    def find(self, name: str) -> Member | None:
        """The file called `name`, through links inside the archive."""
        path = cleaned(name.encode())
        for _ in range(_MAX_HOPS):
            member = self.members().get(path)
            if member is None or member.link is None:
                return member
            path = member.link
        return None

    def read(self, name: str, most: int) -> bytes | None:
        """A small file whole; None when there is none. Raises ImageError(InvalidImage) when it is larger than `most`."""
        member = self.find(name)
        if member is None:
            return None
        if member.size > most:
            raise ImageError("InvalidImage", f"{name} in {self.name} is larger than {most >> 20} MiB")
        return b"".join(self.content(member))

    def content(self, member: Member, start: int = 0) -> Pieces:
        return self.bytes_from(member.offset + start, member.offset + member.size)

    def members(self) -> dict[bytes, Member]:
        """By cleaned name, the last of equal ones; those an image archive can have. Raises ImageError(InvalidImage) when it is no tar."""
        if self._members is None:
            self._members = self._scanned()
        return self._members

    def _scanned(self) -> dict[bytes, Member]:
        cursor = _Cursor(self._fd, self.size)
        members: dict[bytes, Member] = {}
        for entry in TarReader(cursor):
            name = cleaned(entry.name)
            if name.count(b"/") > _MAX_DEPTH or len(members) >= _MAX_MEMBERS:
                continue  # a file of a root file system
            if entry.kind == tar.FILE:
                members[name] = Member(cursor.at, entry.stored, None)
            elif entry.kind == tar.HARDLINK:
                members[name] = Member(0, 0, cleaned(entry.link))
            elif entry.kind == tar.SYMLINK:
                members[name] = Member(0, 0, _beside(name, entry.link))
        return members


class _Cursor:
    """The reading side of a ByteStream, over a file: what is skipped is not read."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self._size, self.at = fd, size, 0

    def block(self) -> bytes:
        data = os.pread(self._fd, 512, self.at)
        self.at += len(data)
        return data

    def take(self, size: int) -> bytes:
        data = os.pread(self._fd, size, self.at)
        if len(data) < size:
            raise ImageError("InvalidImage", "an image archive ends too early")
        self.at += size
        return data

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > self._size:
            raise ImageError("InvalidImage", "an image archive ends too early")

    def copy(self, size: int, fd: int) -> None:
        raise NotImplementedError("members of an archive are read by offset")


def _beside(name: bytes, link: bytes) -> bytes:
    return cleaned(link if link.startswith(b"/") else name.rpartition(b"/")[0] + b"/" + link)


def _compressed(head: bytes) -> bool:
    """Whether it begins like anything but a tar: uncompressed ones have their magic number in the first header."""
    return head[257:262] != b"ustar" and head[:2] in (b"\x1f\x8b", b"\x28\xb5", b"\xfd7", b"BZ")
