"""The containers of Tasks, each kept once: all tasks of one version of a Service run the same, and it is most of what a Task holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from moorage_agent.protocol import Container, from_wire

from moorage_operator.api import Task
from moorage_operator.plan.placement_needs import ServiceKey

KEPT: Final = 4
"""Of each Service: two versions during an update, and those of tasks that follow failures (restart.attemptsUsed)."""


@dataclass
class Shared:
    wire: dict[str, Any]

    @cached_property
    def container(self) -> Container:
        return compiled(self.wire)


class Containers:
    """What is not kept here any more is read anew each time it is asked for, and nothing else is lost."""

    def __init__(self) -> None:
        self._kept: dict[ServiceKey, list[Shared]] = {}

    def share(self, obj: dict[str, Any]) -> None:
        """Puts an equal container in place of this Task object's own, if there is one."""
        service, wire = _service(obj), obj["spec"].get("container")
        if not isinstance(wire, dict):
            return
        kept = self._kept.setdefault(service, [])
        for each in kept:
            if each.wire is wire or each.wire == wire:
                obj["spec"]["container"] = each.wire
                return
        kept.insert(0, Shared(wire))
        del kept[KEPT:]

    def of(self, task: Task) -> Container:
        """Raises ProtocolError when it is not what the operator compiles."""
        wire = task.spec.container
        for each in self._kept.get(ServiceKey(task.metadata.namespace, task.spec.service), ()):
            if each.wire is wire:
                return each.container
        return compiled(wire)

    def forget(self, service: ServiceKey) -> None:
        """It has no Task left."""
        self._kept.pop(service, None)


def compiled(wire: Mapping[str, Any]) -> Container:
    """Raises ProtocolError when it is not what the operator compiles."""
    return from_wire(Container, dict(wire))


def _service(obj: dict[str, Any]) -> ServiceKey:
    return ServiceKey(obj["metadata"].get("namespace", ""), obj["spec"].get("service", ""))
