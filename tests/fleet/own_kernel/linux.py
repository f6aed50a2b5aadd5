"""A Linux that runs as a process: User Mode Linux, built once from Debian's kernel source with a configuration of our own.

Debian's ready-made one (6.1, 6.12) panics at its first program on processors with AMX, and has neither SMP nor seccomp.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.machine import MissingOnMachine, cache_dir, once
from tests.machine.debs import download, unpack, unpacked

SOURCE = "linux-source-7.2"
SUITE = "sid"
CONFIG = Path(__file__).with_name("linux.config")
OBJECTS = 1900  # about what is compiled, for the progress shown


def linux() -> Path:
    """The kernel, a program of 13 MB. Built on first use, in about 5 minutes. Raises MissingOnMachine where it cannot be."""
    key = hashlib.sha256(CONFIG.read_bytes() + SOURCE.encode()).hexdigest()[:16]
    return once(cache_dir() / "linux" / key, build) / "linux"


def build(target: Path) -> None:
    require(platform.machine() == "x86_64", "User Mode Linux is built for x86_64 only")
    for program in ("gcc", "make", "bc", "xz"):
        require(shutil.which(program) is not None, f"{program} is missing: a kernel cannot be built")
    tree = unpack_source(target / ".source")
    environment = build_environment()
    make(tree, environment, "defconfig")
    subprocess.run(["scripts/kconfig/merge_config.sh", "-m", ".config", CONFIG], cwd=tree, env=environment, check=True, capture_output=True)
    make(tree, environment, "olddefconfig")
    require_options((tree / ".config").read_text())
    compile_with_progress(tree, environment)
    subprocess.run(["strip", "-o", target / "linux", tree / "linux"], check=True)
    shutil.rmtree(target / ".source")


def require(fact: bool, otherwise: str) -> None:
    if not fact:
        raise MissingOnMachine(otherwise)


def unpack_source(folder: Path) -> Path:
    """Without the documentation, but for what the configuration reads of it."""
    folder.mkdir()
    (archive,) = download(SOURCE, folder, suite=SUITE)
    unpack(archive, folder)
    archive.unlink()
    tarball = folder / f"usr/src/{SOURCE}.tar.xz"
    top = SOURCE
    subprocess.run(
        ["tar", "-xf", tarball, "-C", folder, "--exclude", f"{top}/Documentation/[!K]*", "--exclude", f"{top}/tools/testing"], check=True
    )
    tarball.unlink()
    return folder / top


def build_environment() -> dict[str, str]:
    tools = unpacked("flex", "bison", "m4")
    return {
        "PATH": f"{tools}/usr/bin:{os.environ.get('PATH', os.defpath)}",
        "BISON_PKGDATADIR": f"{tools}/usr/share/bison",
        "M4": f"{tools}/usr/bin/m4",
        "ARCH": "um",
        "LC_ALL": "C",
    }


def make(tree: Path, environment: dict[str, str], *targets: str) -> None:
    done = subprocess.run(["make", *targets], cwd=tree, env=environment, capture_output=True, text=True)
    require(done.returncode == 0, f"the kernel's make {' '.join(targets)} failed: {done.stderr[-600:]}")


def require_options(config: str) -> None:
    """An option whose dependencies are not met is dropped without a word."""
    have = set(config.splitlines())
    lost = [line for line in CONFIG.read_text().splitlines() if line.endswith("=y") and line not in have]
    require(not lost, f"this kernel source does not offer {', '.join(lost)}")


def compile_with_progress(tree: Path, environment: dict[str, str]) -> None:
    command: Sequence[str] = ["make", f"-j{os.cpu_count() or 1}", "linux"]
    with subprocess.Popen(command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
        reader.start()
        started = time.monotonic()
        while reader.is_alive():
            reader.join(5)
            print(
                f"building a kernel, once: {len(lines)} of about {OBJECTS} parts, {time.monotonic() - started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    require(process.returncode == 0, f"the kernel does not build: {''.join(lines[-10:])}")
