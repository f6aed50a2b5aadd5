"""What an image and a task say together: one start of a container, by Docker's rules. Pure.

command replaces the image's entrypoint and drops its arguments; args replaces the arguments alone. Variables add up by name; the task wins.
PATH, HOSTNAME and TERM are the runtime's to default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from moorage_agent.errors import InvalidTask
from moorage_agent.images.store import Image
from moorage_agent.paths import Paths
from moorage_agent.protocol import DataFile, EnvVar, ImageConfig, Mount, TaskSpec
from moorage_agent.runtime.launch import Bind, Launch, Tmpfs
from moorage_agent.templates import expand, names_of


@dataclass(frozen=True)
class Materials:
    """What had to be read or made first: `env` values by key (may be secret), and for each file the host's path of it."""

    env: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    files: Mapping[DataFile, str] = field(default_factory=dict)


def launch_of(task: TaskSpec, image: Image, materials: Materials, *, paths: Paths, node_name: str) -> Launch:
    """The launch of the task's first run. Raises InvalidTask naming the field, HostLacks."""
    container, names = task.container, names_of(task, node_name)
    hostname = expand(container.hostname, names, where="hostname") if container.hostname else task.name[:63].rstrip("-.")
    launch = Launch(
        uid=task.uid,
        run=1,
        layers=image.layers,
        argv=argv_of(task, image.config),
        env=_env(task, image.config, materials, names),
        cwd=container.working_dir or image.config.working_dir or "/",
        user=container.user or image.config.user,
        groups=container.groups,
        hostname=hostname,
        tty=container.tty,
        init=container.init,
        read_only=container.read_only,
        mounts=_mounts(task, materials, names, paths),
        network=container.network,
        resources=container.resources,
        security=container.security,
        logs=container.logs,
    )
    launch.check()
    return launch


def argv_of(task: TaskSpec, image: ImageConfig) -> tuple[str, ...]:
    """The program and its arguments; empty when neither side says."""
    container = task.container
    if container.command:
        return container.command + (container.args or ())
    return (image.entrypoint or ()) + (container.args if container.args is not None else image.command or ())


def mount_source(mount: Mount, names: Mapping[str, str]) -> str:
    """The source of a volume (its key) or bind (a path), templates expanded. Raises InvalidTask."""
    if mount.source is None:
        raise InvalidTask("InvalidMount", f"the {mount.kind} mounted at {mount.target} has no source")
    return expand(mount.source, names, where=f"mount {mount.target}")


def _env(task: TaskSpec, image: ImageConfig, materials: Materials, names: Mapping[str, str]) -> tuple[str, ...]:
    merged: dict[str, str] = {}
    for entry in image.env:
        name, _, value = entry.partition("=")
        merged[name] = value
    for variable in task.container.env:
        if not variable.name or "=" in variable.name:
            raise InvalidTask("InvalidEnv", f"variable name {variable.name!r} is empty or holds '='")
        merged[variable.name] = _value(variable, materials, names)
    return tuple(f"{name}={value}" for name, value in merged.items())


def _value(variable: EnvVar, materials: Materials, names: Mapping[str, str]) -> str:
    if variable.key is None:
        return expand(variable.value or "", names, where=f"env {variable.name}")
    try:
        return materials.env[variable.key].decode()
    except UnicodeDecodeError:
        remedy = "mount it as a file instead"
        raise InvalidTask("InvalidEnv", f"the value of {variable.name} ({variable.key}) is not UTF-8 text; {remedy}") from None


def _mounts(task: TaskSpec, materials: Materials, names: Mapping[str, str], paths: Paths) -> tuple[Bind | Tmpfs, ...]:
    """In order of depth: a mount below another one must come after it."""
    mounts: list[Bind | Tmpfs] = [_mount(mount, names, paths) for mount in task.container.mounts]
    mounts += [Bind(materials.files[file], file.target, read_only=True) for file in task.container.files]
    return tuple(sorted(mounts, key=lambda mount: os.path.normpath(mount.target).count("/")))


def _mount(mount: Mount, names: Mapping[str, str], paths: Paths) -> Bind | Tmpfs:
    if mount.kind == "tmpfs":
        return Tmpfs(mount.target, mount.size, read_only=mount.read_only)
    if mount.kind == "volume":
        return Bind(paths.volume(mount_source(mount, names)), mount.target, mount.read_only)
    if mount.kind == "bind":
        return Bind(os.path.normpath(mount_source(mount, names)), mount.target, mount.read_only)
    raise InvalidTask("InvalidMount", f"mount {mount.target} is a {mount.kind!r}; there are volume, bind and tmpfs")
