"""The swarm as placement sees it: nodes, what they have, what their tasks hold. Values only; `fleet_view_cache.py` keeps them current."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from moorage_agent.protocol import Listener

from moorage_operator.plan.fleet_view_load import NOTHING, Amount, Holding, Load
from moorage_operator.plan.placement_needs import ServiceKey


class ServiceVersion(NamedTuple):
    service: ServiceKey
    version: str


@dataclass(frozen=True, slots=True)
class NodeView:
    """One Node. `availability` is Active, Pause or Drain; `why_not_ready` is the reason of condition Ready while it is not True.

    `features` says of each feature the agent looked for whether the host has it. `holdings` are by uid of the task, `load` is their sum.
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
    allocatable: Amount = NOTHING
    devices: Mapping[str, int] = field(default_factory=dict)
    listeners: tuple[Listener, ...] = ()
    volumes: frozenset[str] = frozenset()
    holdings: Mapping[str, Holding] = field(default_factory=dict)
    load: Load = field(default_factory=Load)
    failures: Mapping[ServiceVersion, tuple[datetime, ...]] = field(default_factory=dict)

    @property
    def given_up(self) -> bool:
        """Somebody said that this node will not come back: nothing waits for it."""
        return self.out_of_service or self.deleting


@dataclass(frozen=True, slots=True)
class Fleet:
    """All Nodes, by name."""

    nodes: Mapping[str, NodeView]

    @classmethod
    def of(cls, nodes: Iterable[NodeView]) -> Fleet:
        return cls({node.name: node for node in nodes})
