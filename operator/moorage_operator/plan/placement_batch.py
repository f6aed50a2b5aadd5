"""A batch of tasks being placed: the nodes with what was assumed so far, and how a task takes a place on one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Final

from moorage_operator.plan.filters import Refusal, refused_by_facts, refused_by_load
from moorage_operator.plan.fleet_view import Fleet
from moorage_operator.plan.fleet_view_load import Load
from moorage_operator.plan.placement_needs import Demand, ServiceKey, TaskNeeds
from moorage_operator.plan.placement_outcome import ELSEWHERE, Bound, Placement, Unplaceable, unplaceable
from moorage_operator.plan.placement_pool import Pool
from moorage_operator.plan.placement_rank import rank
from moorage_operator.plan.placement_site import Site
from moorage_operator.plan.placement_spread import Spread

Facts = tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]

FEW: Final = 16


class Batch:
    """Tasks of one Demand are best taken one after another: the ranking of the nodes for it is kept until another Demand comes."""

    def __init__(self, fleet: Fleet, now: datetime) -> None:
        self._now = now
        self._sites = {name: Site(fleet.nodes[name]) for name in sorted(fleet.nodes)}
        self._facts: dict[Facts, dict[str, Refusal | None]] = {}
        self._pools: dict[tuple[Facts, tuple[str, ...]], Pool] = {}
        self._known: dict[ServiceKey, set[str]] = {}
        self._all_known = False
        self._ranked: Demand | None = None
        self._ranking: Spread | None = None
        self._full: Unplaceable | None = None  # what the ranked Demand is told once no node is left: none frees up while a batch is placed

    def take(self, task: TaskNeeds) -> Placement | Unplaceable:
        bound = self.bound(task)
        site = self._best(task) if bound is None else self._best_of(bound, task)
        if site is None:
            return self._explain(task, bound)
        self._put(task, site)
        return Placement(task.name, site.node.name)

    def bound(self, task: TaskNeeds) -> Bound | None:
        """The only nodes for a slot with a home, or with a volume that exists; nothing binds to a node that was given up."""
        home = self._sites.get(task.home.node) if task.home is not None else None
        if task.home is not None and home is not None and not home.node.given_up:
            return Bound(frozenset((home.node.name,)), task.home.why)
        bounds = [Bound(frozenset(nodes), f"its volume {name} is there") for name in task.volumes if (nodes := self._volumes.get(name))]
        if not bounds:
            return None
        return Bound(frozenset.intersection(*(bound.nodes for bound in bounds)), " and ".join(bound.why for bound in bounds))

    # --- choosing

    def _best(self, task: TaskNeeds) -> Site | None:
        ranking = self._ranking_for(task.demand)
        best = ranking.best()
        here = self._making_way(task)
        if here is not None and self._refused(task.demand, *here) is None and (best is None or ranking.key_making_way(*here) < best[0]):
            return here[0]
        return None if best is None else best[1]

    def _best_of(self, bound: Bound, task: TaskNeeds) -> Site | None:
        open_to = []
        for site in map(self._sites.__getitem__, bound.nodes):
            load = self._load_for(task, site)
            if self._refused(task.demand, site, load) is None:
                open_to.append((rank(task.demand, site.node, load, now=self._now), site))
        return min(open_to, key=lambda entry: entry[0])[1] if open_to else None

    def _put(self, task: TaskNeeds, site: Site) -> None:
        service = task.demand.service
        before = site.load.services.get(service, 0)
        site.put(task)
        self._known_to(service).add(site.node.name)
        if self._ranking is not None and self._ranked == task.demand and site.load.services[service] > before:
            self._ranking.placed(site)
        for volume in task.volumes:
            self._volumes[volume].add(site.node.name)

    def _ranking_for(self, demand: Demand) -> Spread:
        if self._ranking is None or self._ranked != demand:
            if self._ranking is not None:
                self._ranking.end()
            known = (self._sites[name] for name in sorted(self._known_to(demand.service) | self._holders(demand)))
            self._ranked, self._ranking = demand, Spread(demand, self._pool(demand), known, now=self._now)
            self._full = None
        return self._ranking

    def _pool(self, demand: Demand) -> Pool:
        kind = (_facts(demand), demand.preferences)
        if kind not in self._pools:
            refusals = self._refused_by_facts(demand)
            self._pools[kind] = Pool((site for name, site in self._sites.items() if refusals[name] is None), demand.preferences)
        return self._pools[kind]

    def _known_to(self, service: ServiceKey) -> set[str]:
        """The nodes where a Service has tasks or failures. For few Services they are looked for, for many an index of all is made."""
        if service not in self._known and not self._all_known:
            if len(self._known) < FEW:
                self._known[service] = {name for name, site in self._sites.items() if _is_known(service, site)}
            else:
                self._known, self._all_known = self._index() | self._known, True
        return self._known.setdefault(service, set())

    def _holders(self, demand: Demand) -> set[str]:
        return set.intersection(*(self._volumes.get(key, set()) for key in demand.volumes)) if demand.volumes else set()

    def _index(self) -> dict[ServiceKey, set[str]]:
        known = defaultdict[ServiceKey, set[str]](set)
        for name, site in self._sites.items():
            for service in site.load.services:
                known[service].add(name)
            for version in site.node.failures:
                known[version.service].add(name)
        return known

    # --- making way

    def _making_way(self, task: TaskNeeds) -> tuple[Site, Load] | None:
        """The node of the task that is replaced, and its load without it."""
        site = self._sites.get(self._node_of.get(task.replaces, "")) if task.replaces is not None else None
        load = site.making_way_for(task) if site is not None else None
        return (site, load) if site is not None and load is not None else None

    def _load_for(self, task: TaskNeeds, site: Site) -> Load:
        load = site.making_way_for(task) if task.replaces is not None else None
        return site.load if load is None else load

    @cached_property
    def _node_of(self) -> dict[str, str]:
        return {uid: name for name, site in self._sites.items() for uid in site.node.holdings}

    @cached_property
    def _volumes(self) -> dict[str, set[str]]:
        volumes = defaultdict[str, set[str]](set)
        for name, site in self._sites.items():
            for volume in () if site.node.given_up else site.node.volumes:
                volumes[volume].add(name)
        return volumes

    # --- refusing

    def _refused(self, demand: Demand, site: Site, load: Load) -> Refusal | None:
        return self._refused_by_facts(demand)[site.node.name] or refused_by_load(demand, site.node, load)

    def _refused_by_facts(self, demand: Demand) -> dict[str, Refusal | None]:
        """Kept per kind of demand: most Services of a swarm ask the same of the facts."""
        kind = _facts(demand)
        if kind not in self._facts:
            self._facts[kind] = {name: refused_by_facts(demand, site.node) for name, site in self._sites.items()}
        return self._facts[kind]

    def _explain(self, task: TaskNeeds, bound: Bound | None) -> Unplaceable:
        if bound is not None or task.replaces in self._node_of:
            return unplaceable(task.name, self._refusals(task, bound), bound)
        if self._full is None:
            self._full = unplaceable(task.name, self._refusals(task, bound))
        return replace(self._full, task=task.name)

    def _refusals(self, task: TaskNeeds, bound: Bound | None) -> dict[str, Refusal]:
        """One for each node."""
        refused = {name: self._refused(task.demand, site, self._load_for(task, site)) for name, site in self._within(bound)}
        return {name: refused.get(name) or ELSEWHERE for name in self._sites}

    def _within(self, bound: Bound | None) -> Iterable[tuple[str, Site]]:
        return self._sites.items() if bound is None else [(name, self._sites[name]) for name in sorted(bound.nodes)]


def _is_known(service: ServiceKey, site: Site) -> bool:
    return service in site.load.services or any(version.service == service for version in site.node.failures)


def _facts(demand: Demand) -> Facts:
    """All that the facts filters read of a Demand."""
    return demand.service.namespace, demand.constraints, demand.platforms, demand.features
