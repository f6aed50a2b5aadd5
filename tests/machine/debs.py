"""Debian's packages, unpacked into the cache and never installed: this machine's package state is neither needed nor changed."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.machine.cache import cache_dir, locked, once
from tests.machine.missing import MissingOnMachine

DPKG_STATUS = Path("/var/lib/dpkg/status")
LISTS_FRESH_S = 24 * 3600
MERGED_USR = ("bin", "sbin", "lib", "lib64")


def unpacked(*packages: str) -> Path:
    """A folder holding `packages` and those of their dependencies that this machine lacks.

    It works over this machine's root (as an overlay's upper layer), or by itself with `environment_of`.
    """
    for program in ("apt-get", "dpkg-deb"):
        if not shutil.which(program):
            raise MissingOnMachine(f"{program} is missing: {', '.join(packages)} can be unpacked on Debian and its relatives only")
    # What is lacking depends on what is installed.
    state = DPKG_STATUS.read_bytes() + repr((packages, platform.machine())).encode()
    target = cache_dir() / "debs" / f"{packages[0]}-{hashlib.sha256(state).hexdigest()[:16]}"
    return once(target, lambda scratch: download_and_unpack(packages, scratch))


def environment_of(root: Path) -> dict[str, str]:
    """So that a program of `root` finds its own libraries before this machine's."""
    triplet = f"{platform.machine()}-linux-gnu"
    libraries = [root / "usr/lib" / triplet, root / "lib" / triplet, root / "usr/lib", root / "lib"]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(str(folder) for folder in libraries if folder.is_dir())}


def download_and_unpack(packages: Sequence[str], target: Path) -> None:
    archives = target / ".archives"
    (archives / "partial").mkdir(parents=True)
    wanted = ["--no-install-recommends", "--reinstall", "--download-only", "--yes", "-o", f"Dir::Cache::archives={archives}"]
    with locked(apt_folder()):
        refresh_lists()
        apt_get("install", *wanted, *packages)
    root = make_root(target)
    for archive in sorted(archives.glob("*.deb")):
        unpack(archive, root)
    shutil.rmtree(archives)


def make_root(target: Path) -> Path:
    """Packages still say /lib where the machine has a link to /usr/lib: unpacked as a folder it would hide the link in an overlay."""
    for name in MERGED_USR:
        if Path("/", name).is_symlink():
            (target / "usr" / name).mkdir(parents=True, exist_ok=True)
            (target / name).symlink_to(f"usr/{name}")
    return target


def unpack(archive: Path, root: Path) -> None:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as members:
        subprocess.run(["tar", "--extract", "--keep-directory-symlink", "-C", root], stdin=members.stdout, check=True)
    assert members.returncode == 0, f"cannot unpack {archive}"


def refresh_lists() -> None:
    stamp = apt_folder() / "refreshed"
    if not stamp.exists() or time.time() - stamp.stat().st_mtime > LISTS_FRESH_S:
        apt_get("update")
        stamp.touch()


def apt_get(verb: str, *arguments: str) -> str:
    """With lists, cache and locks of our own; the sources and what counts as installed are the machine's."""
    command = ["apt-get", "-c", str(apt_configuration()), "-qq", verb, *arguments]
    done = subprocess.run(command, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True)
    if done.returncode != 0:
        raise MissingOnMachine(f"apt-get {verb} failed: {done.stderr.strip()[-600:]}")
    return done.stdout


def apt_configuration() -> Path:
    folder = apt_folder()
    (folder / "state/lists/partial").mkdir(parents=True, exist_ok=True)
    (folder / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
    configuration = folder / "apt.conf"
    # The hooks of the machine are about what it has installed; its proxies and sources stay.
    cleared = ("APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success", "APT::Update::Post-Invoke-Stats")
    configuration.write_text(
        "".join(f"#clear {hooks};\n" for hooks in cleared)
        + f'Dir::State "{folder}/state/";\nDir::State::status "{DPKG_STATUS}";\nDir::Cache "{folder}/cache/";\n'
        + 'Debug::NoLocking "true";\nAPT::Sandbox::User "root";\nAcquire::http::Timeout "15";\nAcquire::Retries "1";\n'
    )
    return configuration


def apt_folder() -> Path:
    return cache_dir() / "apt"
