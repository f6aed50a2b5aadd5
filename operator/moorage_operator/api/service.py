"""Service: one or more identical containers, the resources and the number of copies granted to them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .condition import Conditions
from .container import TaskTemplate
from .meta import ObjectMeta
from .resource import Column, Kind, Resource, Scale
from .scalars import Count, Duration, Label, Line, Message, Port, Positive, Time, Word
from .schema import Model, Rules, atomic_list, list_map, published, rule, text

Mode = Literal["Replicated", "Global"]
Replicas = Annotated[int, Field(ge=0, le=10000)]
NODE_KEY = "node[.](name|hostname|id|role|platform[.](os|arch)|labels[.][-._/a-zA-Z0-9]+)"
"""What plan/constraint.py can compare."""
_KEYS = "keys are node.name, node.hostname, node.id, node.role, node.platform.os, node.platform.arch and node.labels.<label>"
Constraint = Annotated[
    str, text(256, rule(f"self.matches('^ *{NODE_KEY} *[!=]= *[^ =].*$')", f"write a comparison such as node.labels.zone == eu; {_KEYS}"))
]


class Preference(Model):
    """How to spread tasks over nodes that are all allowed."""

    spread: Annotated[str, text(325, rule(f"self.matches('^{NODE_KEY}$')", f"write a key of nodes such as node.labels.rack; {_KEYS}"))]
    """What to spread over, such as node.labels.rack: its values get equal shares of the tasks."""


class Placement(Model):
    """Where tasks may run."""

    constraints: Annotated[tuple[Constraint, ...], atomic_list(32)] = ()
    """Conditions that a node must all meet, such as "node.labels.zone == eu"."""

    preferences: Annotated[tuple[Preference, ...], atomic_list(8)] = ()
    """How to spread over the nodes that remain, most important first."""

    max_replicas_per_node: Annotated[int, Field(ge=1, le=10000)] | None = None
    """So many tasks on one node at most. Absent: no limit."""

    sticky: bool | None = None
    """True: a slot stays on its node once placed. Absent: true if the task mounts a named volume."""


class Update(Model):
    """How a new version replaces the tasks of the old one. An update that meets a failure pauses and says so."""

    parallelism: Annotated[int, Field(ge=1, le=10000)] = 1
    """How many tasks are replaced at the same time."""

    delay: Duration = "0s"
    """Wait between two replacements."""

    order: Literal["StopFirst", "StartFirst"] = "StopFirst"
    """StopFirst: the old task ends before the new one starts. StartFirst: the new one is ready before the old one ends."""

    failure_action: Literal["Pause"] = "Pause"
    """What a failed task of the new version does to the update. Pause stops it; the next change of the spec goes on."""

    monitor: Duration = "5s"
    """A new task that ends within this time after it became ready counts as a failure of the update."""


class Network(Model):
    """The network a task sees."""

    mode: Literal["Isolated", "Host"] = "Isolated"
    """Isolated: a network of its own with nothing but loopback. Host: the host's network."""


class ServicePort(Model):
    """A port the container listens on."""

    rules = (
        rule(
            "!has(self.published) || self.published == self.target",
            "with network.mode Host the container listens on the host's own port: leave published out or write the same number as target",
            field=".published",
        ),
    )

    name: Label
    """Name of the port, such as http."""

    target: Port
    """Port the container listens on."""

    published: Port | None = None
    """Port on the host. Absent: the same as target."""

    protocol: Literal["TCP", "UDP"] = "TCP"
    """TCP or UDP."""

    host_ip: Annotated[str, text(45, rule("isIP(self)", "write an IP address such as 192.0.2.10"))] | None = Field(
        default=None, validation_alias="hostIP", serialization_alias="hostIP"
    )
    """Address of the host the container listens on. Absent: all of them."""


class Unreachable(Model):
    """What happens to tasks on a node that was lost."""

    policy: Literal["Replace", "Keep"] | None = None
    """Replace: a new task starts elsewhere. Keep: the slot waits for its node. Absent: Keep with a named volume, else Replace."""

    after: Positive = "30s"
    """Time since the last sign of life of the node."""


