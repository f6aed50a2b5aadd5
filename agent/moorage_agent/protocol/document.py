"""The document: all that one node should run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from moorage_agent.protocol.container import Container


@dataclass(frozen=True)
class ImageSource:
    """Where an image comes from. kind: Registry (reference), ArchiveUrl (url, sha256), ArchivePath (host path) or ArchiveData (key).

    `credentials` and `ca_bundle` are keys of values: {"username", "password"} or {"identitytoken"} as JSON, and PEM text.
    """

    kind: str
    reference: Optional[str] = None
    url: Optional[str] = None
    sha256: Optional[str] = None
    path: Optional[str] = None
    key: Optional[str] = None
    credentials: Optional[str] = None
    ca_bundle: Optional[str] = None
    insecure: bool = False
    platform: Optional[str] = None


@dataclass(frozen=True)
class ImageSpec:
    """An image a node needs: `digest` is what the operator pinned (of the platform's manifest; of the content, for an archive)."""

    digest: str
    source: ImageSource


@dataclass(frozen=True)
class TaskSpec:
    """One container of one slot. desired_state: Ready (prepare only) or Running. A task absent from the document is stopped and removed.

    `replaces` names the task of the same slot that makes way: with StopFirst the agent stops it before it starts this one.
    `stop_after_s`: stop by itself when no operator was heard for so long (onDisconnect.stopAfter).
    """

    uid: str
    namespace: str
    name: str
    service: str
    slot: str
    version: str
    container: Container
    image: ImageSpec
    desired_state: str = "Running"
    stack: Optional[str] = None
    attempt: int = 1
    replaces: Optional[str] = None
    handover: str = "StopFirst"
    stop_after_s: Optional[float] = None


@dataclass(frozen=True)
class NodeSpec:
    """The whole wish for one node. `node_name` and `labels` are for people and templates; the rest decides."""

    swarm_id: str
    node_uid: str
    epoch: int
    revision: int
    node_name: str = ""
    tasks: tuple[TaskSpec, ...] = ()
    images: tuple[ImageSpec, ...] = ()
