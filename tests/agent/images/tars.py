"""Tar archives made by the standard library, so that what is read was not written by the same hands; and the odd ones, by hand."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from typing import Any, Final

KINDS: Final = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}
Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes | str = b"", **more: Any) -> Member:
    data = content.encode() if isinstance(content, str) else content
    return member(name, "file", size=len(data), **more)[0], data


def folder(name: str, **more: Any) -> Member:
    return member(name, "dir", **{"mode": 0o755, **more})


def symlink(name: str, target: str, **more: Any) -> Member:
    return member(name, "symlink", linkname=target, **more)


def hardlink(name: str, target: str, **more: Any) -> Member:
    return member(name, "hardlink", linkname=target, **more)


def whiteout(path: str) -> Member:
    directory, _, name = path.rpartition("/")
    return file(f"{directory}/.wh.{name}" if directory else f".wh.{name}")


def opaque(path: str) -> Member:
    return file(f"{path}/.wh..wh..opq" if path else ".wh..wh..opq")


def member(name: str, kind: str, *, xattrs: dict[str, str] | None = None, **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.type = KINDS[kind]
    info.mode = 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    info.pax_headers = {**info.pax_headers, **{f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}}
    return info, b""


def tar(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002 - tarfile's own word
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def pieces(data: bytes, size: int = 65536) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def header(
    name: bytes, *, kind: bytes = b"0", size: int = 0, magic: bytes = b"ustar\x0000", changes: Iterable[tuple[int, bytes]] = ()
) -> bytes:
    """A raw header with a right checksum; `changes`: (offset, bytes) put in before it is computed."""
    block = bytearray(512)
    for at, value in (
        (0, name),
        (100, b"0000644\0"),
        (108, b"0000000\0"),
        (116, b"0000000\0"),
        (124, b"%011o\0" % size),
        (136, b"00000000000\0"),
        (148, b" " * 8),
        (156, kind),
        (257, magic),
        *changes,
    ):
        block[at : at + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(**records: bytes | str) -> bytes:
    return pax_records([(key.encode(), value.encode() if isinstance(value, str) else value) for key, value in records.items()])


def pax_records(records: Iterable[tuple[bytes, bytes]]) -> bytes:
    """An extended header block with its content."""
    body = b"".join(_record(key, value) for key, value in records)
    return header(b"PaxHeaders/x", kind=b"x", size=len(body)) + padded(body)


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


END: Final = bytes(1024)
