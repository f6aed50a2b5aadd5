"""Image references, read as github.com/distribution/reference reads them: `[domain/]path[:tag][@digest]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from moorage_agent.errors import ImageError

_HUB = "docker.io"
_HUB_API = "registry-1.docker.io"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_IDENTIFIER = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """A digest, when there is one, decides alone: the tag beside it is dropped."""

    domain: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def host(self) -> str:
        """Host and port of the registry's API; Docker Hub's differs from its domain."""
        return _HUB_API if self.domain == _HUB else self.domain

    @property
    def version(self) -> str:
        """What to ask the registry for."""
        return self.digest or self.tag or "latest"

    def pinned(self, digest: str) -> Reference:
        return Reference(self.domain, self.repository, None, digest)

    def __str__(self) -> str:
        return f"{self.domain}/{self.repository}" + (f"@{self.digest}" if self.digest else f":{self.tag}")


def parse_reference(text: str) -> Reference:
    """Raises ImageError(InvalidReference) saying which part is wrong."""
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _invalid(text, f"{digest[:80]!r} is not sha256:<64 hex digits>")
    domain, path = _split_domain(rest)
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(text, f"{tag[:80]!r} is not a tag (letters, digits, '_', '.', '-', at most 128)")
    if not _DOMAIN.fullmatch(domain):
        raise _invalid(text, f"{domain[:80]!r} is not a registry's host name")
    if domain == _HUB and "/" not in path:
        if _IDENTIFIER.fullmatch(path):
            raise _invalid(text, "64 hex digits are an image id, not a name; write name@sha256:<digest>")
        path = f"library/{path}"
    if not _PATH.fullmatch(path) or len(path) > 255:
        raise _invalid(text, f"{path[:80]!r} is not a repository (lower-case letters and digits, separated by '.', '_', '__', '-' or '/')")
    return Reference(domain, path, None if at else tag or "latest", digest or None)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or not (first == "localhost" or "." in first or ":" in first or first != first.lower()):
        return _HUB, text
    return (_HUB if first == "index.docker.io" else first), rest


def _invalid(text: str, why: str) -> ImageError:
    return ImageError("InvalidReference", f"image reference {text[:300]!r} is invalid: {why}")
