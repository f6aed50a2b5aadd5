"""A node while a batch of tasks is being placed: what was assumed so far is added to a copy of its load."""

from __future__ import annotations

from moorage_operator.plan.fleet_view import NodeView
from moorage_operator.plan.fleet_view_load import Amount, Holding, Load, load_of
from moorage_operator.plan.placement_needs import TaskNeeds


class Site:
    __slots__ = ("_holdings", "_shared", "load", "node")

    def __init__(self, node: NodeView) -> None:
        self.node = node
        self.load = node.load
        self._holdings = node.holdings
        self._shared = True

    def making_way_for(self, task: TaskNeeds) -> Load | None:
        """The load once what it replaces has made way; None if that is not here.

        With StartFirst it runs on and only its count is free, and not even that when it has another successor.
        """
        replaced = self._holdings.get(task.replaces or "")
        if replaced is None or replaced.service != task.demand.service:
            return None
        if task.start_first:
            if any(one.replaces == replaced.uid and one.service == replaced.service for one in self._holdings.values()):
                return self.load
            load = self.load.copy()
            load.services[replaced.service] -= 1
            load.tasks -= 1
            return load
        return load_of({key: holding for key, holding in self._holdings.items() if key != replaced.uid})

    def put(self, task: TaskNeeds) -> None:
        holding = holding_of(task)
        own = self._holdings if isinstance(self._holdings, dict) and not self._shared else dict(self._holdings)
        own[holding.uid] = holding
        self._holdings = own
        if holding.replaces in self._holdings:
            self.load = load_of(self._holdings)
        else:
            self.load = self.load.copy() if self._shared else self.load
            self.load.add(holding)
        self._shared = False


def holding_of(task: TaskNeeds) -> Holding:
    """What the task will hold. It has no uid yet: its namespace and name stand for it."""
    demand = task.demand
    return Holding(
        uid=f"{demand.service.namespace}/{task.name}",
        service=demand.service,
        amount=Amount(demand.cpu_millis, demand.memory_bytes),
        ports=demand.ports,
        devices=demand.devices,
        replaces=task.replaces,
        start_first=task.start_first,
    )
