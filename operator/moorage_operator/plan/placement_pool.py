"""Nodes alike for many Services, ordered once for all of them.

To a Service that has no task on a node and saw no failure there, only the node's number of tasks and a stable hash matter. That order is
the same for every Service whose demands on the facts and whose preferences are the same, so they share it: twenty thousand Services of
one task each look at a few nodes, not at all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from heapq import heapify, heappop, heappush, heapreplace

from moorage_operator.plan.constraint import attribute
from moorage_operator.plan.filters import refused_by_load
from moorage_operator.plan.fleet_view import NodeView
from moorage_operator.plan.placement_needs import Demand
from moorage_operator.plan.placement_rank import Calm, calm_rank
from moorage_operator.plan.placement_site import Site

Path = tuple[str, ...]


class Pool:
    """`leaves` are the nodes by their values of the preferences. Keys only grow while a batch is placed; the top is made current."""

    def __init__(self, eligible: Iterable[Site], preferences: tuple[str, ...]) -> None:
        self._preferences = preferences
        self.names: set[str] = set()
        self.leaves: dict[Path, list[tuple[Calm, Site]]] = defaultdict(list)
        for site in eligible:
            self.names.add(site.node.name)
            self.leaves[self.path(site.node)].append((calm_rank(site.node, site.load), site))
        for leaf in self.leaves.values():
            heapify(leaf)

    def path(self, node: NodeView) -> Path:
        return tuple(attribute(node, key) for key in self._preferences)


class Visit:
    """One Demand's use of a pool: nodes it cannot use, or that it knows itself, are set aside until it is done."""

    def __init__(self, pool: Pool, demand: Demand, known: set[str]) -> None:
        self._pool = pool
        self._demand = demand
        self._known = known
        self._aside: list[tuple[Path, tuple[Calm, Site]]] = []

    def best(self, path: Path) -> tuple[Calm, Site] | None:
        leaf = self._pool.leaves[path]
        while leaf:
            rank, site = leaf[0]
            current = calm_rank(site.node, site.load)
            if site.node.name in self._known or refused_by_load(self._demand, site.node, site.load) is not None:
                self._aside.append((path, heappop(leaf)))
            elif current > rank:
                heapreplace(leaf, (current, site))
            else:
                return leaf[0]
        return None

    def end(self) -> None:
        for path, entry in self._aside:
            heappush(self._pool.leaves[path], entry)
        self._aside.clear()
