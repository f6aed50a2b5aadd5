"""Node.status: what the link says, what the host has, what its tasks hold. Written when something changed; it carries no heartbeat."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from moorage_agent.protocol import HostFacts

from moorage_operator.api import Node, NodeStatus, cpu_text, memory_text, stamped
from moorage_operator.api.node_status import Amounts, FeatureStatus, ListenerStatus
from moorage_operator.plan.fleet_view_load import Amount, Load
from moorage_operator.plan.fleet_view_node import allocatable, capacity
from moorage_operator.plan.loss import Losses
from moorage_operator.plan.node_condition import Agent, node_conditions, short
from moorage_operator.plan.node_contact import Contact
from moorage_operator.plan.node_removal import RemovalStep

MAX_FEATURES: Final = 64
MAX_LISTENERS: Final = 256
MAX_VOLUMES: Final = 1024
_MEBI: Final = 2**20


def node_status(
    node: Node,
    contact: Contact | None,
    load: Load,
    losses: Losses,
    *,
    agent: Agent,
    removal: RemovalStep | None = None,
    leading_since: datetime,
    now: datetime,
) -> NodeStatus | None:
    """`load` is what the node's tasks hold; `agent` is the version the operator ships; `removal` is where a deleted Node stands.

    None when the status says all this already.
    """
    facts = contact.facts if contact is not None else None
    conditions = stamped(
        node_conditions(node, contact, losses, agent=agent, removal=removal, leading_since=leading_since, now=now),
        node.status.conditions,
        generation=node.metadata.generation,
        now=now,
    )
    changes: dict[str, Any] = {
        "observed_generation": node.metadata.generation,
        "state": {"True": "Ready", "False": "NotReady"}.get(conditions[0].status, "Unknown"),
        "conditions": conditions,
        **(_host(facts) if facts is not None else {}),
    }
    seen = Amount(facts.cpu_millis, facts.memory_bytes) if facts is not None else capacity(node)
    status = node.status.model_copy(update=changes | _amounts(node, seen, load))
    return None if status == node.status else status


def _host(facts: HostFacts) -> dict[str, Any]:
    return {
        "host_id": facts.host_id,
        "hostname": facts.hostname,
        "boot_id": facts.boot_id,
        "agent_version": short(facts.agent_version),
        "python": facts.python,
        "os": facts.os,
        "kernel": facts.kernel,
        "architecture": facts.arch,
        "cgroup": facts.cgroup,
        "features": _features(facts),
        "listeners": _listeners(facts),
        "volumes": tuple(sorted(facts.volumes))[:MAX_VOLUMES],
    }


def _features(facts: HostFacts) -> tuple[FeatureStatus, ...]:
    found = sorted(facts.features, key=lambda feature: feature.name)[:MAX_FEATURES]
    return tuple(FeatureStatus(name=one.name, present=one.present, detail=one.detail or None) for one in found)


def _listeners(facts: HostFacts) -> tuple[ListenerStatus, ...]:
    """The lowest ports where there are too many: those are the ones that services want."""
    found = sorted({(one.port, one.protocol, one.process) for one in facts.listeners if one.port})[:MAX_LISTENERS]
    return tuple(ListenerStatus(port=port, protocol=protocol, process=process or None) for port, protocol, process in found)


def _amounts(node: Node, seen: Amount, load: Load) -> dict[str, Any]:
    """Nothing is said about amounts before the host told what it has."""
    if not seen.memory_bytes:
        return {"tasks": load.tasks}
    usable = allocatable(node, seen)
    fits = memory_text(usable.memory_bytes // _MEBI * _MEBI)  # what is shown as free must fit
    return {
        "capacity": _texts(seen),
        "allocatable": _texts(usable),
        "allocated": _texts(Amount(load.cpu_millis, load.memory_bytes)),
        "cpu": f"{cpu_text(load.cpu_millis)}/{cpu_text(usable.cpu_millis)}",
        "memory": f"{memory_text(load.memory_bytes)}/{fits}",
        "tasks": load.tasks,
    }


def _texts(amount: Amount) -> Amounts:
    """Bytes in full: what is read back must be what the host said."""
    return Amounts(cpu=cpu_text(amount.cpu_millis), memory=str(amount.memory_bytes))
