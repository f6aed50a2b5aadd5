"""The first few KiB of what a command writes, read while it runs so that it never waits for us."""

from __future__ import annotations

import asyncio
import os

CHUNK = 65536


class Output:
    """A pipe; `inlet` is for the command. Reads on the running event loop until closed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._outlet, self.inlet = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._outlet, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._outlet, self._read)

    def close(self) -> bytes:
        """What came first, up to the limit."""
        os.close(self.inlet)
        while self._read():
            pass
        self._loop.remove_reader(self._outlet)
        os.close(self._outlet)
        return bytes(self._kept)

    def _read(self) -> bool:
        try:
            chunk = os.read(self._outlet, CHUNK)
        except BlockingIOError:
            return False
        self._kept += chunk[: self._limit - len(self._kept)]
        if not chunk:
            self._loop.remove_reader(self._outlet)
        return bool(chunk)
