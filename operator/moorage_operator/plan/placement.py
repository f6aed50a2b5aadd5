"""Where tasks may run, and why not elsewhere. Pure: reads a Fleet, returns a Placement or the reasons.

Ranking is Swarm's spread: the levels of the preferences first (`placement_spread.py`), then the order of `placement_rank.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from moorage_operator.errors import InvalidSpec
from moorage_operator.plan.constraint import parse_constraint, parse_spread
from moorage_operator.plan.fleet_view import Fleet
from moorage_operator.plan.placement_batch import Batch
from moorage_operator.plan.placement_needs import Demand, TaskNeeds
from moorage_operator.plan.placement_outcome import Placement, Refused, Unplaceable

__all__ = ["Placement", "Refused", "Unplaceable", "check_demand", "place", "place_all"]


def place(needs: TaskNeeds, fleet: Fleet, *, now: datetime) -> Placement | Unplaceable:
    """The node for one task."""
    return place_all([needs], fleet, now=now)[0]


def place_all(needs: Sequence[TaskNeeds], fleet: Fleet, *, now: datetime) -> list[Placement | Unplaceable]:
    """A node for each task, in the order given. Each placement counts for the others, so two Services never overcommit a node.

    The order of `needs` and of the fleet's nodes has no influence on the outcome.
    """
    batch = Batch(fleet, now)
    outcome: dict[int, Placement | Unplaceable] = {}
    for index in _order(needs, batch):
        outcome[index] = invalid(needs[index]) or batch.take(needs[index])
    return [outcome[index] for index in range(len(needs))]


def check_demand(demand: Demand) -> None:
    """Raises InvalidSpec for constraints and preferences that cannot be read."""
    for text in demand.constraints:
        parse_constraint(text)
    parse_spread(demand.preferences)


def invalid(task: TaskNeeds) -> Unplaceable | None:
    try:
        check_demand(task.demand)
    except InvalidSpec as error:
        return Unplaceable(task.name, error.reason, str(error))
    return None


def _order(needs: Sequence[TaskNeeds], batch: Batch) -> list[int]:
    """Tasks bound to a node first; then the greatest reservations, because small ones still fit into what those leave; slots by name."""
    texts: dict[Demand, str] = {}

    def key(index: int) -> tuple[bool, int, int, str, str]:
        task = needs[index]
        text = texts.get(task.demand) or texts.setdefault(task.demand, repr(task.demand))
        return batch.bound(task) is None, -task.demand.memory_bytes, -task.demand.cpu_millis, text, task.name

    return sorted(range(len(needs)), key=key)
