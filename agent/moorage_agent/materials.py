"""Makes what a container is given: volumes, files from values; checks that bind sources exist."""

from __future__ import annotations

from moorage_agent.merge import Materials, mount_source
from moorage_agent.paths import Paths
from moorage_agent.protocol import Mount, TaskSpec
from moorage_agent.task_state import signal_number
from moorage_agent.templates import names_of
from moorage_agent.values import ValueStore
from moorage_agent.volumes import check_bind, make_volume


def gather(task: TaskSpec, *, paths: Paths, values: ValueStore, node_name: str) -> Materials:
    """Everything the launch of `task` refers to, present on this host. Raises InvalidTask, AgentError (ValueMissing), OSError."""
    container = task.container
    if container.stop_signal:
        signal_number(container.stop_signal)
    names = names_of(task, node_name)
    for mount in container.mounts:
        _ready(mount, names, paths)
    return Materials(
        env={variable.key: values.get(variable.key) for variable in container.env if variable.key is not None},
        files={file: values.file(file.key, uid=file.uid, gid=file.gid, mode=file.mode) for file in container.files},
    )


def _ready(mount: Mount, names: dict[str, str], paths: Paths) -> None:
    if mount.kind == "volume":
        make_volume(paths, mount_source(mount, names))
    elif mount.kind == "bind":
        check_bind(mount_source(mount, names), target=mount.target)
