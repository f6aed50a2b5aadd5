"""A Task as the fleet sees it: what it holds on its node, and how often it failed there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from moorage_agent.protocol import Port, Resources, from_wire

from moorage_operator.api import ExitStatus, Task, find
from moorage_operator.plan.fleet_view import ServiceVersion
from moorage_operator.plan.fleet_view_load import Amount, Holding
from moorage_operator.plan.placement_needs import ServiceKey

ENDED: Final = frozenset(("Complete", "Failed", "Rejected", "Orphaned"))

# Ends that say nothing about the container or the node: somebody wanted them, or the host restarted.
_NOT_ITS_FAULT: Final = frozenset(("Removed", "Replaced", "Disconnected", "HostRebooted"))


@dataclass(frozen=True, slots=True)
class Seat:
    """`holding` is None once the task has ended."""

    node: str
    name: str
    version: ServiceVersion
    holding: Holding | None = None
    failures: tuple[datetime, ...] = ()


def seat_of(task: Task) -> Seat | None:
    """None for a task that has no node. A task being deleted holds its place until it is gone."""
    spec, meta = task.spec, task.metadata
    if spec.node_name is None:
        return None
    service = ServiceKey(meta.namespace, spec.service)
    ended = task.status.state in ENDED
    return Seat(
        node=spec.node_name,
        name=meta.name,
        version=ServiceVersion(service, spec.version),
        holding=None if ended else _holding(task, service),
        failures=_failures(task),
    )


def _holding(task: Task, service: ServiceKey) -> Holding:
    resources = from_wire(Resources, _part(task, "resources", {}))
    return Holding(
        uid=task.metadata.uid,
        service=service,
        amount=Amount(resources.cpu_reservation or 0, resources.memory_reservation or 0),
        ports=tuple(from_wire(Port, port) for port in _part(task, "ports", [])),
        devices=tuple((device.name, len(device.ids)) for device in task.spec.devices),
        replaces=task.spec.replaces,
        start_first=task.spec.handover == "StartFirst",
    )


def _failures(task: Task) -> tuple[datetime, ...]:
    times = [one.at for one in task.status.last_exits if one.at is not None and _failed(one)]
    ready = find(task.status.conditions, "Ready")
    if task.status.state == "Rejected" and not times and ready is not None and ready.last_transition_time is not None:
        times.append(ready.last_transition_time)
    return tuple(sorted(times))


def _failed(one: ExitStatus) -> bool:
    return one.code != 0 and one.reason not in _NOT_ITS_FAULT


def _part(task: Task, name: str, default: Any) -> Any:
    """A part of the container alone: parsing all of it for each of twenty thousand Tasks costs seconds."""
    return task.spec.container.get(name, default)
