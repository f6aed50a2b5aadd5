"""Which nodes may run a task: small functions with one reason each.

Facts filters look at what a node is and are the same for all tasks of alike Services; load filters look at what is still free. The texts
hold {nodes} ("2 nodes") or {names} ("n3"): the explanation of a refusal is built from them, so it cannot disagree with the filters.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from moorage_agent.protocol import Port

from moorage_operator.plan.constraint import architecture, parse_constraint
from moorage_operator.plan.fleet_view import NodeView
from moorage_operator.plan.fleet_view_load import Load
from moorage_operator.plan.placement_needs import Demand


class Refusal(NamedTuple):
    """`reason` is stable and CamelCase: it may become a condition's reason."""

    reason: str
    text: str


FactsFilter = Callable[[Demand, NodeView], Refusal | None]
LoadFilter = Callable[[Demand, NodeView, Load], Refusal | None]


def refused_by_facts(demand: Demand, node: NodeView) -> Refusal | None:
    for check in FACTS:
        if (refusal := check(demand, node)) is not None:
            return refusal
    return None


def refused_by_load(demand: Demand, node: NodeView, load: Load) -> Refusal | None:
    for check in LOAD:
        if (refusal := check(demand, node, load)) is not None:
            return refusal
    return None


# --- facts


def is_kept(_demand: Demand, node: NodeView) -> Refusal | None:
    if node.deleting:
        return Refusal("NodeDeleting", "{nodes} being deleted")
    if node.out_of_service:
        return Refusal("NodeOutOfService", "{nodes} out of service")
    return None


def is_active(_demand: Demand, node: NodeView) -> Refusal | None:
    if node.availability == "Active":
        return None
    if node.availability == "Drain":
        return Refusal("NodeDrained", "{nodes} drained")
    return Refusal("NodePaused", "{nodes} paused")


def is_ready(_demand: Demand, node: NodeView) -> Refusal | None:
    if node.ready:
        return None
    return Refusal("NodeNotReady", f"{{nodes}} not ready ({node.why_not_ready})" if node.why_not_ready else "{nodes} not ready")


def allows_namespace(demand: Demand, node: NodeView) -> Refusal | None:
    if node.allowed_namespaces is None or demand.service.namespace in node.allowed_namespaces:
        return None
    return Refusal("NamespaceNotAllowed", f"namespace {demand.service.namespace} not allowed on {{nodes}}")


def meets_constraints(demand: Demand, node: NodeView) -> Refusal | None:
    for text in demand.constraints:
        if not parse_constraint(text).met_by(node):
            return Refusal("ConstraintNotMet", f"constraint {text} not met on {{nodes}}")
    return None


def runs_image_platform(demand: Demand, node: NodeView) -> Refusal | None:
    if not demand.platforms or not node.arch or any(_matches(platform, node) for platform in demand.platforms):
        return None
    return Refusal("PlatformMismatch", f"image for {', '.join(demand.platforms)} does not run on {{nodes}}")


def has_features(demand: Demand, node: NodeView) -> Refusal | None:
    missing = next((name for name in demand.features if not node.features.get(name, False)), None)
    return None if missing is None else Refusal("FeatureMissing", f"no {missing} on {{nodes}}")


FACTS: Final[tuple[FactsFilter, ...]] = (
    is_kept,
    is_active,
    is_ready,
    allows_namespace,
    meets_constraints,
    runs_image_platform,
    has_features,
)


# --- load


def enough_memory(demand: Demand, node: NodeView, load: Load) -> Refusal | None:
    if demand.memory_bytes and load.memory_bytes + demand.memory_bytes > node.allocatable.memory_bytes:
        return Refusal("InsufficientMemory", "insufficient memory on {nodes}")
    return None


def enough_cpu(demand: Demand, node: NodeView, load: Load) -> Refusal | None:
    if demand.cpu_millis and load.cpu_millis + demand.cpu_millis > node.allocatable.cpu_millis:
        return Refusal("InsufficientCpu", "insufficient cpu on {nodes}")
    return None


def enough_devices(demand: Demand, node: NodeView, load: Load) -> Refusal | None:
    for name, count in demand.devices:
        if load.devices.get(name, 0) + count > node.devices.get(name, 0):
            return Refusal("InsufficientDevices", f"not enough free devices {name} on {{nodes}}")
    return None


def ports_free(demand: Demand, node: NodeView, load: Load) -> Refusal | None:
    for port in demand.ports:
        owner = _service_on(port, demand, load) or _process_on(port, node)
        if owner is not None:
            return Refusal("PortInUse", f"port {port.port}{'' if port.protocol == 'TCP' else '/udp'} used by {owner} on {{names}}")
    return None


def below_per_node_limit(demand: Demand, _node: NodeView, load: Load) -> Refusal | None:
    if demand.max_per_node is not None and load.services.get(demand.service, 0) >= demand.max_per_node:
        return Refusal("MaxReplicasPerNode", f"{{nodes}} with {demand.max_per_node} of this service, as many as maxReplicasPerNode allows")
    return None


LOAD: Final[tuple[LoadFilter, ...]] = (enough_memory, enough_cpu, enough_devices, ports_free, below_per_node_limit)


def _service_on(port: Port, demand: Demand, load: Load) -> str | None:
    """Services of other namespaces are not named: their users may not see each other."""
    for host_ip, service in load.ports.get((port.protocol, port.port), ()):
        if addresses_overlap(host_ip, port.host_ip):
            return f"service {service.name}" if service.namespace == demand.service.namespace else "a service of another namespace"
    return None


def _process_on(port: Port, node: NodeView) -> str | None:
    """The agent tells no address of a foreign listener, so it is taken to hold the port on all of them."""
    for listener in node.listeners:
        if (listener.protocol, listener.port) == (port.protocol, port.port):
            return listener.process or "another process"
    return None


@lru_cache(maxsize=4096)
def addresses_overlap(one: str | None, other: str | None) -> bool:
    """Two sockets of one port exclude each other on the same address, and a wildcard address excludes every other (bind(2), ip(7))."""
    return one is None or other is None or _canonical(one) is None or _canonical(other) is None or _canonical(one) == _canonical(other)


def _canonical(text: str) -> str | None:
    """None for a wildcard; `::` also takes the IPv4 addresses, because net.ipv6.bindv6only is 0 by default."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return None if address.is_unspecified else str(address)


@lru_cache(maxsize=4096)
def _platform(text: str) -> tuple[str, str]:
    os, _, rest = text.partition("/")
    return os.lower(), architecture(rest.partition("/")[0])


def _matches(platform: str, node: NodeView) -> bool:
    return _platform(platform) == (node.os.lower(), architecture(node.arch))
