"""The agent as one reproducible archive: the same source gives the same bytes, so its sha256 names the version."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

# `python3 <directory> dial` runs the directory's __main__.py; the directory itself is then sys.path[0].
_MAIN: Final = b"from moorage_agent.__main__ import main\n\nmain()\n"
# For people on the host: /var/lib/moorage/agent/current/moorage-agent ps
_COMMAND: Final = b"""#!/bin/sh
exec python3 -I -S -E "$(dirname "$(readlink -f "$0")")" "$@"
"""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say


@dataclass(frozen=True)
class Archive:
    sha256: str
    data: bytes = field(repr=False)


@cache
def agent_archive() -> Archive:
    """The archive of the agent this operator was shipped with."""
    files = {"__main__.py": _MAIN, "moorage-agent": _COMMAND}
    _collect(resources.files("moorage_agent"), "moorage_agent", files)
    return archive_of(files)


def archive_of(files: dict[str, bytes]) -> Archive:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, files[name])
    data = buffer.getvalue()
    return Archive(hashlib.sha256(data).hexdigest(), data)


def _collect(folder: Traversable, path: str, files: dict[str, bytes]) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            _collect(entry, f"{path}/{entry.name}", files)
        elif entry.is_file() and not entry.name.endswith(".pyc"):
            files[f"{path}/{entry.name}"] = entry.read_bytes()
