"""Keeps the Fleet current, event by event: only nodes that something changed on are summed up anew."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import datetime

from moorage_operator.api import Node, Task
from moorage_operator.plan.fleet_view import Fleet, NodeView, ServiceVersion
from moorage_operator.plan.fleet_view_load import Holding, load_of
from moorage_operator.plan.fleet_view_node import node_facts
from moorage_operator.plan.fleet_view_task import Seat, seat_of
from moorage_operator.plan.placement_needs import TaskNeeds
from moorage_operator.plan.placement_site import holding_of

TaskKey = tuple[str, str]


class FleetView:
    """Repeating an event changes nothing. Tasks may come before their Node."""

    def __init__(self) -> None:
        self._facts: dict[str, NodeView] = {}
        self._seats: dict[str, Seat] = {}
        self._on_node: dict[str, set[str]] = defaultdict(set)
        self._assumed: dict[TaskKey, str] = {}
        self._reserved: dict[str, dict[TaskKey, Holding]] = defaultdict(dict)
        self._fleet = Fleet({})
        self._changed: set[str] = set()

    def fleet(self) -> Fleet:
        """The swarm as of now. A snapshot: later events do not change it."""
        if self._changed:
            views = dict(self._fleet.nodes)
            for name in self._changed:
                views.pop(name, None)
                if name in self._facts:
                    views[name] = self._view(name)
            self._changed.clear()
            self._fleet = Fleet(views)
        return self._fleet

    def put_node(self, node: Node) -> bool:
        """Whether anything changed that placement asks for."""
        facts = node_facts(node)
        if self._facts.get(facts.name) == facts:
            return False
        self._facts[facts.name] = facts
        self._changed.add(facts.name)
        return True

    def drop_node(self, name: str) -> None:
        if self._facts.pop(name, None) is not None:
            self._changed.add(name)

    def put_task(self, task: Task) -> None:
        """Also confirms what was assumed for the task of this name."""
        uid, seat = task.metadata.uid, seat_of(task)
        if seat is not None:
            self.forget(task.metadata.namespace, task.metadata.name)
        if seat == self._seats.get(uid):
            return
        self.drop_task(uid)
        if seat is not None:
            self._seats[uid] = seat
            self._on_node[seat.node].add(uid)
            self._changed.add(seat.node)

    def drop_task(self, uid: str) -> None:
        seat = self._seats.pop(uid, None)
        if seat is not None:
            self._on_node[seat.node].discard(uid)
            self._changed.add(seat.node)

    def assume(self, needs: TaskNeeds, node: str) -> None:
        """Count a placement that is being written; until its Task is seen, or `forget` when the write failed."""
        key = (needs.demand.service.namespace, needs.name)
        self.forget(*key)
        self._assumed[key] = node
        self._reserved[node][key] = holding_of(needs)
        self._changed.add(node)

    def forget(self, namespace: str, name: str) -> None:
        node = self._assumed.pop((namespace, name), None)
        if node is not None:
            del self._reserved[node][namespace, name]
            self._changed.add(node)

    def _view(self, name: str) -> NodeView:
        seats = [self._seats[uid] for uid in self._on_node.get(name, ())]
        holdings = {seat.holding.uid: seat.holding for seat in seats if seat.holding is not None}
        holdings |= {holding.uid: holding for holding in self._reserved[name].values()}
        return replace(self._facts[name], holdings=holdings, load=load_of(holdings), failures=_failures(seats))


def _failures(seats: list[Seat]) -> dict[ServiceVersion, tuple[datetime, ...]]:
    failures: dict[ServiceVersion, tuple[datetime, ...]] = defaultdict(tuple)
    for seat in seats:
        if seat.failures:
            failures[seat.version] += seat.failures
    return dict(failures)
