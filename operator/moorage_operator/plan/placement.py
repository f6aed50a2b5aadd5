"""Where tasks may run, and why not elsewhere. Pure: reads a Fleet, returns a Placement or the reasons.

Ranking is Swarm's spread: levels over the values of the preferences first; then nodes where this version keeps failing come last; then fewer
tasks of the Service, fewer tasks in total, staying where the replaced task is, and a stable hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from .fleet_view import Fleet
from .placement_needs import TaskNeeds


@dataclass(frozen=True, slots=True)
class Placement:
    task: str
    node: str

    def describe(self) -> str:
        return f"place {self.task} on {self.node}"


@dataclass(frozen=True, slots=True)
class Refused:
    """Nodes refused for one reason. `reason` is stable and CamelCase, `text` is for people and names or counts the nodes."""

    reason: str
    text: str
    nodes: int


@dataclass(frozen=True, slots=True)
class Unplaceable:
    """No node will do. `refused` counts every Node of the fleet once, the most frequent reason first; `reason` is the first one's.

    `reason` is InvalidPlacement where only a changed manifest helps (a constraint that cannot be read).
    """

    task: str
    reason: str
    message: str
    refused: tuple[Refused, ...] = ()

    def describe(self) -> str:
        return f"cannot place {self.task}: {self.message}"


def place(needs: TaskNeeds, fleet: Fleet, *, now: datetime) -> Placement | Unplaceable:
    """The node for one task."""
    return place_all([needs], fleet, now=now)[0]


def place_all(needs: Sequence[TaskNeeds], fleet: Fleet, *, now: datetime) -> list[Placement | Unplaceable]:
    """A node for each task, in the order given; each placement counts for the following ones, so two Services never overcommit a node.

    The order of `needs` and of the fleet's nodes has no influence on the outcome.
    """
    raise NotImplementedError
