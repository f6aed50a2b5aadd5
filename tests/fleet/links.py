"""Network links by iproute2, in any process's network namespace. The machine's own, or Debian's package unpacked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from typing import Any

from tests.machine.debs import environment_of, unpacked


def configure(commands: str, *, within: int | None = None, check: bool = True) -> None:
    """Lines of `ip` commands, all at once, in the network namespace of process `within`.

    Raises AssertionError with ip's words, if `check`.
    """
    program, environment = ip_command()
    done = subprocess.run(
        [*entering(within), program, "-batch", "-"], input=commands, capture_output=True, text=True, env=dict(environment), timeout=30
    )
    assert not check or done.returncode == 0, f"ip: {done.stderr.strip()} in\n{commands}"


def show(what: str, *, within: int | None = None) -> list[dict[str, Any]]:
    """`ip -json` of "link", "address", "route"…"""
    program, environment = ip_command()
    done = subprocess.run([*entering(within), program, "-json", *what.split()], capture_output=True, env=dict(environment), check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout or b"[]")
    return found


def entering(pid: int | None) -> list[str]:
    return [] if pid is None else ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]


@cache
def ip_command() -> tuple[str, Mapping[str, str]]:
    found = shutil.which("ip") or shutil.which("ip", path="/usr/sbin:/sbin")
    if found:
        return found, os.environ
    root = unpacked("iproute2")
    return str(root / "sbin/ip"), environment_of(root)
