"""One start of a container, fully resolved: no template, no image reference, no key of a value is left to look up.

The daemon makes a Launch; `check()` refuses what can never start, before anything exists on the host.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from moorage_agent.errors import HostLacks, InvalidTask
from moorage_agent.paths import task_uid
from moorage_agent.protocol import LogLimits, Resources, Security

DEFAULT_SHM_BYTES = 64 * 1024 * 1024
MAX_BINDS = 200  # each travels to the zygote as one descriptor, and the kernel passes 253 at once


@dataclass(frozen=True)
class Bind:
    """A directory, file or socket of the host seen in the container: a volume, a host path, a config or secret file.

    Owner and mode are the source's own. The target is made when it does not exist. Set-user-id files and device nodes in it have no power.
    """

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Tmpfs:
    """`size` in bytes; None: half of the container's memory limit, without one of the host's memory. Counted against that limit."""

    target: str
    size: int | None = None
    mode: int = 0o1777
    read_only: bool = False


@dataclass(frozen=True)
class Launch:
    """`layers`: directories, topmost first. `env`: NAME=value strings; values may be secret, so the repr leaves them out.

    `user`: "", "name", "uid", "name:group" or "uid:gid", looked up in the container's own passwd. `network`: "Isolated" or "Host".
    `resolv_conf` None: the host's for the host's network, an empty one otherwise. `mounts` are made in this order.
    """

    uid: str
    run: int
    layers: tuple[str, ...]
    argv: tuple[str, ...] = field(repr=False)
    env: tuple[str, ...] = field(default=(), repr=False)
    cwd: str = "/"
    user: str = ""
    groups: tuple[str, ...] = ()
    hostname: str = ""
    tty: bool = False
    init: bool = False
    read_only: bool = False
    mounts: tuple[Bind | Tmpfs, ...] = ()
    network: str = "Isolated"
    hosts: tuple[tuple[str, str], ...] = ()
    resolv_conf: str | None = None
    resources: Resources = field(default_factory=Resources)
    security: Security = field(default_factory=Security)
    logs: LogLimits = field(default_factory=LogLimits)

    def check(self) -> None:
        """Raise InvalidTask, or HostLacks, for what cannot start."""
        task_uid(self.uid)
        _check_program(self)
        _check_root(self)
        if self.network not in ("Isolated", "Host"):
            raise InvalidTask("InvalidNetwork", f"network {self.network!r} is neither Isolated nor Host")
        if self.security.user_namespace:
            raise HostLacks("NoUserNamespace", "this agent does not give containers a user namespace; leave security.userNamespace out")


def _check_program(launch: Launch) -> None:
    if launch.run < 1:
        raise InvalidTask("InvalidRun", f"run {launch.run} of {launch.uid}: runs count from 1")
    if not launch.argv or not launch.argv[0]:
        raise InvalidTask("NoCommand", "neither the image nor the task says what to run; set command")
    for text in (*launch.argv, *launch.env, launch.cwd, launch.user, *launch.groups, launch.hostname):
        if "\0" in text:
            raise InvalidTask("InvalidText", "a command, variable, path or name holds a NUL byte, which no program can receive")
    nameless = [variable.partition("=")[0] for variable in launch.env if "=" not in variable[1:]]
    if nameless:
        raise InvalidTask("InvalidEnv", f"variable {nameless[0][:64]!r} is not NAME=value: correct it in the image or in the task")
    if not launch.cwd.startswith("/"):
        raise InvalidTask("InvalidWorkingDir", f"working directory {launch.cwd!r} is not absolute")
    if len(launch.hostname.encode()) > 64 or set(launch.hostname) & set("/ \t\n"):
        raise InvalidTask("InvalidHostname", f"hostname {launch.hostname!r} is longer than 64 bytes or holds blanks or slashes")


def _check_root(launch: Launch) -> None:
    if not launch.layers or not all(map(_plain_absolute, launch.layers)):
        raise InvalidTask("InvalidImage", f"the root of {launch.uid} has no layers, or one is not an absolute path without . and ..")
    for mount in launch.mounts:
        if not _plain_absolute(mount.target.rstrip("/")) or mount.target.split("/")[1] == "proc":
            raise InvalidTask("InvalidMount", f"mount target {mount.target!r} is not a path below / without . and .., or is in /proc")
        if isinstance(mount, Bind) and not _plain_absolute(mount.source):
            raise InvalidTask("InvalidMount", f"mount source {mount.source!r} is not an absolute path without . and ..")
    if sum(isinstance(mount, Bind) for mount in launch.mounts) > MAX_BINDS:
        raise InvalidTask("TooManyMounts", f"{launch.uid} has more than {MAX_BINDS} volumes, binds and files")


def _plain_absolute(path: str) -> bool:
    return path.startswith("/") and not path.startswith("//") and "\0" not in path and os.path.normpath(path) == path
