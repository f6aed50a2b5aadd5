"""Fleets and needs written as small mappings, for tables of cases."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from moorage_agent.protocol import Listener, Port
from moorage_operator.api import cpu_millis, memory_bytes
from moorage_operator.plan.fleet_view import Fleet, NodeView, ServiceVersion
from moorage_operator.plan.fleet_view_load import Amount, Holding, load_of
from moorage_operator.plan.placement_needs import Demand, Home, ServiceKey, TaskNeeds

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WEB = ServiceKey("shop", "web")


def fleet(nodes: Mapping[str, Mapping[str, Any]]) -> Fleet:
    return Fleet.of(node(name, **spec) for name, spec in nodes.items())


def node(name: str, **spec: Any) -> NodeView:
    """`failures`: seconds before noon, of version `failed_version` (v1) of service web."""
    amount = _amount({"cpu": "4", "memory": "8Gi"} | {key: spec.pop(key) for key in ("cpu", "memory") if key in spec})
    holdings = {one.uid: one for one in (holding(f"{name}-{index}", **task) for index, task in enumerate(spec.pop("tasks", ())))}
    failures = tuple(sorted(NOON - timedelta(seconds=ago) for ago in spec.pop("failures", ())))
    version = ServiceVersion(WEB, spec.pop("failed_version", "v1"))
    namespaces = spec.pop("namespaces", None)
    return NodeView(
        name=name,
        uid=f"uid-{name}",
        allocatable=amount,
        allowed_namespaces=None if namespaces is None else frozenset(namespaces),
        listeners=tuple(Listener(port, "TCP", process) for port, process in spec.pop("listeners", {}).items()),
        volumes=frozenset(spec.pop("volumes", ())),
        holdings=holdings,
        load=load_of(holdings),
        failures={version: failures} if failures else {},
        **spec,
    )


def holding(
    default_uid: str,
    *,
    uid: str | None = None,
    service: str = "web",
    namespace: str = "shop",
    replaces: str | None = None,
    start_first: bool = False,
    **spec: Any,
) -> Holding:
    return Holding(
        uid=uid or default_uid,
        service=ServiceKey(namespace, service),
        amount=_amount(spec),
        ports=ports(spec.get("ports", ())),
        devices=tuple(spec.get("devices", {}).items()),
        replaces=replaces,
        start_first=start_first,
    )


def needs(
    name: str = "web-1",
    *,
    service: ServiceKey = WEB,
    version: str = "v1",
    home: str | None = None,
    replaces: str | None = None,
    start_first: bool = False,
    volumes: tuple[str, ...] = (),
    **spec: Any,
) -> TaskNeeds:
    amount = _amount({key: spec.pop(key) for key in ("cpu", "memory") if key in spec})
    demand = Demand(
        service=service,
        version=version,
        cpu_millis=amount.cpu_millis,
        memory_bytes=amount.memory_bytes,
        ports=ports(spec.pop("ports", ())),
        devices=tuple(spec.pop("devices", {}).items()),
        max_per_node=spec.pop("max_per_node", None),
        volumes=tuple(spec.pop("shared", ())),
        **{key: tuple(value) for key, value in spec.items()},
    )
    where = None if home is None else Home(home, "its volume is there")
    return TaskNeeds(name, demand, replaces=replaces, start_first=start_first, home=where, volumes=tuple(volumes))


def ports(texts: Any) -> tuple[Port, ...]:
    """80, "53/udp", "192.0.2.1:80", "[2001:db8::1]:80"."""
    found = []
    for text in map(str, texts):
        address, protocol = text.partition("/")[::2]
        host, _, port = address.rpartition(":")
        found.append(Port(int(port), protocol.upper() or "TCP", host.strip("[]") or None))
    return tuple(found)


def _amount(spec: Mapping[str, Any]) -> Amount:
    return Amount(cpu_millis(str(spec.get("cpu", "0"))), memory_bytes(str(spec.get("memory", "0"))))
