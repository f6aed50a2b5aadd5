"""Reading tar as a stream: POSIX ustar and pax, GNU, star and the oldest, as Go's archive/tar reads them (it wrote most images).

Sources: POSIX.1-2017 pax "ustar Interchange Format"; GNU tar manual, "Basic Tar Format" and "Storing Sparse Files". The standard library's
tarfile is not used: it costs twice the time, and its extraction filters were escaped more than once (CVE-2007-4559, CVE-2025-4517).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from moorage_agent.errors import ImageError
from moorage_agent.images.pax import Pax, parse_pax
from moorage_agent.images.sparse import MAX_PIECES, SparseMap, gnu_map, gnu_more, pax_map, pax_map_in_data

FILE, DIRECTORY, SYMLINK, HARDLINK, FIFO, DEVICE = "file", "directory", "symlink", "hard link", "fifo", "device"

_MAX_EXTENSION = 1 << 20
_KINDS = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,
    b"S": FILE,
    b"1": HARDLINK,
    b"2": SYMLINK,
    b"3": DEVICE,
    b"4": DEVICE,
    b"5": DIRECTORY,
    b"6": FIFO,
}
_NOT_FILES = b"gDMV"  # global pax headers (ignored, as docker does), GNU dump directories, continuations, volume labels
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_ZEROS = bytes(512)


class Entry(NamedTuple):
    """One member. `stored` bytes of it follow in the stream; `sparse` says where in a file of `size` bytes they go."""

    name: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    stored: int
    link: bytes
    xattrs: dict[bytes, bytes]
    sparse: SparseMap | None


class Stream(Protocol):
    """stream.ByteStream, or a file in which skipping is free."""

    def block(self) -> bytes: ...

    def take(self, size: int) -> bytes: ...

    def skip(self, size: int) -> None: ...

    def copy(self, size: int, fd: int) -> None: ...


class TarReader:
    """Iterate over entries; between two, `stream` may be read for at most the `stored` bytes of the last one through `content`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._unread = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        """Raises ImageError(InvalidImage) for what is no tar."""
        pax, long_name, long_link = Pax(), b"", b""
        while (block := self._next_header()) is not None:
            kind = block[156:157]
            if kind in (b"x", b"X"):
                pax = parse_pax(self._extension(block))
            elif kind == b"L":
                long_name = self._extension(block).rstrip(b"\0")
            elif kind == b"K":
                long_link = self._extension(block).rstrip(b"\0")
            elif kind in _NOT_FILES:
                self._expect(_number(block[124:136]))
            else:
                yield self._entry(block, pax, long_name, long_link)
                pax, long_name, long_link = Pax(), b"", b""

    def content(self, size: int, fd: int) -> None:
        """Write the next `size` stored bytes of the entry at the position of `fd`."""
        if size > self._unread:
            raise ImageError("InvalidImage", "a layer's sparse file maps more data than it has")
        self._stream.copy(size, fd)
        self._unread -= size

    def _next_header(self) -> bytes | None:
        """None at the end: two blocks of zeros, or the end of the stream, which Go's reader takes too."""
        self._stream.skip(self._unread + self._padding)
        self._unread = self._padding = 0
        block = self._stream.block()
        if block == _ZEROS:
            if self._stream.block().strip(b"\0"):
                raise ImageError("InvalidImage", "a layer's tar data goes on after a block of zeros")
            return None
        if not block:
            return None
        if len(block) < 512 or not _checksum_right(block):
            raise ImageError("InvalidImage", "a layer is no tar archive, or a broken one: a header's checksum is wrong")
        return block

    def _expect(self, size: int) -> None:
        if size < 0:
            raise ImageError("InvalidImage", "a layer's tar header has a negative size")
        self._unread, self._padding = size, -size % 512

    def _extension(self, block: bytes) -> bytes:
        self._expect(_number(block[124:136]))
        if self._unread > _MAX_EXTENSION:
            raise ImageError(
                "InvalidImage", f"a layer's tar header extends over {self._unread} bytes, more than the {_MAX_EXTENSION} allowed"
            )
        data = self._stream.take(self._unread)
        self._unread = 0
        return data

    def _entry(self, block: bytes, pax: Pax, long_name: bytes, long_link: bytes) -> Entry:
        name, mode, uid, gid, size, mtime, _, flag, link, magic, _, _, _, _, prefix, rest = _HEADER.unpack(block)
        name, link = name.partition(b"\0")[0], link.partition(b"\0")[0]
        if magic == b"ustar\x0000" and prefix[0]:
            if rest[8:] == b"tar\0":  # star keeps times in the prefix' last 24 bytes
                prefix = prefix[:131]
            name = prefix.partition(b"\0")[0] + b"/" + name
        name, link = pax.path or long_name or name, pax.link or long_link or link
        kind = _KINDS.get(flag)
        if kind is None:
            raise ImageError("InvalidImage", f"a layer's tar data holds an entry of the unknown type {flag!r}: {name[:80]!r}")
        if kind == FILE and name.endswith(b"/") and flag == b"\0":
            kind = DIRECTORY  # tar had no type for directories before POSIX
        stored = 0
        if kind == FILE:
            stored = _number(size) if pax.size is None else pax.size
        self._expect(stored)
        sparse = self._sparse(block, flag, pax)
        return Entry(
            name=pax.sparse_name or name,
            kind=kind,
            mode=_number(mode) & 0o7777,
            uid=_owner(_number(uid) if pax.uid is None else pax.uid),
            gid=_owner(_number(gid) if pax.gid is None else pax.gid),
            mtime_ns=_number(mtime) * 1_000_000_000 if pax.mtime_ns is None else pax.mtime_ns,
            size=sparse.size if sparse else stored,
            stored=self._unread,
            link=link,
            xattrs=pax.xattrs,
            sparse=sparse,
        )

    def _sparse(self, block: bytes, flag: bytes, pax: Pax) -> SparseMap | None:
        """Reads the part of a map that lies in the stream, which in pax 1.0 is part of the stored bytes."""
        if flag == b"S":
            pieces, extended, size = gnu_map(block, _number)
            while extended and len(pieces) <= MAX_PIECES:
                more, extended = gnu_more(self._stream.take(512), _number)
                pieces += more
            return SparseMap.checked(pieces, size, stored=self._unread)
        if pax.sparse_major == 1:
            pieces = pax_map_in_data(self._map_block)
            return SparseMap.checked(pieces, pax.sparse_size, stored=self._unread)
        if pax.sparse_pieces is not None or pax.sparse_map is not None:
            return SparseMap.checked(pax_map(pax), pax.sparse_size, stored=self._unread)
        return None

    def _map_block(self) -> bytes:
        if self._unread < 512:
            raise ImageError("InvalidImage", "a layer's sparse file ends within its map")
        self._unread -= 512
        return self._stream.take(512)


def _checksum_right(block: bytes) -> bool:
    """The sum of all bytes, those of the checksum counted as blanks; old tars summed signed bytes."""
    said = _number(block[148:156])
    counted = sum(block) - sum(block[148:156]) + 8 * 32
    return said in (counted, counted - 256 * sum(1 for byte in block[:148] + block[156:] if byte > 127))


def _number(field: bytes) -> int:
    """Octal text, or GNU's base 256 when the first bit is set (the second is the sign)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") - (1 << (8 * len(field) - 1))
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise ImageError("InvalidImage", f"a layer's tar header holds {field!r} where an octal number must be")
    return int(digits, 8)


def _owner(number: int) -> int:
    """-1 and 2^32-1 mean "leave as it is" to chown(2), which would be root."""
    if not 0 <= number < 0xFFFFFFFF:
        raise ImageError("InvalidImage", f"a layer's tar data holds the user or group {number}, which no file can have")
    return number
