"""Task: one container placed on one node, running in a slot of a Service. Only the operator writes Tasks; deleting one means "stop it"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SkipValidation

from moorage_operator.api.condition import Conditions
from moorage_operator.api.meta import ObjectMeta
from moorage_operator.api.resource import Column, Kind, Resource
from moorage_operator.api.scalars import Count, Digest, Duration, Label, Line, Message, ObjectName, Time, Word
from moorage_operator.api.schema import Model, atomic_list, list_map, opaque, published, rule, set_list, text

DesiredState = Literal["Ready", "Running"]


class TaskImage(Model):
    """The image a Task runs."""

    name: ObjectName | None = None
    """The Image object."""

    digest: Digest | None = None
    """Exactly what runs."""


class TaskDevice(Model):
    """Devices given to the Task."""

    name: Label
    """Kind of device."""

    ids: Annotated[tuple[Annotated[str, text(128)], ...], set_list(64)] = ()
    """Which ones."""


class TaskSpec(Model):
    """What runs where."""

    rules = (
        rule(
            "self.service == oldSelf.service && self.slot == oldSelf.slot"
            " && (has(self.stack) ? self.stack : '') == (has(oldSelf.stack) ? oldSelf.stack : '')"
            " && self.attempt == oldSelf.attempt"
            " && self.version == oldSelf.version",
            "service, slot, attempt and version of a Task cannot be changed: change the Service, the operator makes new Tasks",
        ),
        rule("self.container == oldSelf.container", "the container of a Task cannot be changed: change the Service", field=".container"),
        rule(
            "has(self.replaces) == has(oldSelf.replaces) && (!has(self.replaces) || self.replaces == oldSelf.replaces)",
            "replaces cannot be changed",
            field=".replaces",
        ),
        rule(
            "!has(oldSelf.nodeName) || (has(self.nodeName) && self.nodeName == oldSelf.nodeName)",
            "a placed Task cannot move: delete it, the operator makes a new one",
            field=".nodeName",
        ),
        rule(
            "!has(oldSelf.image) || (has(self.image) && self.image == oldSelf.image)",
            "the image of a Task is set once: change the Service or the Image",
            field=".image",
        ),
        rule(
            "oldSelf.desiredState == self.desiredState || oldSelf.desiredState == 'Ready'",
            "desiredState goes from Ready to Running only: delete the Task to stop it",
            field=".desiredState",
        ),
    )

    service: Label
    """The Service, in the same namespace."""

    stack: Label | None = None
    """The Stack of the Service."""

    slot: Label
    """The slot of the Service: 1, 2, 3 ..., or a hash of the node's uid for a Global one."""

    attempt: Annotated[int, Field(ge=1, le=2**31 - 1)] = published(1)
    """Counts the Tasks of the slot."""

    version: Annotated[str, text(64)]
    """Hash of what the Service wanted when this Task was made."""

    replaces: Annotated[str, text(64)] | None = None
    """The uid of the Task of the same slot that makes way for this one."""

    handover: Literal["StopFirst", "StartFirst"] = "StopFirst"
    """Whether the replaced Task ends before this one starts."""

    stop_after: Duration | None = None
    """The host stops the Task after this time without an operator."""

    container: Annotated[Mapping[str, Any], SkipValidation, opaque()]
    """What to run, compiled from the Service for the agent."""

    node_name: Label | None = None
    """The Node it is placed on."""

    image: TaskImage | None = None
    """The image it runs."""

    devices: Annotated[tuple[TaskDevice, ...], list_map("name", most=8)] = ()
    """Devices given to it."""

    desired_state: DesiredState = published("Running")
    """Ready: prepare, and wait. Running: run."""


class ExitStatus(Model):
    """One end of the container."""

    code: Annotated[int, Field(ge=-1, le=255)] | None = None
    """Exit code; 128 and the number of the signal for a killed process. Absent: nobody saw it."""

    at: Time | None = None
    """When."""

    started_at: Time | None = None
    """When that run began."""

    oom_killed: bool | None = None
    """Whether it went over its memory limit."""

    reason: Word | None = None
    """Why, where that is known: Unhealthy, HostRebooted ..."""


class TaskStatus(Model):
    """How the container is."""

    observed_generation: Count | None = None
    """The metadata.generation this status speaks of."""

    state: Word | None = None
    """Pending, Assigned, Preparing, Ready, Starting, Running, Complete, Failed, Rejected or Orphaned."""

    reason: Word | None = None
    """Why it is in that state, as one word."""

    message: Message | None = None
    """Why, and what to do about it."""

    restarts: Count | None = None
    """How often the container was restarted on its node."""

    exit_code: Annotated[int, Field(ge=-1, le=255)] | None = None
    """Exit code of the last run."""

    oom_killed: bool | None = None
    """Whether the last run went over its memory limit."""

    last_exits: Annotated[tuple[ExitStatus, ...], atomic_list(10)] = ()
    """The last ends of the container, newest first."""

    started_at: Time | None = None
    """When the present run began."""

    addresses: Annotated[tuple[Line, ...], atomic_list(16)] = ()
    """Addresses of the container."""

    conditions: Conditions = ()
    """Scheduled: placed on a node. Ready: running, and healthy where there is a check. Complete: ended with 0, or was replaced."""


class Task(Resource):
    """One container placed on one node, running in a Service. Made by the operator; deleting one stops it, and its slot gets a new one."""

    KIND: ClassVar[Kind] = Kind(
        name="Task",
        plural="swarmtasks",
        short="stask",
        selectable=(".spec.nodeName", ".status.state"),
        columns=(
            Column("Service", ".spec.service"),
            Column("Slot", ".spec.slot"),
            Column("Node", ".spec.nodeName"),
            Column("State", ".status.state"),
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Restarts", ".status.restarts", type="integer"),
            Column("Message", ".status.message"),
            Column("Digest", ".spec.image.digest", wide=True),
        ),
    )

    metadata: ObjectMeta
    spec: TaskSpec
    """What runs where."""

    status: TaskStatus = TaskStatus()
    """How the container is."""
