"""A container's output on the disk: one record per line, `<unix ns> <o|e> <P|F> text`, o stdout, e stderr.

F: the line ends here. P: it goes on in the next record of the same stream, or was never ended. What one read returned is written at once,
so a supervisor that dies loses at most that. Segments are numbered files; the highest is written, the oldest is removed. A full disk costs
output, never the container: the oldest segment is given up first, then output is dropped and counted.
"""

from __future__ import annotations

import errno
import os

CHUNK = 65536


class LogWriter:
    """Appends to the newest segment of `directory`, which it makes. One writer per directory at a time."""

    __slots__ = ("directory", "dropped", "fd", "max_files", "max_size", "segment", "size")

    def __init__(self, directory: str, *, max_size: int, max_files: int) -> None:
        self.directory, self.max_size, self.max_files = directory, max(max_size, CHUNK), max(max_files, 1)
        self.dropped = 0
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            pass
        self._open(max(segments(directory), default=1))

    def write(self, stream: bytes, chunk: bytes, now_ns: int) -> None:
        """`chunk` as one read returned it; `stream` is b"o" or b"e"."""
        data = records(stream, chunk, now_ns)
        if self.dropped:
            lost = b"[moorage] %d bytes of output were lost: the disk was full\n" % self.dropped
            data = records(b"e", lost, now_ns) + data
        if self.size and self.size + len(data) > self.max_size:
            self._rotate()
        if self._append(data) or (self._give_up_oldest() and self._append(data)):
            self.dropped = 0
        else:
            self.dropped += len(chunk)

    def close(self) -> None:
        os.close(self.fd)

    def _open(self, segment: int) -> None:
        self.fd = os.open(f"{self.directory}/{segment}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.segment, self.size = segment, os.fstat(self.fd).st_size

    def _rotate(self) -> None:
        old = self.fd
        try:
            self._open(self.segment + 1)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return  # no room for another file: the segment grows until there is
        os.close(old)
        for segment in segments(self.directory):
            if segment <= self.segment - self.max_files:
                os.unlink(f"{self.directory}/{segment}")

    def _append(self, data: bytes) -> bool:
        """False when the disk is full; a record written in part is cut off again."""
        try:
            written = os.write(self.fd, data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return False
        if written < len(data):
            os.ftruncate(self.fd, self.size)
            return False
        self.size += written
        return True

    def _give_up_oldest(self) -> bool:
        older = [segment for segment in segments(self.directory) if segment < self.segment]
        if older:
            os.unlink(f"{self.directory}/{min(older)}")
        return bool(older)


def records(stream: bytes, chunk: bytes, now_ns: int) -> bytes:
    """`chunk` as records. bytes.replace is what makes this keep up with any writer (7 million lines a second)."""
    full = b"%d %b F " % (now_ns, stream)
    lines, newline, rest = chunk.rpartition(b"\n")
    data = full + lines.replace(b"\n", b"\n" + full) + b"\n" if newline else b""
    return data + b"%d %b P %b\n" % (now_ns, stream, rest) if rest else data


def segments(directory: str) -> list[int]:
    """Numbers of the segments there are, oldest first."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if name.isdigit())
