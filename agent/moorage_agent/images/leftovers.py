"""Archives that were downloaded and may be wanted again. Apart from download.py: the daemon sweeps, and must not load a TLS library."""

from __future__ import annotations

import os
import time

KEEP_S = 24 * 3600.0


def drop_old_downloads(directory: str, *, now: float | None = None) -> None:
    oldest = (time.time() if now is None else now) - KEEP_S
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.stat().st_mtime < oldest:
                os.unlink(entry.path)
