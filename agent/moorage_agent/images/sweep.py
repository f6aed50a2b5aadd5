"""Which images and layers nobody needs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from moorage_agent.images.record import Record


@dataclass(frozen=True)
class Held:
    """What a store holds: its records, the names of its layers, and what running pulls lease (digests of images, names of layers).

    `unread`: digests of images whose records cannot be read, as another version of the agent wrote them.
    """

    records: Sequence[Record]
    layers: Collection[str]
    leased: Collection[str]
    unread: Collection[str] = ()


def unwanted(held: Held, keep: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Digests of images and names of layers that neither `keep` nor a lease reaches; no layers while an image that stays is unread."""
    stay = [record for record in held.records if record.digest in keep or record.digest in held.leased]
    reached = {name for record in stay for name in record.layers} | set(held.leased)
    kept = {record.digest for record in stay}
    images = sorted(record.digest for record in held.records if record.digest not in kept)
    if any(digest in keep or digest in held.leased for digest in held.unread):
        return tuple(images), ()
    return tuple(images), tuple(sorted(set(held.layers) - reached))
