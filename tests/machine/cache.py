"""What is built or downloaded once and kept outside the checkout.

In `$MOORAGE_CACHE`, else `$XDG_CACHE_HOME/moorage`, else `~/.cache/moorage`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    chosen = os.environ.get("MOORAGE_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moorage"


def once(target: Path, make: Callable[[Path], None]) -> Path:
    """`target`, a directory filled by `make` unless it exists. Appears whole or not at all; a second process waits for the first."""
    if target.exists():
        return target
    with locked(target):
        if not target.exists():
            scratch = target.with_name(f".{target.name}.unfinished")
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            make(scratch)
            scratch.rename(target)
    return target


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """One process at a time, by a lock file beside `target`; the kernel releases it when its holder dies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_name(f".{target.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
