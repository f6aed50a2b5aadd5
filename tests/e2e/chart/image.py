"""What the Containerfile would build, without an engine to build it: its files, its wheel, its environment."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from tests.machine import MissingOnMachine, cache_dir, once

CHECKOUT = Path(__file__).parents[3]
CONTAINERFILE = CHECKOUT / "Containerfile"


def instructions(name: str) -> list[str]:
    """The arguments of every instruction of that name, in order."""
    return re.findall(rf"^{name} (.*)$", CONTAINERFILE.read_text(), re.MULTILINE)


def build(folder: Path) -> Path:
    """The Python of a clean environment that holds what the image would, and nothing else."""
    source, wheels, target = folder / "src", folder / "wheels", folder / "moorage"
    copy_sources(source)
    packages = dependencies()
    pip("wheel", "--no-deps", "--wheel-dir", wheels, source, packages=packages)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", target], check=True)
    python = target / "bin" / "python"
    constraints = source / "constraints.txt"
    pip("--python", python, "install", "--only-binary", ":all:", "--constraint", constraints, *wheels.iterdir(), packages=packages)
    return python


def copy_sources(target: Path) -> None:
    """What the build stage copies out of the checkout."""
    target.mkdir()
    for line in (line for line in instructions("COPY") if not line.startswith("--from")):
        *names, where = line.split()
        for name in names:
            entry = CHECKOUT / name
            if entry.is_dir():
                shutil.copytree(entry, target / where, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(entry, target / where)


def dependencies() -> Path:
    """Wheels of everything the project is built with and needs, downloaded once."""
    files = [CHECKOUT / "pyproject.toml", CHECKOUT / "constraints.txt"]
    digest = sha256(b"".join(file.read_bytes() for file in files) + sys.version.encode()).hexdigest()[:16]
    return once(cache_dir() / "wheels" / digest, download)


def download(target: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--wheel-dir",
        str(target),
        "--constraint",
        str(CHECKOUT / "constraints.txt"),
    ]
    done = subprocess.run([*command, "hatchling>=1.27", str(CHECKOUT)], capture_output=True, text=True)
    if done.returncode != 0:
        raise MissingOnMachine(f"cannot download the operator's dependencies: {done.stderr.strip()[-600:]}")
    for own in target.glob("moorage-*.whl"):
        own.unlink()


def pip(*args: str | Path, packages: Path) -> None:
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(packages), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-m", "pip", *map(str, args)], env=offline, capture_output=True, text=True)
    assert done.returncode == 0, f"pip {args[0]}: {done.stderr.strip()[-2000:]}"
