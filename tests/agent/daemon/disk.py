"""A disk that is full, a disk that lost something."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from moorage_agent.paths import Paths


@contextlib.contextmanager
def unwritable(directory: str, *names: str) -> Iterator[None]:
    """Files of ours that cannot be written anew, as on a full disk."""
    blocked = [Path(directory, f"{name}.new") for name in names]
    for path in blocked:
        path.mkdir()
    yield
    for path in blocked:
        shutil.rmtree(path, ignore_errors=True)


def forget_documents(paths: Paths) -> None:
    for slot in Path(paths.state).glob("document-*.json"):
        slot.unlink()
