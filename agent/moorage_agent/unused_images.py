"""Which images may go. One nobody uses is kept for a day, for the rollback after a bad update; for minutes when the disk is full."""

from __future__ import annotations

import os

from moorage_agent.images.leftovers import KEPT_S
from moorage_agent.world import World

UNUSED_KEPT_ON_FULL_DISK_S = 300.0
FULL_BELOW = 0.15


class UnusedImages:
    """Remembers since when an image is unused; forgets with the daemon, which only means that a leftover lives longer."""

    def __init__(self) -> None:
        self._unused_since: dict[str, float] = {}

    def keep(self, world: World, now: float, *, disk_is_full: bool) -> set[str] | None:
        """The images to keep in a sweep; None: no sweep now. `now` is boot time."""
        if world.document is None or any(state.spec is None for state in world.tasks.values()):
            return None  # somebody may run an image we cannot name
        used = world.images_in_use()
        unused = {digest for digest, image in world.images.items() if image.state == "Ready"} - used
        self._unused_since = {digest: self._unused_since.get(digest, now) for digest in unused}
        limit = UNUSED_KEPT_ON_FULL_DISK_S if disk_is_full else KEPT_S
        old = {digest for digest, since in self._unused_since.items() if now - since >= limit}
        return (used | unused) - old if old else None


def nearly_full(path: str) -> bool:
    """True when less than 15 % of the file system is left."""
    found = os.statvfs(path)
    return found.f_bavail < found.f_blocks * FULL_BELOW
