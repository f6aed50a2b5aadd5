"""The images a host has: layers unpacked once each, shared by every image that names them, and a record per image.

    images/layers/<diffID[:24]>/fs     the layer as overlayfs wants it; `ok` beside it says what it is and that it is whole
    images/records/<digest>.json       an image: configuration and diffIDs
    images/blobs/<digest>              manifests and configurations, kept to ask a registry less
    images/tmp/<diffID[:24]>/          a layer in the making, locked by its maker; *.part is a download to resume
    images/leases/<id>                 what a running pull needs, locked by it
    images/trash/                      renamed away, being removed

A directory below layers/ and a record below records/ appear by rename after their content was synced: what is visible is whole, after a
kill or a power cut too. Locks are the kernel's (flock): they end with the process that held them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from moorage_agent.paths import Paths
from moorage_agent.protocol import ImageConfig


@dataclass(frozen=True)
class Image:
    """An image ready to run. `layers`: directories for overlayfs, topmost first, all below one parent. `size`: unpacked bytes."""

    digest: str
    platform: str
    config: ImageConfig
    layers: tuple[str, ...]
    size: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Swept:
    """What a sweep took away: digests of images, number of layers, bytes of their files."""

    images: tuple[str, ...]
    layers: int
    bytes: int


class ImageStore:
    """Any number of processes and threads may use one store. Making the object does nothing; call `recover` once at the daemon's start."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths

    def recover(self) -> None:
        """Make the directories and remove what earlier processes left half-made. Pulls of living processes are left alone."""
        raise NotImplementedError

    def get(self, digest: str) -> Image | None:
        """The image `digest` if it is here and whole; no network, one small file read. Raises ImageError(InvalidReference)."""
        raise NotImplementedError

    def images(self) -> tuple[Image, ...]:
        """All that `get` would give."""
        raise NotImplementedError

    def sweep(self, keep: Collection[str]) -> Swept:
        """Remove every image whose digest is not in `keep`, and the layers nobody names any more.

        Running pulls keep what they lease. `keep` must hold the image of every container that exists: a layer is never taken from
        below a mount only because its caller names it here.
        """
        raise NotImplementedError
