"""Folders for one run. A run that was killed cannot remove its own: the next one does."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def scratch_folder(kind: str, parent: Path | None = None) -> Path:
    """A new folder named for `kind` and this process; folders of the same kind whose process is gone are removed first."""
    parent = parent or Path(tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    for stale in parent.glob(f"moorage-{kind}-*"):
        if not Path(f"/proc/{owner_of(stale)}").exists():
            shutil.rmtree(stale, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"moorage-{kind}-{os.getpid()}-", dir=parent))


def owner_of(folder: Path) -> str:
    return folder.name.split("-")[2]
