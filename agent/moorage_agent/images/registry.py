"""One repository of a registry, by the OCI distribution protocol: manifests, small blobs, and layers that resume where they broke off.

What arrives is not believed here: the caller compares digests. Sources: opencontainers/distribution-spec spec.md; quirks by name below.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Callable, TypeVar

from moorage_agent.errors import ImageError
from moorage_agent.images.auth import Authorizer, Credentials, parse_challenges
from moorage_agent.images.manifest import ACCEPTED, MAX_BYTES, Descriptor
from moorage_agent.images.patience import Patience, Tries
from moorage_agent.images.reference import Reference
from moorage_agent.images.transport import Response, Transient, Transport, same_origin

_PROGRESS = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")
T = TypeVar("T")


class Registry:
    """Usable by several threads. Errors: ImageError (NotFound, Unauthorized, RateLimited, RegistryUnreachable, …), Interrupted."""

    def __init__(self, reference: Reference, transport: Transport, credentials: Credentials | None, patience: Patience) -> None:
        self._reference, self._transport, self._patience = reference, transport, patience
        self._authorizer = Authorizer(transport, credentials, f"repository:{reference.repository}:pull", of=str(reference))
        self._scheme: str | None = None if transport.insecure else "https"

    def manifest(self, version: str) -> tuple[bytes, str | None]:
        """Body and declared media type of the manifest under a tag or digest."""
        headers = {"Accept": ", ".join(ACCEPTED)}

        def ask() -> tuple[bytes, str | None]:
            with self._get(f"manifests/{version}", headers, what=f"image {self._reference}") as response:
                return response.body(MAX_BYTES), response.headers.get("Content-Type")

        return self._patiently(ask)

    def blob(self, descriptor: Descriptor, *, of: str) -> bytes:
        """A small one, whole."""

        def ask() -> bytes:
            with self._get(f"blobs/{descriptor.digest}", {}, what=of) as response:
                return response.body(MAX_BYTES)

        return self._patiently(ask)

    def layer(self, descriptor: Descriptor, start: int = 0) -> Generator[bytes, None, None]:
        """Its bytes from `start` on, over as many connections as it takes while each brings it on."""
        tries = Tries(self._patience, self._transport.cancellation)
        at = start
        while at < descriptor.size:
            mark = at
            failure = Transient("RegistryUnreachable", f"layer {descriptor.digest} broke off before its {descriptor.size} bytes were there")
            try:
                with self._from(descriptor, at) as response:
                    for chunk in response.chunks():
                        at += len(chunk)
                        yield chunk
            except Transient as better:
                failure = better
            if at < descriptor.size:
                tries.again(failure, progressed=at - mark >= _PROGRESS)

    @contextmanager
    def _from(self, descriptor: Descriptor, at: int) -> Iterator[Response]:
        headers = {"Range": f"bytes={at}-"} if at else {}
        with self._get(f"blobs/{descriptor.digest}", headers, what=f"layer {descriptor.digest} of {self._reference}") as response:
            if response.status == 206:
                match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
                if match is None or int(match.group(1)) != at:
                    raise ImageError("RegistryUnreachable", f"{self._reference.host} answers with another range than was asked for", 60)
            elif at:  # a registry, or a cache before it, that ignores ranges
                response.skip(at)
            yield response

    @contextmanager
    def _get(self, path: str, headers: Mapping[str, str], *, what: str) -> Iterator[Response]:
        """An answer of 200 or 206, after answering at most one challenge of the registry's own: a host it redirects to gets no secret."""
        url = f"{self._base()}/v2/{self._reference.repository}/{path}"
        for last in (False, True):
            used = self._authorizer.header
            with self._transport.open("GET", url, {**headers, **({"Authorization": used} if used else {})}) as response:
                if response.status in (200, 206):
                    yield response
                    return
                if response.status != 401 or last or not same_origin(response.url, url):
                    raise self._refusal(response, what)
                challenges = parse_challenges(response.headers.get_all("WWW-Authenticate") or ())
            self._authorizer.answer(challenges, used=used, asked=url)

    def _base(self) -> str:
        """Insecure registries are tried with TLS first, unverified, then without."""
        if self._scheme is None:
            try:
                with self._transport.open("GET", f"https://{self._reference.host}/v2/", {}):
                    self._scheme = "https"
            except Transient:
                self._scheme = "http"
        return f"{self._scheme}://{self._reference.host}"

    def _refusal(self, response: Response, what: str) -> Exception:
        status, said, host = response.status, _said(response), response.host
        if status in (401, 403):
            return self._authorizer.denied(f"{host} answered {status}{said}")
        if status == 404:
            return ImageError("NotFound", f"{what} was not found: {host} answered 404{said}; check the name, and that it was pushed", 60)
        if status == 429:
            return Transient("RateLimited", f"{host} answers no more requests for now (429{said})", response.retry_after_s)
        if status == 408 or status >= 500:
            return Transient("RegistryUnreachable", f"{host} answered {status}{said}", response.retry_after_s)
        return ImageError("RegistryUnreachable", f"{host} answered {status} when asked for {what}{said}", 300)

    def _patiently(self, ask: Callable[[], T]) -> T:
        tries = Tries(self._patience, self._transport.cancellation)
        while True:
            try:
                return ask()
            except Transient as failure:
                kept = failure
            tries.again(kept)


def _said(response: Response) -> str:
    """The registry's own words, made harmless; hostile like all else it says."""
    try:
        error = json.loads(response.body(1 << 16))["errors"][0]
        text = f"{error.get('code', '')}: {error.get('message', '')}"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, ImageError, Transient):
        return ""
    return f", {''.join(c if c.isprintable() else ' ' for c in text)[:200]}"
