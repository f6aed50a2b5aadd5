"""Makes what a container is given: volumes, files from values; and names the paths of the host it binds."""

from __future__ import annotations

import os
from collections.abc import Sequence

from moorage_agent.merge import Materials, mount_source
from moorage_agent.paths import Paths
from moorage_agent.protocol import TaskSpec
from moorage_agent.task_state import signal_number
from moorage_agent.templates import names_of
from moorage_agent.values import ValueStore
from moorage_agent.volumes import make_volume


def make_volumes(task: TaskSpec, layers: Sequence[str], *, paths: Paths, node_name: str) -> None:
    """The volumes of `task` that are not there yet, with what the image has in their place. May take long. Raises InvalidTask, OSError."""
    names = names_of(task, node_name)
    for mount in task.container.mounts:
        if mount.kind == "volume":
            make_volume(paths, mount_source(mount, names), layers=layers, target=mount.target)


def lacks_volumes(task: TaskSpec, *, paths: Paths, node_name: str) -> bool:
    """Raises InvalidTask for a volume key that is none."""
    names = names_of(task, node_name)
    keys = [mount_source(mount, names) for mount in task.container.mounts if mount.kind == "volume"]
    return not all(os.path.isdir(paths.volume(key)) for key in keys)


def binds(task: TaskSpec, *, node_name: str) -> dict[str, str]:
    """Paths of the host that `task` mounts, by target. Raises InvalidTask."""
    names = names_of(task, node_name)
    return {mount.target: mount_source(mount, names) for mount in task.container.mounts if mount.kind == "bind"}


def gather(task: TaskSpec, *, values: ValueStore) -> Materials:
    """What else the launch of `task` refers to, but its binds. Raises InvalidTask, AgentError (ValueMissing), OSError."""
    container = task.container
    if container.stop_signal:
        signal_number(container.stop_signal)
    return Materials(
        env={variable.key: values.get(variable.key) for variable in container.env if variable.key is not None},
        files={file: values.file(file.key, uid=file.uid, gid=file.gid, mode=file.mode) for file in container.files},
    )
