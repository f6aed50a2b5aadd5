"""What is mounted into a container: volumes, paths of the host, memory, and files made of Secrets and ConfigMaps."""

from __future__ import annotations

from typing import Annotated

from moorage_operator.api.meta import KeyRef
from moorage_operator.api.scalars import AbsolutePath, FileMode, Id, Memory
from moorage_operator.api.schema import Model, one_of, rule, text


class VolumeSource(Model):
    """A directory that the host keeps under a name. It is made at first use and outlives tasks, Service and Stack."""

    name: Annotated[
        str,
        text(
            63,
            rule(
                "self.matches('^([a-z0-9]|[{][{][.a-zA-Z]+[}][}])([-a-z0-9]|[{][{][.a-zA-Z]+[}][}])*$')",
                'write lower-case letters, digits and "-", such as data; data-{{.Task.Slot}} makes one volume for each slot',
            ),
        ),
    ]
    """Name of the volume. Services of one Stack that use the same name on the same host share it. May hold {{.Task.Slot}}."""


class BindSource(Model):
    """A directory or file of the host."""

    path: Annotated[
        str,
        text(
            512,
            rule(
                "self.startsWith('/') && !self.contains('/../') && !self.endsWith('/..')",
                'write an absolute path of the host without "..", such as /srv/data; relative paths have no meaning on a host',
            ),
        ),
    ]
    """Absolute path on the host; it must exist there."""


class TmpfsSource(Model):
    """A directory in memory, empty at each start."""

    size: Memory | None = None
    """Most it may hold, such as 64Mi. Absent: half of the task's memory limit, or of the host's memory."""


class Mount(Model):
    """Something mounted into the container."""

    rules = (one_of("volume", "bind", "tmpfs", hint="write for example volume: {name: data}"),)

    target: AbsolutePath
    """Where it appears in the container."""

    volume: VolumeSource | None = None
    """A named volume. Tasks that mount one stay on their node."""

    bind: BindSource | None = None
    """A path of the host. Refused in namespaces that enforce the baseline policy."""

    tmpfs: TmpfsSource | None = None
    """Memory."""

    read_only: bool = False
    """True forbids writing."""


class DataFile(Model):
    """A file made of an entry of a Secret or ConfigMap."""

    uid: Id = 0
    """Owner of the file."""

    gid: Id = 0
    """Group of the file."""

    mode: FileMode = "0444"
    """Permissions, as quoted octal digits such as "0440"."""


class SecretFile(DataFile):
    """A file in memory with a secret."""

    target: Annotated[
        str,
        text(
            512,
            rule(
                "self.startsWith('/') ? !self.contains('/../') && !self.endsWith('/..')"
                " : !self.contains('/') && self != '.' && self != '..'",
                "write a file name (it appears in /run/secrets) or an absolute path",
            ),
        ),
    ]
    """A name, which appears in /run/secrets, or an absolute path."""

    secret_ref: KeyRef
    """The Secret and its key."""


class ConfigFile(DataFile):
    """A file with configuration."""

    target: AbsolutePath
    """Absolute path in the container."""

    config_map_ref: KeyRef
    """The ConfigMap and its key."""
