"""How a Node is."""

from __future__ import annotations

from typing import Annotated

from moorage_operator.api.condition import Conditions
from moorage_operator.api.scalars import Count, Cpu, Line, Memory, Message, Port, Word
from moorage_operator.api.schema import Model, atomic_list, list_map


class Amounts(Model):
    """Amounts of what a node has."""

    cpu: Cpu | None = None
    """Cores."""

    memory: Memory | None = None
    """Memory."""


class FeatureStatus(Model):
    """Something the host can or cannot do."""

    name: Word
    """Name of the feature."""

    present: bool | None = None
    """Whether the host has it."""

    detail: Message | None = None
    """What is missing."""


class ListenerStatus(Model):
    """A port of the host taken by a process that is not ours."""

    port: Port | None = None
    """The port."""

    protocol: Word | None = None
    """TCP or UDP."""

    process: Line | None = None
    """Name of the process."""


class NodeStatus(Model):
    """How the host is."""

    observed_generation: Count | None = None
    """The metadata.generation this status speaks of."""

    state: Word | None = None
    """Ready, NotReady or Unknown, for people."""

    host_id: Line | None = None
    """Identity of the host, made by the agent at first contact."""

    hostname: Line | None = None
    """Name the host gives itself."""

    boot_id: Line | None = None
    """Changes with each boot of the host."""

    agent_version: Line | None = None
    """Version of the agent that runs there."""

    python: Line | None = None
    """Version of Python the agent runs on."""

    os: Line | None = None
    """Operating system."""

    kernel: Line | None = None
    """Version of the kernel."""

    architecture: Line | None = None
    """Processor, such as amd64."""

    cgroup: Line | None = None
    """How control groups are mounted: v2, hybrid, v1 or none."""

    features: Annotated[tuple[FeatureStatus, ...], list_map("name", most=64)] = ()
    """What the host can and cannot do."""

    capacity: Amounts | None = None
    """What the host has."""

    allocatable: Amounts | None = None
    """What tasks may reserve."""

    allocated: Amounts | None = None
    """What tasks have reserved."""

    cpu: Line | None = None
    """Reserved and allocatable cores, such as 1500m/4."""

    memory: Line | None = None
    """Reserved and allocatable memory, such as 2Gi/15Gi."""

    tasks: Count | None = None
    """Number of tasks placed here."""

    listeners: Annotated[tuple[ListenerStatus, ...], atomic_list(256)] = ()
    """Ports of the host taken by processes that are not ours."""

    volumes: Annotated[tuple[Line, ...], atomic_list(1024)] = ()
    """Named volumes on the host, as namespace/stack/name (without a Stack Service.<service>): tasks go back to their data."""

    conditions: Conditions = ()
    """Ready: takes and runs tasks. Connected: the operator talks to the agent. AgentCurrent: the agent has the operator's version.

    Stalled: only a person can help. Removing: what a deleted Node waits for.
    """
