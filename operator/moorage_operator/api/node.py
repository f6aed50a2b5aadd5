"""Node: a machine of the swarm, reached over SSH."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from .condition import Conditions
from .meta import LocalRef, ObjectMeta
from .resource import Column, Kind, Resource
from .scalars import AbsolutePath, Count, Cpu, Label, Line, Memory, Message, Port, Word
from .schema import Model, atomic_list, list_map, one_of, published, rule, set_list, text

HostAddress = Annotated[
    str,
    text(253, rule("self.matches('^[a-zA-Z0-9:]([-.:%a-zA-Z0-9]*[a-zA-Z0-9:])?$')", "write a host name or an IP address, without a port")),
]
UserName = Annotated[str, text(64, rule("self.matches('^[a-zA-Z0-9_][-._a-zA-Z0-9]*[$]?$')", "write the name of an account, such as root"))]
HostKey = Annotated[
    str,
    text(
        4096,
        rule(
            "self.matches('^(ssh-|ecdsa-|sk-)[-.@a-z0-9]+ AAAA[A-Za-z0-9+/]+=*( .*)?$')",
            'write a key as ssh-keyscan prints it, without the host: "ssh-ed25519 AAAA..."',
        ),
    ),
]
HostKeys = Annotated[tuple[HostKey, ...], atomic_list(16)]
HostKeyPolicy = Literal["Pinned", "TrustOnFirstUse", "CertificateAuthority"]


class Jump(Model):
    """The host through which this one is reached."""

    rules = (
        one_of("nodeRef", "host", hint="write nodeRef: {name: ...} for a Node of this swarm, or host and hostKeys for another machine"),
        rule(
            "!has(self.host) || (has(self.hostKeys) && self.hostKeys.size() > 0)",
            'a jump host needs hostKeys: write what "ssh-keyscan HOST" prints, without the host',
            field=".hostKeys",
        ),
    )

    node_ref: LocalRef | None = None
    """Another Node of this swarm."""

    host: HostAddress | None = None
    """Name or address of a machine that is no Node."""

    port: Port = 22
    """Its SSH port."""

    user: UserName = "root"
    """Account there."""

    host_keys: HostKeys = ()
    """Its host keys, such as "ssh-ed25519 AAAA..."."""


class Ssh(Model):
    """How the operator reaches the host."""

    rules = (
        rule(
            "self.hostKeyPolicy == 'TrustOnFirstUse' || (has(self.hostKeys) && self.hostKeys.size() > 0)",
            'hostKeys is needed: write what "ssh-keyscan HOST" prints, without the host, or set hostKeyPolicy: TrustOnFirstUse',
            field=".hostKeys",
        ),
    )

    host: HostAddress
    """Name or address of the host."""

    port: Port = published(22)
    """Its SSH port."""

    user: UserName = "root"
    """Account to log in with."""

    key_secret_ref: LocalRef
    """Secret of type kubernetes.io/ssh-auth, in the operator's namespace, with the private key."""

    become: Literal["Auto", "None", "Sudo", "Doas"] = "Auto"
    """How the account becomes root. Auto: not at all for root, else sudo or doas, whichever there is."""

    host_keys: HostKeys = ()
    """Keys the host may show, such as "ssh-ed25519 AAAA..."; with hostKeyPolicy CertificateAuthority, those of the authorities.

    A changed key is never accepted by itself.
    """

    host_key_policy: HostKeyPolicy = published("Pinned")
    """Pinned: only hostKeys. TrustOnFirstUse: the key seen first is written there. CertificateAuthority: keys signed by one of them."""

    jump: Jump | None = None
    """The host through which this one is reached."""


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
    """Devices that tasks can reserve."""

    adopt: bool = False
    """True takes a host that belongs to another swarm or another Node object."""

    deletion_policy: Literal["Uninstall", "Retain"] = "Uninstall"
    """What deleting the Node leaves on the host. Uninstall: nothing but named volumes. Retain: agent and containers."""


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
    """How control groups are mounted: v2, hybrid or v1."""

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
    """Named volumes on the host, as namespace/stack/name: tasks go back to their data."""

    conditions: Conditions = ()
    """Ready: takes and runs tasks. Connected: the operator talks to the agent. AgentCurrent: the agent has the operator's version."""


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
