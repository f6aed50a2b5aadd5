"""An archive from a URL, into a file of the store that is kept for a while: it is read when it is resolved and again when it is pulled."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from dataclasses import dataclass
from typing import IO, cast

from moorage_agent.errors import ImageError
from moorage_agent.images.leftovers import PART
from moorage_agent.images.limits import Budget
from moorage_agent.images.patience import Patience, Tries
from moorage_agent.images.progress import Progress
from moorage_agent.images.transport import Response, Transient, Transport

_PROGRESS = 1 << 20


@dataclass(frozen=True)
class Wanted:
    """`sha256` (hex): of the file, when its user knows it."""

    url: str
    sha256: str | None = None

    def path(self, directory: str) -> str:
        return f"{directory}/{hashlib.sha256(f'{self.url} {self.sha256}'.encode()).hexdigest()[:32]}"


def download(wanted: Wanted, directory: str, transport: Transport, patience: Patience, budget: Budget, progress: Progress) -> str:
    """The path of the complete file. Raises ImageError (NotFound, RegistryUnreachable, DigestMismatch, DiskFull…), Interrupted."""
    with _part(directory) as file:
        try:
            _Download(wanted, file, transport, budget, progress).run(Tries(patience, transport.cancellation))
            os.rename(file.name, wanted.path(directory))
        except BaseException:
            os.unlink(file.name)
            raise
    return wanted.path(directory)


def _part(directory: str) -> IO[bytes]:
    """A new file, locked: without its lock it counts as left behind, and may be removed before we have it."""
    while True:
        file = tempfile.NamedTemporaryFile(dir=directory, prefix=PART, delete=False)  # noqa: SIM115 -- the caller closes it
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return cast("IO[bytes]", file)
        file.close()


class _Download:
    """One file in the making: what is there of it, and how to know that the rest belongs to it."""

    def __init__(self, wanted: Wanted, file: IO[bytes], transport: Transport, budget: Budget, progress: Progress) -> None:
        self._wanted, self._file, self._transport, self._budget, self._progress = wanted, file, transport, budget, progress
        self._restart()

    def run(self, tries: Tries) -> None:
        while True:
            before = self._at
            try:
                self._ask()
                break
            except Transient as failure:
                kept = failure
            tries.again(kept, progressed=self._at - before >= _PROGRESS)
        self._file.flush()
        if self._wanted.sha256 not in (None, self._hash.hexdigest()):
            text = f"{self._wanted.url} has the sha256 {self._hash.hexdigest()}, not {self._wanted.sha256}; nothing of it was kept"
            raise ImageError("DigestMismatch", text, 300)

    def _restart(self) -> None:
        self._at, self._etag = 0, ""
        self._hash = hashlib.sha256()
        self._file.seek(0)
        self._file.truncate()

    def _ask(self) -> None:
        """Continue only what the server says is the same file (If-Range), else begin again."""
        if not self._etag:
            self._restart()
        resume = {"Range": f"bytes={self._at}-", "If-Range": self._etag} if self._at else {}
        with self._transport.open("GET", self._wanted.url, {"Accept-Encoding": "identity", **resume}) as response:
            if response.status == 200:
                self._restart()
            elif response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {self._at}-"):
                raise self._refusal(response)
            etag = response.headers.get("ETag", "")
            self._etag = etag if etag.startswith('"') else ""
            self._receive(response)

    def _receive(self, response: Response) -> None:
        length = response.headers.get("Content-Length", "")
        total = self._at + int(length) if length.isdigit() else 0
        self._budget.check_room(total - self._at)
        for chunk in response.chunks():
            self._budget.spend(len(chunk))
            self._hash.update(chunk)
            self._file.write(chunk)
            self._at += len(chunk)
            self._progress(self._at, max(total, self._at))
        if self._at < total:
            raise Transient("RegistryUnreachable", f"the download broke off after {self._at} of {total} bytes")

    def _refusal(self, response: Response) -> Exception:
        status, where = response.status, self._wanted.url
        if status in (404, 410):
            return ImageError("NotFound", f"{where} was not found ({status}); check the address", 60)
        if status in (401, 403):
            return ImageError("Unauthorized", f"{where} may not be read ({status})", 300)
        if status == 429:
            return Transient("RateLimited", f"{where} answers no more requests for now (429)", response.retry_after_s)
        if status == 408 or status >= 500:
            return Transient("RegistryUnreachable", f"{where} answered {status}", response.retry_after_s)
        return ImageError("RegistryUnreachable", f"{where} answered {status}", 300)
