"""Files that are whole after a power cut: written beside, synced, renamed into place."""

from __future__ import annotations

import os
import subprocess

from moorage_agent.errors import ImageError


def write_file(path: str, data: bytes) -> None:
    """Replace the file `path`; it has its old content or `data` at any moment, and `data` once this returns."""
    scratch = f"{path}.new.{os.getpid()}"
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(scratch, path)
    except OSError:
        os.unlink(scratch)
        raise
    sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(path: str) -> None:
    """syncfs(2): one call makes tens of thousands of files durable, where fsync on each takes three to five times the whole unpacking.

    Python has no binding; sync(1) of coreutils and of busybox calls it, without holding the interpreter lock meanwhile.
    """
    try:
        done = subprocess.run(["sync", "-f", path], capture_output=True, check=False)
    except FileNotFoundError:
        os.sync()
        return
    if done.returncode != 0:
        complaint = done.stderr.decode(errors="replace").strip()[:200]
        raise ImageError("StoreFailed", f"the image could not be written to disk: {complaint}; look at the host's disk", 60)
