"""The ssh program, with nothing of the developer's: neither configuration nor agent nor known hosts."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

from tests.machine.debs import unpacked


def ssh_command(known_hosts: Path, key_file: Path, target: str) -> list[str]:
    """The beginning of a command line; the remote command follows as one word. Never asks, gives up connecting after 5 s."""
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": "5",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "LogLevel": "ERROR",
        "ServerAliveInterval": "5",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(known_hosts),
    }
    return [ssh(), "-F", "none", "-i", str(key_file), *(f"-o{name}={value}" for name, value in options.items()), target]


@cache
def ssh() -> str:
    return shutil.which("ssh") or str(unpacked("openssh-client") / "usr/bin/ssh")
