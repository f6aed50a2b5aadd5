"""Rights of a container. The defaults are as safe as the host allows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from moorage_operator.api.scalars import AbsolutePath, Memory
from moorage_operator.api.schema import Model, list_map, rule, set_list, text


class Device(Model):
    """A device of the host made visible in the container."""

    path: AbsolutePath
    """Path on the host, such as /dev/fuse."""

    target: AbsolutePath | None = None
    """Path in the container. Absent: the same."""

    permissions: Annotated[str, text(3, rule("self.matches('^r?w?m?$')", "write r (read), w (write), m (make nodes), such as rw"))] = "rwm"
    """What the container may do with it: r, w, m."""


class Sysctl(Model):
    """A kernel setting of the container's own namespaces."""

    name: Annotated[
        str, text(128, rule("self.matches('^[a-z0-9]([-._/a-zA-Z0-9]*[a-zA-Z0-9])?$')", "write a name such as net.core.somaxconn"))
    ]
    """Name, such as net.core.somaxconn."""

    value: Annotated[str, text(256, least=0)]
    """Value, quoted."""


class Ulimit(Model):
    """A limit of setrlimit(2)."""

    rules = (rule("self.soft <= self.hard", "soft must not be above hard"),)

    name: Literal[
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
    """Name of the limit, such as nofile."""

    soft: Annotated[int, Field(ge=0, le=2**62)]
    """The limit in force."""

    hard: Annotated[int, Field(ge=0, le=2**62)]
    """How far the container itself may raise it."""


Capability = Annotated[
    str,
    text(
        32,
        rule("self.matches('^[A-Z][A-Z0-9_]*$') && !self.startsWith('CAP_')", "write capabilities without CAP_, such as NET_ADMIN, or ALL"),
    ),
]
Confinement = Literal["RuntimeDefault", "Unconfined"]
NamespaceMode = Literal["Private", "Host"]


class Security(Model):
    """Rights of the container. What is absent is as safe as the host allows."""

    cap_add: Annotated[tuple[Capability, ...], set_list(48)] = ()
    """Capabilities beyond the usual ones, without CAP_, such as NET_ADMIN."""

    cap_drop: Annotated[tuple[Capability, ...], set_list(48)] = ()
    """Usual capabilities to take away, such as CHOWN, or ALL."""

    privileged: bool = False
    """All rights of root on the host. Refused in namespaces that enforce the baseline policy."""

    no_new_privileges: bool = True
    """Programs cannot gain rights by setuid bits or file capabilities."""

    seccomp: Confinement = "RuntimeDefault"
    """System calls allowed: RuntimeDefault, or Unconfined for all."""

    app_armor: Confinement = "RuntimeDefault"
    """AppArmor profile, on hosts that have it."""

    user_namespace: bool = False
    """Root in the container is an ordinary user on the host. Refused yet: no agent does it."""

    devices: Annotated[tuple[Device, ...], list_map("path", most=32)] = ()
    """Devices of the host made visible."""

    sysctls: Annotated[tuple[Sysctl, ...], list_map("name", most=32)] = ()
    """Kernel settings of the container's own namespaces."""

    ulimits: Annotated[tuple[Ulimit, ...], list_map("name", most=16)] = ()
    """Limits of setrlimit(2)."""

    shm_size: Memory | None = None
    """Size of /dev/shm. Absent: 64Mi."""

    oom_score_adj: Annotated[int, Field(ge=-1000, le=1000)] | None = None
    """How gladly the kernel kills this container when memory is short: -1000 never, 1000 first."""

    pid: NamespaceMode = "Private"
    """Host lets the container see the processes of the host."""

    ipc: NamespaceMode = "Private"
    """Host shares System V IPC and POSIX queues with the host."""
