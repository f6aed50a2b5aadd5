"""How a Node object goes: its tasks leave, the agent is uninstalled, the finalizer is released. Each wait says what would end it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from moorage_operator.api import Node
from moorage_operator.plan.node_contact import Contact

# The host belongs to somebody else: there is nothing of ours on it.
_NOT_OURS = frozenset(("OwnedByAnotherSwarm", "DuplicateHost"))


class Removal(Enum):
    """DRAIN and WAIT: nothing to do now. UNINSTALL: ask the agent. RELEASE: end the session, then take the finalizer away; the host is
    pushed nothing more.
    """

    DRAIN = "Drain"
    WAIT = "Wait"
    UNINSTALL = "Uninstall"
    RELEASE = "Release"


@dataclass(frozen=True, slots=True)
class RemovalStep:
    removal: Removal
    message: str

    def describe(self) -> str:
        return f"{self.removal.value}: {self.message}"


def node_removal(node: Node, contact: Contact | None, *, tasks: int, uninstalled: bool = False) -> RemovalStep | None:
    """`tasks`: how many Tasks there have not ended; `uninstalled`: the agent confirmed that it is gone. None for a Node nobody deletes."""
    if node.metadata.deletion_timestamp is None:
        return None
    if node.spec.out_of_service and tasks:
        # Once the object is gone nobody can tell a host that is given up from one that was kept: what has a volume would wait for ever.
        return RemovalStep(Removal.WAIT, f"the host is out of service: {_count(tasks)} there still to be given up")
    reason = _no_need(node, contact, uninstalled=uninstalled)
    if reason:
        return RemovalStep(Removal.RELEASE, reason)
    name = node.metadata.name
    if contact is None or not contact.connected:
        why = contact.message if contact is not None else "not connected yet"
        remedy = f"if the host is gone for good, set spec.outOfService on Node {name}"
        return RemovalStep(Removal.WAIT, f"cannot uninstall the agent: {why}; {remedy}")
    if tasks:
        remedy = "one that finds no other node stays until its Service is scaled down or deleted"
        return RemovalStep(Removal.DRAIN, f"waits for {_count(tasks)} to leave; {remedy}")
    return RemovalStep(Removal.UNINSTALL, "no task is left: the agent stops what it still has and removes itself")


def _count(tasks: int) -> str:
    return f"{tasks} task{'s' if tasks > 1 else ''}"


def _no_need(node: Node, contact: Contact | None, *, uninstalled: bool) -> str:
    if uninstalled:
        return "the agent is uninstalled"
    if node.spec.out_of_service:
        return "the host is out of service"
    if node.spec.deletion_policy == "Retain":
        return "deletionPolicy is Retain: agent and containers stay on the host"
    if contact is not None and contact.reason in _NOT_OURS:
        return "the host belongs to somebody else"
    if node.status.host_id is None and (contact is None or contact.last_frame_at is None):
        return "the host was never reached: nothing is on it"
    return ""
