"""From a protocol.ImageSource to something that offers content."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Callable, Protocol

from moorage_agent.errors import ImageError
from moorage_agent.images.archive_file import ArchiveFile
from moorage_agent.images.archive_source import ArchiveSource
from moorage_agent.images.auth import Credentials
from moorage_agent.images.cancellation import Cancellation
from moorage_agent.images.content import Content
from moorage_agent.images.download import Wanted, download
from moorage_agent.images.patience import Patience
from moorage_agent.images.platforms import Platform
from moorage_agent.images.progress import Progress
from moorage_agent.images.reference import parse_reference
from moorage_agent.images.registry import Registry
from moorage_agent.images.registry_source import RegistrySource
from moorage_agent.images.store import ImageStore
from moorage_agent.images.transport import Timeouts, Transport
from moorage_agent.protocol import ImageSource

Values = Callable[[str], bytes]
"""The value of a key of the source: credentials, a CA bundle, an archive. Raises KeyError, or an AgentError of its own."""


@dataclass(frozen=True)
class Settings:
    """How patient to be with the network."""

    patience: Patience
    timeouts: Timeouts


# A registry that does not answer is named after 3 s: whoever waits sees it, and the next try is the daemon's.
DEFAULT = Settings(Patience(tries=3, first_s=1.0), Timeouts())

# The operator asks another node next, which may reach what this one does not.
RESOLVING = Settings(Patience(tries=2, first_s=0.5), Timeouts())


@dataclass(frozen=True)
class Request:
    """What is wanted. `digest`: the image that was pinned; None to find out. `progress` is told of a download that must come first."""

    source: ImageSource
    digest: str | None
    values: Values
    progress: Progress

    def value(self, key: str | None) -> bytes | None:
        return self.values(key) if key else None


class Source(Protocol):
    def content(self, wanted: Platform) -> Content: ...


@contextmanager
def opened(request: Request, store: ImageStore, cancellation: Cancellation, settings: Settings) -> Iterator[Source]:
    """Raises ImageError for a source that cannot be had."""
    source = request.source
    if source.kind == "Registry" and source.reference:
        yield _registry(request, source.reference, store, cancellation, settings)
        return
    with _archive(request, store, cancellation, settings) as file:
        yield ArchiveSource(file, source.reference)


def forget_download(request: Request, store: ImageStore) -> None:
    """It is not what was pinned; the next try downloads it again."""
    if request.source.url:
        with suppress(FileNotFoundError):
            os.unlink(Wanted(request.source.url, request.source.sha256).path(store.archives))


def _registry(request: Request, name: str, store: ImageStore, cancellation: Cancellation, settings: Settings) -> RegistrySource:
    reference = parse_reference(name)
    reference = reference.pinned(request.digest) if request.digest else reference
    secret = request.value(request.source.credentials)
    # {}: the Secret has nothing for this registry
    credentials = Credentials.from_json(secret) if secret not in (None, b"{}") else None
    return RegistrySource(
        reference, Registry(reference, _transport(request, cancellation, settings), credentials, settings.patience), store
    )


@contextmanager
def _archive(request: Request, store: ImageStore, cancellation: Cancellation, settings: Settings) -> Iterator[ArchiveFile]:
    """The archive, without its compression."""
    with ExitStack() as files:
        file = _archive_file(request, store, cancellation, settings)
        files.callback(file.close)
        plain = file.plain(store.archives, store.budget())
        if plain is not file:
            files.callback(plain.close)
        yield plain


def _archive_file(request: Request, store: ImageStore, cancellation: Cancellation, settings: Settings) -> ArchiveFile:
    source = request.source
    if source.kind == "ArchivePath" and source.path:
        return ArchiveFile(_regular_file(source.path), name=source.path)
    if source.kind == "ArchiveData" and source.key:
        return ArchiveFile(_in_a_file(request.values(source.key), store.archives), name=f"of {source.key}")
    if source.kind == "ArchiveUrl" and source.url:
        return ArchiveFile(_regular_file(_downloaded(request, source.url, store, cancellation, settings)), name=source.url)
    raise ImageError("InvalidReference", f"the image source of kind {source.kind!r} lacks what that kind needs")


def _downloaded(request: Request, url: str, store: ImageStore, cancellation: Cancellation, settings: Settings) -> str:
    """A kept download serves a pull, whose digest is known, and a resolve only when the file's own digest is."""
    wanted = Wanted(url, request.source.sha256)
    kept = wanted.path(store.archives)
    if (request.digest or wanted.sha256) and os.path.exists(kept):
        return kept
    transport = _transport(request, cancellation, settings)
    transport.insecure = transport.insecure or (wanted.sha256 is not None and url.startswith("http://"))  # the checksum vouches for it
    return download(wanted, store.archives, transport, settings.patience, store.budget(), request.progress)


def _regular_file(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a fifo must not make us wait
    except OSError as error:
        raise ImageError("NotFound", f"the archive {path} cannot be opened: {error.strerror}; put it on this host", 60) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ImageError("InvalidImage", f"{path} is no file but something else; name an archive")
    return fd


def _in_a_file(data: bytes, directory: str) -> int:
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(data)
        file.flush()
        return os.dup(file.fileno())


def _transport(request: Request, cancellation: Cancellation, settings: Settings) -> Transport:
    bundle = request.value(request.source.ca_bundle)
    return Transport(
        insecure=request.source.insecure,
        ca_bundle=bundle.decode("ascii", "replace") if bundle is not None else None,
        timeouts=settings.timeouts,
        cancellation=cancellation,
    )
