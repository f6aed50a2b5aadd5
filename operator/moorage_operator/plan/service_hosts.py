"""What the state of a node means for the tasks of one Service on it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from moorage_operator.plan.fleet_view import Fleet
from moorage_operator.plan.loss import Fate, Losses, verdict
from moorage_operator.plan.loss_rule import LossRule


class Host(Enum):
    """FINE and PAUSED: tasks there can be worked on. AWAY: nothing can be done there now. DRAINING: tasks should leave. LOST: given up."""

    FINE = "fine"
    PAUSED = "paused"
    DRAINING = "draining"
    AWAY = "away"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class HostState:
    """`message` says why it is not FINE; `silent`: nobody knows how its tasks are; `until` is when silence becomes a loss."""

    host: Host
    message: str = ""
    silent: bool = False
    until: datetime | None = None


UNPLACED = HostState(Host.FINE)


class Hosts:
    """Looks each node up once per plan."""

    def __init__(self, fleet: Fleet, found: Losses, rule: LossRule, now: datetime) -> None:
        self._fleet, self._found, self._rule, self._now = fleet, found, rule, now
        self._known: dict[str | None, HostState] = {None: UNPLACED}

    def state(self, node: str | None) -> HostState:
        known = self._known.get(node)
        if known is None and node is not None:
            known = self._known[node] = self._look(node)
        return known or UNPLACED

    def is_(self, node: str | None, *hosts: Host) -> bool:
        return self.state(node).host in hosts

    def exists(self, node: str) -> bool:
        """False for a node that nobody expects back: slots are not bound to it any more."""
        view = self._fleet.nodes.get(node)
        return view is not None and not view.given_up

    def is_unreadable(self, node: str | None) -> bool:
        return node in self._found.known and node not in self._fleet.nodes

    def _look(self, node: str) -> HostState:
        fate = verdict(node, self._rule, self._found, now=self._now)
        if fate.fate is Fate.LOST:
            return HostState(Host.LOST, fate.message)
        if fate.fate is Fate.WAITS:
            return HostState(Host.AWAY, fate.message, silent=True, until=fate.at)
        return self._reachable(node)

    def _reachable(self, node: str) -> HostState:
        view = self._fleet.nodes.get(node)
        if view is None or not view.ready:
            return HostState(Host.AWAY, f"node {node} is not ready{f' ({view.why_not_ready})' if view and view.why_not_ready else ''}")
        if view.deleting:
            return HostState(Host.DRAINING, f"node {node} is being deleted")
        if view.availability == "Drain":
            return HostState(Host.DRAINING, f"node {node} is drained")
        return HostState(Host.FINE) if view.availability == "Active" else HostState(Host.PAUSED, f"node {node} is paused")
