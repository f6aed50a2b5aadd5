"""Maps of files with holes, in the four ways GNU tar has written them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable, NamedTuple

from moorage_agent.errors import ImageError
from moorage_agent.images.pax import Pax

MAX_PIECES = 100_000
Piece = tuple[int, int]


class SparseMap(NamedTuple):
    """(offset, length) of each stretch of data, ascending, in a file of `size` bytes."""

    pieces: tuple[Piece, ...]
    size: int

    @staticmethod
    def checked(pieces: Iterable[Piece], size: int, *, stored: int) -> SparseMap:
        """Raises ImageError(InvalidImage) unless the pieces ascend, lie within the file, and are what is stored."""
        kept = tuple(piece for piece in pieces if piece[1])
        if len(kept) > MAX_PIECES:
            raise _invalid("has too many pieces")
        at = 0
        for offset, length in kept:
            if offset < at or length < 0:
                raise _invalid("overlaps itself")
            at = offset + length
        if at > size or size >= 1 << 63:
            raise _invalid("reaches beyond the file")
        if sum(length for _, length in kept) != stored:
            raise _invalid("does not fit the data")
        return SparseMap(kept, size)


def gnu_map(header: bytes, number: Callable[[bytes], int]) -> tuple[list[Piece], bool, int]:
    """From an old GNU header: the first four pieces, whether a block with more follows, the file's size."""
    return _pieces(header[386:482], number), header[482] not in (0, 0x30), number(header[483:495])


def gnu_more(block: bytes, number: Callable[[bytes], int]) -> tuple[list[Piece], bool]:
    return _pieces(block[:504], number), block[504] not in (0, 0x30)


def _pieces(fields: bytes, number: Callable[[bytes], int]) -> list[Piece]:
    """Twelve bytes of offset and of length each; the list ends at an empty offset."""
    pieces = []
    for at in range(0, len(fields), 24):
        if fields[at] == 0:
            break
        pieces.append((number(fields[at : at + 12]), number(fields[at + 12 : at + 24])))
    return pieces


def pax_map(pax: Pax) -> list[Piece]:
    """Formats 0.0 and 0.1: the map is in the extended header."""
    if pax.sparse_map is not None:
        return _pairs(_whole(part) for part in pax.sparse_map.split(b","))
    return _pairs(pax.sparse_pieces or ())


def pax_map_in_data(block: Callable[[], bytes]) -> list[Piece]:
    """Format 1.0: lines of decimals at the head of the data, padded to a block: how many pieces, then each offset and length."""
    data = block()
    while b"\n" not in data:
        data = _longer(data, block)
    count = _whole(data.partition(b"\n")[0])
    if count > MAX_PIECES:
        raise _invalid(f"has {count} pieces")
    lines = data.count(b"\n")
    while lines < 1 + 2 * count:
        fresh = block()
        lines += fresh.count(b"\n")
        data += fresh
        if len(data) > 64 * (MAX_PIECES + 8):
            raise _invalid("is too long")
    return _pairs(_whole(line) for line in data.split(b"\n")[1 : 1 + 2 * count])


def _longer(data: bytes, block: Callable[[], bytes]) -> bytes:
    if len(data) > 2048:
        raise _invalid("is no map")
    return data + block()


def _pairs(numbers: Iterable[int]) -> list[Piece]:
    flat = list(numbers)
    if len(flat) % 2 or len(flat) > 2 * MAX_PIECES:
        raise _invalid("has half a piece, or too many")
    return list(zip(flat[::2], flat[1::2]))


def _whole(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise _invalid(f"holds {text[:20]!r}")
    return int(text)


def _invalid(why: str) -> ImageError:
    return ImageError("InvalidImage", f"the map of a sparse file in a layer {why}")
