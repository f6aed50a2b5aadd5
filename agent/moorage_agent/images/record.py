"""What is written down of an image once all of it is on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass

from moorage_agent.protocol import ImageConfig, ProtocolError, from_wire, to_wire


@dataclass(frozen=True)
class Record:
    """`layers`: names of directories below layers/, topmost first. `size`: unpacked bytes. `blobs`: manifest and configuration."""

    digest: str
    platform: str
    config: ImageConfig
    layers: tuple[str, ...]
    size: int
    blobs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        return json.dumps(to_wire(self)).encode()

    @staticmethod
    def from_json(data: bytes) -> Record | None:
        """None for what a later version wrote in another form, or a failing disk: the image is pulled again."""
        try:
            return from_wire(Record, json.loads(data))
        except (ValueError, ProtocolError):
            return None
