"""Reads for people what logs.py wrote: the last lines, those since a time, those to come. Lines split over records are put together
again."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from moorage_agent.runtime.logs import segments

BLOCK = 1 << 18
STREAMS = {b"o": "stdout", b"e": "stderr"}


@dataclass(frozen=True)
class Line:
    """`at`: when its last part was read, seconds since 1970. `text` as it was written: without a newline when it never ended."""

    at: float
    stream: str
    text: bytes


def read_lines(
    directory: str, *, follow: bool = False, tail: int | None = None, since: float | None = None, poll_s: float = 0.1
) -> Iterator[Line]:
    """Lines in the order they came. `since` is seconds since 1970; `follow` goes on for ever, over rotation and removal of old segments."""
    reader = _Reader(directory)
    lines: Iterator[Line] = (line for line in reader.lines() if since is None or line.at >= since)
    if tail is not None:
        lines = iter(deque(lines, maxlen=tail))
    yield from lines
    if not follow:
        yield from reader.unfinished(since)
        return
    while True:
        time.sleep(poll_s)
        yield from reader.lines()


class _Reader:
    """Where we are: a segment, an offset in it, and the parts of a line of each stream that has not ended."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._segment = 0
        self._offset = 0
        self._parts: dict[bytes, tuple[float, bytes]] = {}

    def lines(self) -> Iterator[Line]:
        """All whole lines from here to the end there is now."""
        for record in self._records():
            stamp, stream, flag, text = record.split(b" ", 3)
            at, before = int(stamp) / 1e9, self._parts.pop(stream, (0.0, b""))[1]
            if flag == b"P":
                self._parts[stream] = (at, before + text)
            else:
                yield Line(at, STREAMS[stream], before + text + b"\n")

    def unfinished(self, since: float | None) -> Iterator[Line]:
        for stream, (at, text) in sorted(self._parts.items(), key=lambda part: part[1][0]):
            if since is None or at >= since:
                yield Line(at, STREAMS[stream], text)
        self._parts.clear()

    def _records(self) -> Iterator[bytes]:
        while True:
            found = [segment for segment in segments(self._directory) if segment >= self._segment]
            if not found:
                return
            if found[0] != self._segment:
                self._segment, self._offset = found[0], 0
            yield from self._read_segment()
            if len(found) == 1:
                return
            yield from self._read_segment()  # what came between: a segment with a successor grows no more
            self._segment, self._offset = found[1], 0

    def _read_segment(self) -> Iterator[bytes]:
        try:
            fd = os.open(f"{self._directory}/{self._segment}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            while True:
                block = os.pread(fd, BLOCK, self._offset)
                whole, newline, _ = block.rpartition(b"\n")
                if not newline:
                    return  # nothing, or a record that is just being written: none is longer than a block
                self._offset += len(whole) + 1
                yield from (record for record in whole.split(b"\n") if record.count(b" ") >= 3)
        finally:
            os.close(fd)
