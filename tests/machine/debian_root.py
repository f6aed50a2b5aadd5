"""A root file system of Debian's: what a machine has after an installation, with chosen packages."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.machine.debs import unpacked
from tests.machine.missing import MissingOnMachine

SUITE = "bookworm"
LEFT_OUT = ("doc", "locale", "man", "info")


def make_debian_root(root: Path, *packages: str) -> None:
    """The smallest Debian with `packages` in the new folder `root`. Raises MissingOnMachine."""
    if os.geteuid() != 0:
        raise MissingOnMachine("a root file system is made by root only")
    programs = unpacked("mmdebstrap") / "usr/bin"
    command: list[str | Path] = [programs / "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}"]
    command += ["--aptopt=APT::Install-Recommends false", "--dpkgopt=force-unsafe-io"]
    command += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run([*command, SUITE, root], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise MissingOnMachine(f"mmdebstrap could not make a root file system: {done.stderr.strip()[-800:]}")


def remove_root(root: Path) -> None:
    """And nothing that may be mounted in it."""
    subprocess.run(["rm", "-rf", "--one-file-system", root], check=True)
