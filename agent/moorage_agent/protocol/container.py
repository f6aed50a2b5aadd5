"""One container as a node is told of it: the program, its files, limits and rights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class EnvVar:
    """One variable: `value` in clear, or `key` of a value that travels apart."""

    name: str
    value: Optional[str] = None
    key: Optional[str] = None


@dataclass(frozen=True)
class Healthcheck:
    """Exactly one of exec, http_port, tcp_port; none of them: `disabled` overrides the image's own check."""

    exec: Optional[tuple[str, ...]] = None
    http_port: Optional[int] = None
    http_path: str = "/"
    tcp_port: Optional[int] = None
    disabled: bool = False
    interval_s: float = 30.0
    timeout_s: float = 30.0
    retries: int = 3
    start_period_s: float = 0.0
    start_interval_s: float = 5.0


@dataclass(frozen=True)
class Mount:
    """`kind` volume: source is the volume's key on the host (namespace/stack/name[/slot]); bind: a host path; tmpfs: size in bytes."""

    target: str
    kind: str
    source: Optional[str] = None
    read_only: bool = False
    size: Optional[int] = None


@dataclass(frozen=True)
class DataFile:
    """A file made of a value. `secret` files live in memory only; others in content-addressed files on disk."""

    target: str
    key: str
    secret: bool
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


@dataclass(frozen=True)
class Resources:
    cpu_limit: Optional[int] = None
    cpu_reservation: Optional[int] = None
    memory_limit: Optional[int] = None
    memory_reservation: Optional[int] = None
    swap_limit: Optional[int] = None
    pids_limit: Optional[int] = None


@dataclass(frozen=True)
class Ulimit:
    name: str
    soft: int
    hard: int


@dataclass(frozen=True)
class Sysctl:
    name: str
    value: str


@dataclass(frozen=True)
class Device:
    path: str
    target: Optional[str] = None
    permissions: str = "rwm"


@dataclass(frozen=True)
class Security:
    """seccomp and app_armor: "RuntimeDefault" or "Unconfined". pid and ipc: "Private" or "Host"."""

    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    no_new_privs: bool = True
    seccomp: str = "RuntimeDefault"
    app_armor: str = "RuntimeDefault"
    user_namespace: bool = False
    devices: tuple[Device, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    shm_size: Optional[int] = None
    oom_score_adj: Optional[int] = None
    pid: str = "Private"
    ipc: str = "Private"


@dataclass(frozen=True)
class LogLimits:
    max_size: int = 10 * 1024 * 1024
    max_files: int = 3


@dataclass(frozen=True)
class Restart:
    """condition: Any, OnFailure or None. max_attempts counts inside window_s; attempts_used were spent by earlier Tasks of the slot."""

    condition: str = "Any"
    delay_s: float = 1.0
    max_delay_s: float = 300.0
    max_attempts: Optional[int] = None
    window_s: Optional[float] = None
    attempts_used: int = 0


@dataclass(frozen=True)
class Port:
    """A port the container listens on, on the host's addresses. `protocol` is TCP or UDP."""

    port: int
    protocol: str = "TCP"
    host_ip: Optional[str] = None


@dataclass(frozen=True)
class Container:
    """What to run. Text fields may hold the templates {{.Node.Hostname}}, {{.Task.Slot}}, {{.Service.Name}}: the agent expands them."""

    command: Optional[tuple[str, ...]] = None
    args: Optional[tuple[str, ...]] = None
    env: tuple[EnvVar, ...] = ()
    working_dir: Optional[str] = None
    user: Optional[str] = None
    groups: tuple[str, ...] = ()
    hostname: Optional[str] = None
    tty: bool = False
    stdin: bool = False
    init: bool = False
    read_only: bool = False
    stop_signal: Optional[str] = None
    stop_grace_s: float = 10.0
    healthcheck: Optional[Healthcheck] = None
    mounts: tuple[Mount, ...] = ()
    files: tuple[DataFile, ...] = ()
    resources: Resources = Resources()
    security: Security = Security()
    logs: LogLimits = LogLimits()
    restart: Restart = Restart()
    network: str = "Isolated"
    ports: tuple[Port, ...] = ()
