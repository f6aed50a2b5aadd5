"""Opens what a container binds as detached mounts, from the host's own mount namespace; the zygote's is lean. The daemon's side."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from moorage_agent.errors import AgentError, InvalidTask
from moorage_agent.paths import Paths
from moorage_agent.runtime import linux
from moorage_agent.runtime.launch import Bind, Launch
from moorage_agent.silence import look_at

HOST_SHM = "/dev/shm"  # noqa: S108  not a temporary file: what processes of one IPC namespace share


class OpenBind(NamedTuple):
    fd: int
    directory: bool


async def open_binds(launch: Launch, paths: Paths) -> list[OpenBind]:
    """In the order of `launch`, what `ipc: Host` shares before them. The caller closes them. Raises InvalidTask, AgentError.

    Beside the loop where one is of the host, not below our own directories: its file system may be dead.
    """
    binds = [Bind(HOST_SHM, HOST_SHM)] if launch.security.ipc == "Host" else []
    binds += [mount for mount in launch.mounts if isinstance(mount, Bind)]
    own = (f"{paths.root}/", f"{paths.run}/", HOST_SHM)
    foreign = [bind.source for bind in binds if not bind.source.startswith(own)]
    if not foreign:
        return _open(binds)
    return await look_at(", ".join(foreign), lambda: _open(binds), too_late=close_binds)


def close_binds(binds: Iterable[OpenBind]) -> None:
    for bind in binds:
        os.close(bind.fd)


def _open(binds: Iterable[Bind]) -> list[OpenBind]:
    found: list[OpenBind] = []
    try:
        found.extend(map(_open_one, binds))
    except AgentError:
        close_binds(found)
        raise
    return found


def _open_one(bind: Bind) -> OpenBind:
    """The path is followed by open, not by open_tree: that one would keep the interpreter lock, and so every thread, while it waits."""
    try:
        fd, directory = _open_source(bind.source)
        try:
            flags = linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | linux.AT_RECURSIVE | linux.AT_EMPTY_PATH
            return OpenBind(linux.open_tree(fd, b"", flags), directory)
        finally:
            os.close(fd)
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"cannot bind {bind.source} on {bind.target}: {error.strerror} on this host; create it, or use a volume"
        raise InvalidTask("BindSourceMissing", what) from error
    except OSError as error:
        what = f"cannot bind {bind.source} on {bind.target}: {error.strerror}; look at it on the host"
        raise AgentError("MountSourceFailed", what) from error


def _open_source(source: str) -> tuple[int, bool]:
    """With whether it is a directory. Asked for as one, it is mounted first where an automounter has yet to do so."""
    try:
        return os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), True
    except NotADirectoryError:
        return os.open(source, os.O_PATH | os.O_CLOEXEC), False
