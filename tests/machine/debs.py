"""Debian's packages, unpacked into the cache and never installed: this machine's package state is neither needed nor changed."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.machine.cache import cache_dir, locked, once
from tests.machine.missing import MissingOnMachine

DPKG_STATUS = Path("/var/lib/dpkg/status")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://deb.debian.org/debian"
LISTS_FRESH_S = 24 * 3600
MERGED_USR = ("bin", "sbin", "lib", "lib64")


def unpacked(*packages: str) -> Path:
    """A folder holding `packages` and those of their dependencies that this machine lacks.

    It works over this machine's root (as an overlay's upper layer), or by itself with `environment_of`.
    """
    if not DPKG_STATUS.exists():
        raise MissingOnMachine(f"{', '.join(packages)} can be unpacked on Debian and its relatives only")
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
    with refreshed(Apt(cache_dir() / "apt")) as apt:
        apt.get("install", *wanted, *packages)
    root = make_root(target)
    for archive in sorted(archives.glob("*.deb")):
        unpack(archive, root)
    shutil.rmtree(archives)


def download(package: str, folder: Path, *, suite: str) -> list[Path]:
    """The archive of one package, without dependencies, of another suite than this machine's."""
    with refreshed(Apt(cache_dir() / f"apt-{suite}", suite)) as apt:
        apt.get("download", package, cwd=folder)
    return list(folder.glob(f"{package}_*.deb"))


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


@contextmanager
def refreshed(apt: Apt) -> Iterator[Apt]:
    """One process at a time; the lists are fetched anew when they are older than a day."""
    with locked(apt.folder):
        apt.refresh()
        yield apt


class Apt:
    """apt-get with lists, cache and locks in `folder`. The sources are the machine's, or Debian's `suite`."""

    def __init__(self, folder: Path, suite: str | None = None) -> None:
        for program in ("apt-get", "dpkg-deb"):
            if not shutil.which(program):
                raise MissingOnMachine(f"{program} is missing: packages are unpacked on Debian and its relatives only")
        self.folder = folder
        self._suite = suite

    def refresh(self) -> None:
        stamp = self.folder / "refreshed"
        if not stamp.exists() or time.time() - stamp.stat().st_mtime > LISTS_FRESH_S:
            self.get("update")
            stamp.touch()

    def get(self, verb: str, *arguments: str, cwd: Path | None = None) -> None:
        """Raises MissingOnMachine with apt-get's words."""
        command = ["apt-get", "-c", str(self._configuration()), "-qq", verb, *arguments]
        done = subprocess.run(command, cwd=cwd, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True)
        if done.returncode != 0:
            raise MissingOnMachine(f"apt-get {verb} failed: {done.stderr.strip()[-600:]}")

    def _configuration(self) -> Path:
        folder = self.folder
        (folder / "state/lists/partial").mkdir(parents=True, exist_ok=True)
        (folder / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
        # The hooks of the machine are about what it has installed; its proxies and sources stay.
        cleared = ("APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success")
        text = "".join(f"#clear {hooks};\n" for hooks in cleared)
        text += f'Dir::State "{folder}/state/";\nDir::State::status "{DPKG_STATUS}";\nDir::Cache "{folder}/cache/";\n'
        text += 'Debug::NoLocking "true";\nAPT::Sandbox::User "root";\nAcquire::http::Timeout "15";\nAcquire::Retries "1";\n'
        if self._suite is not None:
            (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {self._suite} main\n")
            text += f'Dir::Etc::sourcelist "{folder}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'
        configuration = folder / "apt.conf"
        configuration.write_text(text)
        return configuration
