"""Node: a machine of the swarm, reached over SSH."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from moorage_operator.api.meta import ObjectMeta
from moorage_operator.api.node_status import NodeStatus
from moorage_operator.api.resource import Column, Kind, Resource
from moorage_operator.api.scalars import AbsolutePath, Cpu, Label, Memory
from moorage_operator.api.schema import Model, atomic_list, list_map, published, rule, set_list, text
from moorage_operator.api.ssh import Ssh


class Reserved(Model):
    """What is left to the host itself."""

    cpu: Cpu | None = None
    """Cores, such as 500m. Absent: 5 % of the host's."""

    memory: Memory | None = None
    """Memory, such as 1Gi. Absent: 5 % of the host's, at least 256Mi."""


class NodeDevice(Model):
    """Devices of one kind, each for one task alone."""

    name: Label
    """Kind of device, such as gpu."""

    ids: Annotated[tuple[Annotated[str, text(128)], ...], set_list(64)]
    """One id for each device."""

    paths: Annotated[tuple[AbsolutePath, ...], atomic_list(64)] = ()
    """Device files that come with them, in the order of ids."""


class NodeSpec(Model):
    """How to reach the host, and what it may be used for."""

    ssh: Ssh
    """How the operator reaches the host."""

    availability: Literal["Active", "Pause", "Drain"] = published("Active")
    """Active: takes tasks. Pause: takes no new ones. Drain: its tasks move elsewhere."""

    out_of_service: bool = False
    """A person's word that the host is gone for good: its tasks are released without waiting for it."""

    allowed_namespaces: Annotated[tuple[Label, ...], set_list(256)] | None = None
    """Namespaces whose tasks may run here. Absent: all."""

    reserved: Reserved = Reserved()
    """What is left to the host itself."""

    devices: Annotated[tuple[NodeDevice, ...], list_map("name", most=16)] = ()
    """Devices that tasks will be able to reserve; nothing uses them yet."""

    adopt: bool = False
    """True takes a host that belongs to another swarm or another Node object."""

    deletion_policy: Literal["Uninstall", "Retain"] = "Uninstall"
    """What deleting the Node leaves on the host. Uninstall: nothing but named volumes. Retain: agent and containers."""


class Node(Resource):
    """A machine of the swarm."""

    KIND: ClassVar[Kind] = Kind(
        name="Node",
        plural="swarmnodes",
        short="snode",
        namespaced=False,
        columns=(
            Column("Status", ".status.state"),
            Column("Availability", ".spec.availability"),
            Column("Address", ".spec.ssh.host"),
            Column("Tasks", ".status.tasks", type="integer"),
            Column("CPU", ".status.cpu"),
            Column("Memory", ".status.memory"),
            Column("Agent", ".status.agentVersion"),
            Column("Kernel", ".status.kernel", wide=True),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', wide=True),
        ),
    )
    rules = (
        rule(
            "self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')",
            'a Node is named by at most 63 lower-case letters, digits and "-": its name becomes a label',
        ),
    )

    metadata: ObjectMeta
    spec: NodeSpec
    """How to reach the host, and what it may be used for."""

    status: NodeStatus = NodeStatus()
    """How the host is."""
