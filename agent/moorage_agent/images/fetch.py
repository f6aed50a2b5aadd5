"""One layer, from its source to a directory, in one pass: download → sha256 → inflate → sha256 → unpack, without waiting for each other.

Of larger layers the bytes are also kept in a file as they pass (deleted before it ever reaches the disk, if all goes well): a pull that
is begun again reads them from there and asks the registry for the rest only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Callable

from moorage_agent.errors import ImageError
from moorage_agent.images.compression import inflated
from moorage_agent.images.digest import hexadecimal
from moorage_agent.images.layer import Layer
from moorage_agent.images.limits import Budget
from moorage_agent.images.unpack import unpack
from moorage_agent.images.workplace import Workplace

_RESUMABLE = 8 << 20
_CHUNK = 1 << 17

Pieces = Generator[bytes, None, None]
"""To be closed by whoever does not read them to the end: a connection hangs on them."""


@dataclass(frozen=True)
class LayerSource:
    """Where a layer's bytes come from. `digest` and `size` are of the bytes as they come, `diff_id` of the tar inside.

    `digest` None: only that of the tar is known.

    `open(start)` gives the bytes from `start` on. `local`: they are on this host already, and are not kept twice.
    """

    diff_id: str
    digest: str | None
    size: int
    open: Callable[[int], Pieces]
    local: bool = False


def fetch(source: LayerSource, place: Workplace, budget: Budget, arrived: Callable[[int], None]) -> Layer:
    """Unpack the layer to `place` and verify both digests. `arrived` is told of each piece of `size`, and may raise to stop.

    Raises ImageError, naming the layer.
    """
    part = place.part(hexadecimal(source.digest or source.diff_id))
    resumed = os.path.exists(part)
    try:
        return _fetch(source, place, part, budget, arrived)
    except ImageError as error:
        if not resumed or error.code != "DigestMismatch":
            raise
    place.begin_again()  # the bytes of the earlier try were the wrong ones, and are gone
    return _fetch(source, place, part, budget, arrived)


def _fetch(source: LayerSource, place: Workplace, part: str, budget: Budget, arrived: Callable[[int], None]) -> Layer:
    name = f"layer {(source.digest or source.diff_id)[:19]}…"
    come = _Come(source, arrived, budget)
    pieces = source.open(0) if source.local or source.size < _RESUMABLE else _resumed(source, part)
    with closing(pieces), closing(come.counted(pieces)) as arriving, closing(inflated(arriving)) as inflating:
        try:
            layer = unpack(come.inflated(inflating), place.fs, budget)
            problem = come.problem() or _other_content(layer, source)
        except ImageError as error:
            if error.code == "DiskFull":
                _forget(part)
            inflating.close()
            problem = _read_on(arriving, come) if error.code == "InvalidImage" else None
            if problem is None:
                raise ImageError(error.code, f"{name}: {error.message}", error.retry_after_s) from error
    if problem is not None:
        _forget(part)
        raise ImageError("DigestMismatch", f"{name}: {problem}; nothing of it was kept", 60)
    return layer


def _read_on(arriving: Iterator[bytes], come: _Come) -> str | None:
    """What makes no sense may have been damaged on its way, or be someone's login page: only the digest tells whose fault it is."""
    for _ in arriving:
        pass
    return come.problem()


class _Come:
    """What has come through so far."""

    def __init__(self, source: LayerSource, arrived: Callable[[int], None], budget: Budget) -> None:
        self._source, self._arrived, self._limits = source, arrived, budget.limits
        self._hash = hashlib.sha256()
        self.compressed = self.plain = 0

    def counted(self, pieces: Iterator[bytes]) -> Pieces:
        for piece in pieces:
            self._hash.update(piece)
            self.compressed += len(piece)
            if self.compressed > self._source.size:
                raise ImageError("DigestMismatch", f"more bytes come than the {self._source.size} the manifest says", 60)
            self._arrived(len(piece))
            yield piece

    def inflated(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.plain += len(piece)
            if self.plain > self._limits.ratio_after and self.plain > self._limits.ratio * self.compressed:
                raise ImageError("InvalidImage", f"it inflates to more than {self._limits.ratio} times its size: a bomb, no layer")
            yield piece

    def problem(self) -> str | None:
        if self.compressed != self._source.size:
            return f"{self.compressed} bytes came where the manifest says {self._source.size}"
        if self._source.digest not in (None, "sha256:" + self._hash.hexdigest()):
            return "its content has another digest than the manifest says"
        return None


def _other_content(layer: Layer, source: LayerSource) -> str | None:
    if layer.diff_id == source.diff_id:
        return None
    return f"it unpacks to {layer.diff_id}, but the image's configuration says {source.diff_id}"


def _resumed(source: LayerSource, part: str) -> Pieces:
    """The bytes of an earlier try, then the rest, which is added to them."""
    with open(part, "ab+", buffering=0) as file:
        kept = os.fstat(file.fileno()).st_size
        if kept > source.size:
            kept = 0
            file.truncate(0)
        file.seek(0)
        left = kept
        while left and (piece := file.read(min(_CHUNK, left))):
            left -= len(piece)
            yield piece
        with closing(source.open(kept)) as rest:
            for piece in rest:
                view = memoryview(piece)
                while view:
                    view = view[os.write(file.fileno(), view) :]
                yield piece


def _forget(part: str) -> None:
    if os.path.exists(part):
        os.unlink(part)
