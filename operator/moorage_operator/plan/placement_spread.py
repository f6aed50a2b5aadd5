"""The nodes that can take one more task of a Demand, best first, while tasks are being placed.

The values of the preferences split the nodes into leaves ("eu, rack 7"). A task goes to the first preference's value with the fewest tasks
of the Service, within it to the second's, and within the leaf to the best ranked node: one of the pool, or one where the Service already
has tasks or failures. Keys only grow while a batch is placed, so an entry of a heap is made current when it comes to the top.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from heapq import heapify, heappop, heappush, heapreplace

from moorage_operator.plan.filters import refused_by_load
from moorage_operator.plan.fleet_view_load import Load
from moorage_operator.plan.placement_needs import Demand
from moorage_operator.plan.placement_pool import Path, Pool, Visit
from moorage_operator.plan.placement_rank import Rank, rank
from moorage_operator.plan.placement_site import Site

Key = tuple[tuple[int, ...], Rank]


class Spread:
    def __init__(self, demand: Demand, pool: Pool, known: Iterable[Site], *, now: datetime) -> None:
        """`known` are the nodes with tasks of the Service, failures of this version, or all its volumes, eligible or not: all count for the
        levels.
        """
        self._demand = demand
        self._now = now
        self._pool = pool
        self._names: set[str] = set()
        self._visit = Visit(pool, demand, self._names)
        self._known: dict[Path, list[tuple[Rank, Site]]] = defaultdict(list)
        self._tasks: Counter[Path] = Counter()
        for site in known:
            self._count(site, site.load.services.get(demand.service, 0))
        self._leaves = [(key, path) for path in pool.leaves if (key := self._key(path)) is not None]
        heapify(self._leaves)

    def best(self) -> tuple[Key, Site] | None:
        while self._leaves:
            (levels, known), path = self._leaves[0]
            if (current := self._levels(path)) > levels:
                heapreplace(self._leaves, ((current, known), path))
            elif (top := self._best_of(path)) is None:
                heappop(self._leaves)
            elif top[0] > known:
                heapreplace(self._leaves, ((levels, top[0]), path))
            else:
                return (levels, top[0]), top[1]
        return None

    def key_making_way(self, site: Site, load: Load) -> Key:
        """The key of a node where a task of this Service makes way; `load` is without it."""
        levels = tuple(tasks - 1 for tasks in self._levels(self._pool.path(site.node)))
        return levels, rank(self._demand, site.node, load, now=self._now, moves=False)

    def placed(self, site: Site) -> None:
        """One more task of the Service runs there."""
        self._count(site, 1)

    def end(self) -> None:
        """Gives the pool back to other Demands."""
        self._visit.end()

    def _count(self, site: Site, tasks: int) -> None:
        path = self._pool.path(site.node)
        self._tasks.update(dict.fromkeys(_prefixes(path), tasks))
        name = site.node.name
        if name in self._pool.names and name not in self._names:
            heappush(self._known[path], (self._rank(site), site))
        self._names.add(name)

    def _key(self, path: Path) -> Key | None:
        top = self._best_of(path)
        return None if top is None else (self._levels(path), top[0])

    def _best_of(self, path: Path) -> tuple[Rank, Site] | None:
        known = self._best_known(path)
        fresh = self._visit.best(path)
        if fresh is None:
            return known
        unknown = (0, 0, bool(self._demand.volumes), *fresh[0])
        return known if known is not None and known[0] < unknown else (unknown, fresh[1])

    def _best_known(self, path: Path) -> tuple[Rank, Site] | None:
        heap = self._known[path]
        while heap:
            before, site = heap[0]
            if refused_by_load(self._demand, site.node, site.load) is not None:
                heappop(heap)
            elif (current := self._rank(site)) > before:
                heapreplace(heap, (current, site))
            else:
                return heap[0]
        return None

    def _rank(self, site: Site) -> Rank:
        return rank(self._demand, site.node, site.load, now=self._now)

    def _levels(self, path: Path) -> tuple[int, ...]:
        return tuple([self._tasks[level] for level in _prefixes(path)])


@lru_cache(maxsize=4096)
def _prefixes(path: Path) -> tuple[Path, ...]:
    return tuple(path[: length + 1] for length in range(len(path)))
