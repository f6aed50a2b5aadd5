"""Extended headers of tar: `<length> <key>=<value>\\n`, for what the old header has no room for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from moorage_agent.errors import ImageError

_XATTR = b"SCHILY.xattr."
_TIME = re.compile(rb"(-?)([0-9]{1,12})(?:\.([0-9]*))?")


@dataclass
class Pax:
    """What one extended header says; None or empty: nothing. `sparse_pieces` is the repeated offset and size of format 0.0."""

    path: bytes = b""
    link: bytes = b""
    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    sparse_name: bytes = b""
    sparse_major: int = 0
    sparse_size: int = 0
    sparse_map: bytes | None = None
    sparse_pieces: list[int] | None = None


def parse_pax(data: bytes) -> Pax:
    """Raises ImageError(InvalidImage). Empty values mean "as the old header says", as POSIX has it."""
    pax, at = Pax(), 0
    while at < len(data):
        blank = data.find(b" ", at, at + 10)
        digits = data[at : max(blank, 0)]
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = data[blank + 1 : end - 1].partition(b"=")
        if not blank < end <= len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise ImageError("InvalidImage", "a layer's tar data holds a malformed extended header")
        if value:
            _take(pax, key, value)
        at = end
    return pax


def _take(pax: Pax, key: bytes, value: bytes) -> None:
    if key.startswith(_XATTR):
        pax.xattrs[key[len(_XATTR) :]] = value
    elif key == b"path":
        pax.path = _name(key, value)
    elif key == b"linkpath":
        pax.link = _name(key, value)
    elif key in (b"size", b"uid", b"gid"):
        setattr(pax, key.decode(), _whole(key, value))
    elif key == b"mtime":
        pax.mtime_ns = _nanoseconds(key, value)
    elif key.startswith(b"GNU.sparse."):
        _take_sparse(pax, key[11:], value)


def _take_sparse(pax: Pax, key: bytes, value: bytes) -> None:
    if key == b"name":
        pax.sparse_name = _name(key, value)
    elif key in (b"size", b"realsize"):
        pax.sparse_size = _whole(key, value)
    elif key == b"major":
        pax.sparse_major = _whole(key, value)
    elif key == b"map":
        pax.sparse_map = value
    elif key in (b"offset", b"numbytes"):
        pax.sparse_pieces = pax.sparse_pieces or []
        pax.sparse_pieces.append(_whole(key, value))


def _name(key: bytes, value: bytes) -> bytes:
    if b"\0" in value:
        raise _malformed(key, value)
    return value


def _whole(key: bytes, value: bytes) -> int:
    if not value.isdigit() or len(value) > 19:
        raise _malformed(key, value)
    return int(value)


def _nanoseconds(key: bytes, value: bytes) -> int:
    """Exact: a float would lose the last two or three digits."""
    match = _TIME.fullmatch(value)
    if match is None:
        raise _malformed(key, value)
    sign, whole, fraction = match.groups()
    total = int(whole) * 1_000_000_000 + int((fraction or b"")[:9].ljust(9, b"0"))
    return -total if sign else total


def _malformed(key: bytes, value: bytes) -> ImageError:
    return ImageError("InvalidImage", f"a layer's tar data holds {key.decode(errors='replace')[:40]}={value[:40]!r}, which has no meaning")
