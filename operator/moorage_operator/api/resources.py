"""What a task may use, and what a node must have free for it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from moorage_operator.api.scalars import Cpu, Label, Memory
from moorage_operator.api.schema import Model, Rule, list_map, rule


def _at_least(field: str, floor: str, message: str) -> Rule:
    return rule(f"!has(self.{field}) || quantity(string(self.{field})).compareTo(quantity('{floor}')) >= 0", message, field=f".{field}")


def _reserves_within_limit(field: str) -> Rule:
    there = f"has(self.limits) && has(self.limits.{field}) && has(self.reservations) && has(self.reservations.{field})"
    within = f"quantity(string(self.reservations.{field})).compareTo(quantity(string(self.limits.{field}))) <= 0"
    return rule(f"!({there}) || {within}", f"reservations.{field} is above limits.{field}: a task could never use what it reserves")


class Limits(Model):
    """What a task may use at most. Absent: as much as the host has, of pids 4096."""

    rules = (
        _at_least("cpu", "1m", "write at least 1m, or leave it out for no limit"),
        _at_least("memory", "4Mi", "nothing starts in less than 4Mi: is the unit missing, as in 512Mi?"),
    )

    cpu: Cpu | None = None
    """Cores, such as 500m or 2. The container is slowed down at the limit."""

    memory: Memory | None = None
    """Memory, such as 256Mi. A container that goes over it is killed."""

    swap: Memory | None = None
    """Swap beyond memory, such as 128Mi; 0 forbids it."""

    pids: Annotated[int, Field(ge=1, le=4194304)] | None = None
    """Processes and threads. Absent: 4096."""


class DeviceRequest(Model):
    """A number of devices of one kind."""

    name: Label
    """Kind of device, as in spec.devices of the Nodes."""

    count: Annotated[int, Field(ge=1, le=64)] = 1
    """How many."""


class Reservations(Model):
    """What a node must have free to get the task. Nothing is limited by it."""

    cpu: Cpu | None = None
    """Cores, such as 250m."""

    memory: Memory | None = None
    """Memory, such as 128Mi."""

    devices: Annotated[tuple[DeviceRequest, ...], list_map("name", most=8)] = ()
    """Devices, each used by one task alone. Refused yet: write security.devices."""


class Resources(Model):
    """Limits and reservations of one task."""

    rules = (_reserves_within_limit("cpu"), _reserves_within_limit("memory"))

    limits: Limits = Limits()
    """What a task may use at most."""

    reservations: Reservations = Reservations()
    """What a node must have free for it."""