class OnDisconnect(Model):
    """What a host does by itself when it hears of no operator."""

    stop_after: Annotated[
        str,
        text(
            24,
            rule(
                "self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('30s')",
                "write a duration of at least 30s: a change of the operator's leader takes that long",
            ),
        ),
    ]
    """The host stops the task after this time without an operator. For what must never run twice."""


class ServiceTemplate(Model):
    """What a Service and a Stack's entry for one have in common."""

    rules: ClassVar[Rules] = (
        rule(
            "!has(self.ports) || self.ports.size() == 0 || (has(self.network) && has(self.network.mode) && self.network.mode == 'Host')",
            "ports need the host's network: write network: {mode: Host}",
            field=".ports",
        ),
    )

    suspend: bool = False
    """True stops all tasks and keeps everything else."""

    restart_token: Annotated[str, text(64, least=0)] = ""
    """Any change replaces all tasks, as an update does. A date is a good value."""

    task: TaskTemplate
    """The container that each task runs."""

    placement: Placement = Placement()
    """Where tasks may run."""

    update: Update = Update()
    """How a new version replaces the old one."""

    network: Network = Network()
    """The network tasks see."""

    ports: Annotated[tuple[ServicePort, ...], list_map("name", most=32)] = ()
    """Ports the container listens on. No two tasks with the same one share a node."""

    unreachable: Unreachable = Unreachable()
    """What happens to tasks on a node that was lost."""

    on_disconnect: OnDisconnect | None = None
    """What a host does by itself when it hears of no operator. Absent: its tasks go on."""

    on_data_change: Literal["Rollout", "Ignore"] = "Rollout"
    """Whether a changed Secret or ConfigMap replaces the tasks, as a new version does."""


class ServiceSpec(ServiceTemplate):
    """What should run."""

    rules = (
        rule("self.mode == oldSelf.mode", "mode cannot be changed: delete the Service and create it anew", field=".mode"),
        rule(
            "self.mode != 'Global' || self.replicas == 1",
            "a Global service runs one task on each eligible node: leave replicas out",
            field=".replicas",
        ),
    )

    mode: Mode = published("Replicated")
    """Replicated: so many tasks as replicas says. Global: one on each eligible node."""

    replicas: Replicas = published(1)
    """Number of tasks of a Replicated service."""


class UpdateStatus(Model):
    """How far the current update is."""

    state: Word | None = None
    """Updating, Paused or Completed."""

    message: Message | None = None
    """What it waits for, or why it paused."""

    version: Word | None = None
    """The version that is rolled out."""

    started_at: Time | None = None
    """When the update began."""

    completed_at: Time | None = None
    """When it ended."""


class ServiceStatus(Model):
    """What runs."""

    observed_generation: Count | None = None
    """The metadata.generation this status speaks of."""

    replicas: Count | None = None
    """Tasks there are."""

    ready_replicas: Count | None = None
    """Tasks that are ready."""

    updated_replicas: Count | None = None
    """Tasks of the current version."""

    desired_replicas: Count | None = None
    """Tasks there should be: replicas, or the eligible nodes of a Global service."""

    replicas_ready: Line | None = None
    """Ready and desired tasks as text, such as 2/3."""

    selector: Line | None = None
    """Label selector of the tasks, for autoscalers."""

    image: Annotated[str, text(600, least=0)] | None = None
    """The image in use, for people."""

    ports: Line | None = None
    """The ports, for people."""

    version: Word | None = None
    """Hash of the current version."""

    update: UpdateStatus | None = None
    """How far the current update is."""

    conditions: Conditions = ()
    """Ready: all desired tasks are. Progressing: something is being changed. Stalled: only a person can help."""


class Service(Resource):
    """One or more identical containers, placed on nodes of the swarm."""

    KIND: ClassVar[Kind] = Kind(
        name="Service",
        plural="swarmservices",
        short="ssvc",
        scale=Scale(),
        columns=(
            Column("Mode", ".spec.mode"),
            Column("Replicas", ".status.replicasReady"),
            Column("Image", ".status.image"),
            Column("Ports", ".status.ports"),
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        ),
    )
    rules = (
        rule(
            "self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')",
            'a Service is named by at most 63 lower-case letters, digits and "-": its name becomes a label',
        ),
    )

    metadata: ObjectMeta
    spec: ServiceSpec
    """What should run."""

    status: ServiceStatus = ServiceStatus()
    """What runs."""
