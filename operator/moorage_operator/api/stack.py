"""Stack: a group of Services that belong together, applied and removed as one."""

from __future__ import annotations

from typing import Annotated, ClassVar

from moorage_operator.api.condition import Conditions
from moorage_operator.api.meta import ObjectMeta
from moorage_operator.api.resource import Column, Kind, Resource
from moorage_operator.api.scalars import Count, Label, Line, Message, ShortName
from moorage_operator.api.schema import Model, list_map, rule
from moorage_operator.api.service import Mode, Replicas, ServiceTemplate

MAX_SERVICES = 64


class StackService(ServiceTemplate):
    """One Service of the Stack."""

    rules = (
        rule(
            "(has(self.mode) ? self.mode : 'Replicated') == (has(oldSelf.mode) ? oldSelf.mode : 'Replicated')",
            "mode cannot be changed: remove the service from the Stack, apply, and add it again",
            field=".mode",
        ),
        rule(
            "!has(self.replicas) || !has(self.mode) || self.mode != 'Global'",
            "a Global service runs one task on each eligible node: leave replicas out",
            field=".replicas",
        ),
    )

    name: ShortName
    """Name of the service in the Stack; its object is named <stack>-<name>."""

    mode: Mode = "Replicated"
    """Replicated: so many tasks as replicas says. Global: one on each eligible node."""

    replicas: Replicas | None = None
    """Number of tasks, 1 at first. Applied when it changes here, so that what kubectl scale or an autoscaler sets lasts."""


class StackSpec(Model):
    """What belongs to the Stack."""

    services: Annotated[tuple[StackService, ...], list_map("name", most=MAX_SERVICES)]
    """The Services of the Stack."""

    prune: bool = True
    """Whether a Service that is removed from the list is deleted. Its volumes stay."""


class StackServiceStatus(Model):
    """One Service of the Stack, in short."""

    name: Label
    """Name of the service in the Stack."""

    replicas_ready: Line | None = None
    """Ready and desired tasks, such as 2/3."""

    ready: bool | None = None
    """Whether all desired tasks are ready."""

    message: Message | None = None
    """What it waits for."""


class StackStatus(Model):
    """How the Stack's Services are."""

    observed_generation: Count | None = None
    """The metadata.generation this status speaks of."""

    services_ready: Line | None = None
    """Ready Services and all of them as text, such as 2/3."""

    services: Annotated[tuple[StackServiceStatus, ...], list_map("name", most=2 * MAX_SERVICES)] = ()
    """The Services in short."""

    conditions: Conditions = ()
    """Ready: all Services are. Progressing: something is being changed. Stalled: only a person can help."""


class Stack(Resource):
    """A group of Services that belong together."""

    KIND: ClassVar[Kind] = Kind(
        name="Stack",
        plural="swarmstacks",
        short="sstk",
        columns=(
            Column("Services", ".status.servicesReady"),
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', wide=True),
        ),
    )
    rules = (
        rule(
            "self.metadata.name.size() <= 30 && !self.metadata.name.contains('.')",
            'a Stack is named by at most 30 lower-case letters, digits and "-": its services are named <stack>-<service>',
        ),
    )

    metadata: ObjectMeta
    spec: StackSpec
    """What belongs to the Stack."""

    status: StackStatus = StackStatus()
    """How the Stack's Services are."""
