"""What tasks hold on a node, and how it adds up when one task makes way for another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from moorage_agent.protocol import Port

from moorage_operator.plan.placement_needs import ServiceKey


@dataclass(frozen=True, slots=True)
class Amount:
    """cpu in thousandths of a core, memory in bytes."""

    cpu_millis: int = 0
    memory_bytes: int = 0


NOTHING: Final = Amount()


@dataclass(frozen=True, slots=True)
class Holding:
    """What one task that may run holds on its node. `replaces` and `start_first` as in TaskNeeds."""

    uid: str
    service: ServiceKey
    amount: Amount = NOTHING
    ports: tuple[Port, ...] = ()
    devices: tuple[tuple[str, int], ...] = ()
    replaces: str | None = None
    start_first: bool = False


@dataclass(slots=True)
class Load:
    """The sum of what is held on one node. `services` counts tasks; `ports` are by protocol and number, with address and owner."""

    cpu_millis: int = 0
    memory_bytes: int = 0
    tasks: int = 0
    services: dict[ServiceKey, int] = field(default_factory=dict)
    ports: dict[tuple[str, int], tuple[tuple[str | None, ServiceKey], ...]] = field(default_factory=dict)
    devices: dict[str, int] = field(default_factory=dict)

    def add(self, holding: Holding) -> None:
        """Adds a task that replaces none on this node."""
        self._add_amounts(holding.amount, dict(holding.devices))
        self._add_count(holding.service, 1)
        self._add_ports(holding)

    def copy(self) -> Load:
        return Load(self.cpu_millis, self.memory_bytes, self.tasks, dict(self.services), dict(self.ports), dict(self.devices))

    def _add_amounts(self, amount: Amount, devices: Mapping[str, int]) -> None:
        self.cpu_millis += amount.cpu_millis
        self.memory_bytes += amount.memory_bytes
        for name, count in devices.items():
            self.devices[name] = self.devices.get(name, 0) + count

    def _add_count(self, service: ServiceKey, count: int) -> None:
        self.tasks += count
        self.services[service] = self.services.get(service, 0) + count

    def _add_ports(self, holding: Holding) -> None:
        for port in holding.ports:
            key = (port.protocol, port.port)
            self.ports[key] = (*self.ports.get(key, ()), (port.host_ip, holding.service))


def load_of(holdings: Mapping[str, Holding]) -> Load:
    """The sum over tasks by uid.

    A task that makes way and its successors never run at once, so together they hold the greater of the two. With StartFirst they do run
    at once and only count as one task of their Service.
    """
    load = Load()
    followers = _followers(holdings)
    if not followers:
        for holding in holdings.values():
            load.add(holding)
        return load
    following = {holding.uid: holding.start_first for later in followers.values() for holding in later}
    for uid, holding in holdings.items():
        load._add_ports(holding)
        if uid not in following:
            load._add_count(holding.service, _count(holding, followers))
        if following.get(uid, True):
            load._add_amounts(*_peak(holding, followers))
    return load


def _followers(holdings: Mapping[str, Holding]) -> dict[str, list[Holding]]:
    """A task makes way for tasks of its own Service only."""
    followers: dict[str, list[Holding]] = defaultdict(list)
    for holding in holdings.values():
        predecessor = holdings.get(holding.replaces) if holding.replaces is not None else None
        if predecessor is not None and predecessor.service == holding.service:
            followers[predecessor.uid].append(holding)
    return followers


def _count(holding: Holding, followers: Mapping[str, list[Holding]]) -> int:
    return max(1, sum(_count(follower, followers) for follower in followers.get(holding.uid, ())))


def _peak(holding: Holding, followers: Mapping[str, list[Holding]]) -> tuple[Amount, dict[str, int]]:
    cpu, memory, devices = 0, 0, dict[str, int]()
    for follower in followers.get(holding.uid, ()):
        if not follower.start_first:
            amount, its_devices = _peak(follower, followers)
            cpu, memory = cpu + amount.cpu_millis, memory + amount.memory_bytes
            for name, count in its_devices.items():
                devices[name] = devices.get(name, 0) + count
    own = holding.amount
    for name, count in holding.devices:
        devices[name] = max(devices.get(name, 0), count)
    return Amount(max(own.cpu_millis, cpu), max(own.memory_bytes, memory)), devices
