"""What is known of an unpacked layer: the content of its `ok` file."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """`size`: bytes of its files. Paths are text with surrogates for bytes that are no UTF-8.

    `implicit`: directories no entry spoke of; theirs are the attributes of the layers below. `pending`: hard links (path, target) whose
    target must be in a layer below. `deleting`: directories that hold whiteouts. `opaque_root`: nothing below this layer is to be seen.
    """

    diff_id: str
    size: int
    entries: int
    implicit: tuple[str, ...] = ()
    pending: tuple[tuple[str, str], ...] = ()
    deleting: tuple[str, ...] = ()
    opaque_root: bool = False
    warnings: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), separators=(",", ":")).encode()

    @staticmethod
    def from_json(data: bytes) -> Layer:
        """Raises ValueError, TypeError or KeyError for anything else than `to_json` wrote; unknown names are ignored."""
        known = {field.name for field in dataclasses.fields(Layer)}
        said = {name: value for name, value in dict(json.loads(data)).items() if name in known}
        said["implicit"] = tuple(said["implicit"])
        said["pending"] = tuple((path, target) for path, target in said["pending"])
        said["deleting"] = tuple(said["deleting"])
        said["warnings"] = tuple(said["warnings"])
        return Layer(**said)


def as_text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def as_bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
