"""Which of several nodes is best for a task: smaller ranks first."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from zlib import crc32

from moorage_operator.plan.fleet_view import NodeView, ServiceVersion
from moorage_operator.plan.fleet_view_load import Load
from moorage_operator.plan.placement_needs import Demand

FAILURES_THAT_COUNT: Final = 5
FAILURE_MEMORY: Final = timedelta(minutes=5)

Calm = tuple[int, bool, int, str]
Rank = tuple[int, int, bool, int, bool, int, str]


def rank(demand: Demand, node: NodeView, load: Load, *, now: datetime, moves: bool = True) -> Rank:
    """Where this version keeps failing comes last; then fewer tasks of the Service, its volumes there already, fewer tasks, staying on the
    node, a stable hash.

    Failures count from five within five minutes on, as in Swarm: a node is sorted last by them, never excluded.
    """
    failures, tasks = recent_failures(demand, node, now=now), load.services.get(demand.service, 0)
    return (failures, tasks, lacks_volumes(demand, node), *calm_rank(node, load, moves=moves))


def lacks_volumes(demand: Demand, node: NodeView) -> bool:
    return bool(demand.volumes) and not node.volumes.issuperset(demand.volumes)


def calm_rank(node: NodeView, load: Load, *, moves: bool = True) -> Calm:
    """The rank without what concerns one Service alone. The hash keeps equal nodes from being filled in the order of their names."""
    return load.tasks, moves, crc32(node.name.encode()), node.name


def recent_failures(demand: Demand, node: NodeView, *, now: datetime) -> int:
    times = node.failures.get(ServiceVersion(demand.service, demand.version), ())
    count = sum(now - time < FAILURE_MEMORY for time in times)
    return count if count >= FAILURES_THAT_COUNT else 0
