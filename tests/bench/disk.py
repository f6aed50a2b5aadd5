"""A disk of the bench's own: an ext4 with a journal, as hosts have, for us and for every peer, whatever this machine's root is on.

A machine made for tests may have an ext4 without a journal, where making a file searches past every inode freed within the last minutes
(ext4's recently_deleted): there a start costs twice the CPU after some rounds, and more with every round.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.machine.cache import cache_dir
from tests.machine.scratch import scratch_folder

SIZE = 16 << 30  # sparse
HOLDER = "MOORAGE_BENCH_DISK"
"""In the environment of the process that has the disk: where it is mounted."""


def run_on_own_disk(arguments: list[str]) -> int:
    """Run `python -m tests.bench ARGUMENTS` in a mount namespace in which the disk is; it is gone with the last process in there."""
    folder = scratch_folder("bench", parent=Path("/var/tmp"))
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.bench", *arguments]
    try:
        return subprocess.run(command, env={**os.environ, HOLDER: str(folder), "TMPDIR": str(folder)}, check=False).returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def mount_disk(folder: Path) -> None:
    """On `folder`, and where bare hosts keep theirs. The image has no name any more: the loop device alone holds it."""
    image, runs = folder.with_suffix(".ext4"), cache_dir() / "runs"
    try:
        with open(image, "wb") as file:
            file.truncate(SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-O", "has_journal", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    finally:
        image.unlink()
    runs.mkdir(parents=True, exist_ok=True)
    (folder / "runs").mkdir()
    subprocess.run(["mount", "--bind", folder / "runs", runs], check=True)
