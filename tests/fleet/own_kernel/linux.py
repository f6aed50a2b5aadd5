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
from pathlib import Path

from tests.machine import MissingOnMachine, cache_dir, once
from tests.machine.debian_root import make_debian_root, remove_root
from tests.machine.debs import download, unpack

SOURCE = "linux-source-7.2"
SUITE = "sid"
CONFIG = Path(__file__).with_name("linux.config")
TOOLS = ("gcc", "libc6-dev", "make", "bc", "flex", "bison", "xz-utils")
TREE = f"usr/src/{SOURCE}"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "ARCH": "um", "LC_ALL": "C"}
OBJECTS = 1900  # about what is compiled, for the progress shown


def linux() -> Path:
    """The kernel, a program of 13 MB. Built on first use, in about 5 minutes. Raises MissingOnMachine where it cannot be."""
    key = hashlib.sha256(CONFIG.read_bytes() + SOURCE.encode()).hexdigest()[:16]
    return once(cache_dir() / "linux" / key, build) / "linux"


def build(target: Path) -> None:
    """In a Debian of its own, because a machine may have no compiler."""
    require(platform.machine() == "x86_64", "User Mode Linux is built for x86_64 only")
    print("building a kernel, once: a Debian with a compiler first", file=sys.stderr, flush=True)
    root = target / ".root"
    make_debian_root(root, *TOOLS)
    unpack_source(root)
    make(root, "defconfig")
    shutil.copy(CONFIG, root / "bench.config")
    run(root, "scripts/kconfig/merge_config.sh", "-m", ".config", "/bench.config")
    make(root, "olddefconfig")
    require_options((root / f"{TREE}/.config").read_text())
    compile_with_progress(root)
    run(root, "strip", "-o", "/linux", "linux")
    shutil.copy(root / "linux", target / "linux")
    remove_root(root)


def require(fact: bool, otherwise: str) -> None:
    if not fact:
        raise MissingOnMachine(otherwise)


def unpack_source(root: Path) -> None:
    """Without the documentation, but for what the configuration reads of it."""
    (archive,) = download(SOURCE, root, suite=SUITE)
    unpack(archive, root)
    archive.unlink()
    (root / TREE).mkdir()
    left_out = (f"--exclude={SOURCE}/{name}" for name in ("Documentation/[!K]*", "tools/testing"))
    run(root, "tar", "-xf", f"/{TREE}.tar.xz", "--strip-components=1", *left_out)


def make(root: Path, *targets: str) -> None:
    run(root, "make", *targets)


def run(root: Path, *command: str) -> None:
    """There, in the kernel's tree."""
    done = subprocess.run(there(root, *command), env=ENVIRONMENT, capture_output=True, text=True)
    require(done.returncode == 0, f"{' '.join(command)} failed for the kernel: {done.stderr[-600:]}")


def there(root: Path, *command: str) -> list[str | Path]:
    return ["chroot", root, "env", "-C", f"/{TREE}", *command]


def require_options(config: str) -> None:
    """An option whose dependencies are not met is dropped without a word."""
    have = set(config.splitlines())
    lost = [line for line in CONFIG.read_text().splitlines() if line.endswith("=y") and line not in have]
    require(not lost, f"this kernel source does not offer {', '.join(lost)}")


def compile_with_progress(root: Path) -> None:
    command = there(root, "make", f"-j{os.cpu_count() or 1}", "linux")
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
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
