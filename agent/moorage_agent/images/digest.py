"""Digests: `sha256:` and 64 hex digits, checked before one is believed or becomes part of a path."""

from __future__ import annotations

import hashlib
import re

from moorage_agent.errors import ImageError

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_OTHER = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-zA-Z=_-]{8,256}")


def checked(digest: object, *, of: str) -> str:
    """`digest` as text. Raises ImageError(InvalidImage) naming `of`, what it should be the digest of."""
    if isinstance(digest, str) and _SHA256.fullmatch(digest):
        return digest
    if isinstance(digest, str) and _OTHER.fullmatch(digest):
        raise ImageError(
            "InvalidImage",
            f"{of} is named by a {digest.split(':')[0]} digest; only sha256 is supported: build the image with sha256 digests",
        )
    raise ImageError("InvalidImage", f"{of} has no valid digest: {str(digest)[:80]!r}")


def hexadecimal(digest: str) -> str:
    """The 64 digits, known to be harmless in a path. Raises ImageError(InvalidReference)."""
    if not _SHA256.fullmatch(digest):
        raise ImageError("InvalidReference", f"{digest[:80]!r} is not a digest of the form sha256:<64 hex digits>")
    return digest[7:]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
