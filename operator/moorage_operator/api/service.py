"""Service: one or more identical containers, the resources and the number of copies granted to them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from moorage_operator.api.container import TaskTemplate
from moorage_operator.api.meta import ObjectMeta
from moorage_operator.api.placement import Placement
from moorage_operator.api.resource import Column, Kind, Resource, Scale
from moorage_operator.api.scalars import Duration, Label, Port, Positive
from moorage_operator.api.schema import Model, Rules, list_map, published, rule, text
from moorage_operator.api.service_status import ServiceStatus

Mode = Literal["Replicated", "Global"]
Replicas = Annotated[int, Field(ge=0, le=10000)]


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
    """Replace: a new task starts elsewhere. Keep: the slot waits for its node. Absent: Keep with a named volume, else Replace.

    A Global service keeps in any case, and so does one with restart.condition None.
    """

    after: Positive = "30s"
    """Time since the last sign of life of the node. Less than 20s counts as 20s: before that many hosts cut off look like one."""


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
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', wide=True),
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
