"""What a task asks of the node it will run on.

All tasks of one version of a Service share one `Demand`; a `TaskNeeds` adds what belongs to the slot. Placement works per Demand, so
twenty thousand tasks of a thousand Services cost a thousand looks at the fleet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from moorage_agent.protocol import Port


class ServiceKey(NamedTuple):
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Demand:
    """What every task of one version of a Service asks.

    cpu_millis and memory_bytes are reservations: a limit alone reserves nothing, as in Swarm, and a task without reservations fits wherever
    the other filters let it. `platforms` ("linux/amd64") are those of the image; empty: not known, any node will do. `constraints` and
    `preferences` (what to spread over: "node.labels.rack") are the user's text. `features` are names of host features. `volumes` are keys
    of the named volumes its tasks share: after a pause the Service finds its way back to them.
    """

    service: ServiceKey
    version: str
    cpu_millis: int = 0
    memory_bytes: int = 0
    devices: tuple[tuple[str, int], ...] = ()
    ports: tuple[Port, ...] = ()
    platforms: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    preferences: tuple[str, ...] = ()
    max_per_node: int | None = None
    features: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Home:
    """The one node a slot belongs to, and why: "its volume shop/db/data is there", "sticky", "a global slot"."""

    node: str
    why: str


@dataclass(frozen=True, slots=True)
class TaskNeeds:
    """One task to place. `name` is the Task's.

    `replaces` is the uid of the Task that makes way: on its node, what it holds is free for this one. With order StartFirst both run for a
    while, so only its place in the count per node is free. `home` binds the task to one node as long as that node exists and is not given
    up (deleted, out of service). Without a home, `volumes` bind it: keys of named volumes of this slot alone; once a node has one, the task
    runs only there.
    """

    name: str
    demand: Demand
    replaces: str | None = None
    start_first: bool = False
    home: Home | None = None
    volumes: tuple[str, ...] = ()
