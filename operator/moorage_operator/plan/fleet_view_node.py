"""A Node as the fleet sees it: its facts, without its tasks."""

from __future__ import annotations

from typing import Final

from moorage_agent.protocol import Listener

from moorage_operator.api import Node, cpu_millis, find, memory_bytes
from moorage_operator.plan.fleet_view import NodeView
from moorage_operator.plan.fleet_view_load import NOTHING, Amount

RESERVED_SHARE: Final = 20
RESERVED_MEMORY_LEAST: Final = 256 * 2**20


def node_facts(node: Node) -> NodeView:
    spec, status = node.spec, node.status
    ready = find(status.conditions, "Ready")
    return NodeView(
        name=node.metadata.name,
        uid=node.metadata.uid,
        ready=ready is not None and ready.status == "True",
        why_not_ready="" if ready is None else ready.reason,
        availability=spec.availability,
        out_of_service=spec.out_of_service,
        deleting=node.metadata.deletion_timestamp is not None,
        allowed_namespaces=None if spec.allowed_namespaces is None else frozenset(spec.allowed_namespaces),
        labels=node.metadata.labels,
        hostname=status.hostname or "",
        arch=status.architecture or "",
        features={feature.name: bool(feature.present) for feature in status.features},
        allocatable=allocatable(node, capacity(node)),
        devices={device.name: len(device.ids) for device in spec.devices},
        listeners=tuple(Listener(one.port, one.protocol or "TCP", one.process or "") for one in status.listeners if one.port),
        volumes=frozenset(status.volumes),
    )


def capacity(node: Node) -> Amount:
    """What the host was seen to have; nothing before its first report."""
    seen = node.status.capacity
    return NOTHING if seen is None else Amount(cpu_millis(seen.cpu or "0"), memory_bytes(seen.memory or "0"))


def allocatable(node: Node, has: Amount) -> Amount:
    """What tasks may reserve: capacity without spec.reserved, by default 5 % of both and at least 256Mi."""
    reserved = node.spec.reserved
    cpu = has.cpu_millis // RESERVED_SHARE if reserved.cpu is None else cpu_millis(reserved.cpu)
    least = max(has.memory_bytes // RESERVED_SHARE, RESERVED_MEMORY_LEAST)
    memory = least if reserved.memory is None else memory_bytes(reserved.memory)
    return Amount(max(0, has.cpu_millis - cpu), max(0, has.memory_bytes - memory))
