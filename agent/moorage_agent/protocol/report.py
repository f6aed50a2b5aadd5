"""What a node says: of its tasks and images, of itself, and of an image it was asked about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from moorage_agent.protocol.container import Healthcheck


@dataclass(frozen=True)
class Exit:
    """One end of a process. code None: unknown, no supervisor saw it. Times are seconds since 1970."""

    code: Optional[int]
    at: float
    oom_killed: bool = False
    started_at: Optional[float] = None
    reason: Optional[str] = None


@dataclass(frozen=True)
class TaskReport:
    """A task as observed: Preparing, Ready, Starting, Running, Complete, Failed or Rejected; `stopping` once the document lacks it."""

    uid: str
    state: str
    reason: str = ""
    message: str = ""
    restarts: int = 0
    exit_code: Optional[int] = None
    oom_killed: bool = False
    last_exits: tuple[Exit, ...] = ()
    started_at: Optional[float] = None
    pid: Optional[int] = None
    healthy: Optional[bool] = None
    stopping: bool = False


@dataclass(frozen=True)
class ImageReport:
    """An image as the node has it. state: Queued, Pulling, Ready or Failed; done and total are compressed bytes."""

    digest: str
    state: str
    reason: str = ""
    message: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Feature:
    """Something the host can or cannot do. `detail` says what is missing, for people."""

    name: str
    present: bool
    detail: str = ""


@dataclass(frozen=True)
class Listener:
    """A port of the host taken by a process that is not ours."""

    port: int
    protocol: str
    process: str = ""


@dataclass(frozen=True)
class HostFacts:
    """`volumes` are the keys of the named volumes this host has: a task goes back to its data, even after its Service was made anew."""

    host_id: str
    hostname: str
    os: str
    kernel: str
    arch: str
    boot_id: str
    python: str
    agent_version: str
    cpu_millis: int
    memory_bytes: int
    cgroup: str
    features: tuple[Feature, ...] = ()
    listeners: tuple[Listener, ...] = ()
    volumes: tuple[str, ...] = ()
    agent_release: str = ""


@dataclass(frozen=True)
class NodeReport:
    """What changed on a node, or (full) all there is. epoch, revision, hash echo the document in force; `removed` tasks are gone."""

    full: bool
    epoch: int
    revision: int
    hash: str
    tasks: tuple[TaskReport, ...] = ()
    removed: tuple[str, ...] = ()
    images: tuple[ImageReport, ...] = ()
    facts: Optional[HostFacts] = None


@dataclass(frozen=True)
class ImageConfig:
    entrypoint: Optional[tuple[str, ...]] = None
    command: Optional[tuple[str, ...]] = None
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: Optional[str] = None
    healthcheck: Optional[Healthcheck] = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    digest: str
    size: int


@dataclass(frozen=True)
class ResolvedImage:
    """The answer to `resolve`: what a tag or archive means right now, for one platform ("linux/amd64")."""

    digest: str
    platform: str
    size: int
    config: ImageConfig
    layers: tuple[Layer, ...] = ()
    platforms: tuple[str, ...] = ()
