"""What a bare host should be like. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class HostSpec:
    """The default is Debian as installed: root may log in by key, python3 is /usr/bin/python3, the disk is a folder of this machine's.

    user: a further user who may log in by the same key. become: "sudo" or "doas": how that user becomes root, without a password.
    python: another interpreter to be found as python3. sshd: options laid over the default ones, as in sshd_config(5).
    disk_mb: a file system of its own of this size on /var/lib/moorage. hidden: paths the host does not have.
    read_only: further host paths by the machine's paths shown there.
    """

    user: str | None = None
    become: str | None = None
    python: Path | None = None
    sshd: Mapping[str, str] = field(default_factory=dict)
    disk_mb: int | None = None
    hidden: tuple[str, ...] = ()
    read_only: Mapping[str, str] = field(default_factory=dict)
