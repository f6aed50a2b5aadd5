"""The swarm as placement sees it: nodes, what they have, what their tasks hold. Values only; `fleet_view_cache.py` keeps them current."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from moorage_agent.protocol import Listener, Port

from .placement_needs import ServiceKey


class ServiceVersion(NamedTuple):
    service: ServiceKey
    version: str


@dataclass(frozen=True, slots=True)
class Amount:
    """cpu in thousandths of a core, memory in bytes."""

    cpu_millis: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """What one task that may run holds on its node. `replaces` and `start_first` as in TaskNeeds. `name` is for people."""

    uid: str
    name: str
    service: ServiceKey
    version: str
    amount: Amount = Amount()
    ports: tuple[Port, ...] = ()
    devices: tuple[tuple[str, int], ...] = ()
    replaces: str | None = None
    start_first: bool = False


@dataclass(slots=True)
class Load:
    """The sum of what is held on one node. The owner of a port is text for people: "web-1-x7k2"."""

    cpu_millis: int = 0
    memory_bytes: int = 0
    tasks: int = 0
    services: dict[ServiceKey, int] = field(default_factory=dict)
    ports: dict[tuple[str, int], tuple[tuple[str | None, str], ...]] = field(default_factory=dict)
    devices: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeView:
    """One Node. `availability` is Active, Pause or Drain; `why_not_ready` is the reason of condition Ready while it is not True.

    `failures` are the times of failed exits per version of a Service, `volumes` the keys of named volumes the host has.
    """

    name: str
    uid: str
    ready: bool = True
    why_not_ready: str = ""
    availability: str = "Active"
    out_of_service: bool = False
    deleting: bool = False
    allowed_namespaces: frozenset[str] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    os: str = "linux"
    arch: str = ""
    features: Mapping[str, bool] = field(default_factory=dict)
    allocatable: Amount = Amount()
    devices: Mapping[str, int] = field(default_factory=dict)
    listeners: tuple[Listener, ...] = ()
    volumes: frozenset[str] = frozenset()
    holdings: Mapping[str, Holding] = field(default_factory=dict)
    load: Load = field(default_factory=Load)
    failures: Mapping[ServiceVersion, tuple[datetime, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All Nodes, by name."""

    nodes: Mapping[str, NodeView]

    @classmethod
    def of(cls, nodes: Iterable[NodeView]) -> Fleet:
        return cls({node.name: node for node in nodes})
