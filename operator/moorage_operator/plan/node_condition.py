"""The conditions of a Node: Ready, Connected, AgentCurrent, Stalled, and Removing while it is deleted.

Each has a reason for programs and a remedy for people.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from moorage_agent.protocol import HostFacts

from moorage_operator.api import Condition, Node, find
from moorage_operator.api.condition import Truth
from moorage_operator.plan.loss import RESTART_GRACE, Losses
from moorage_operator.plan.node_contact import SILENT_AFTER_S, Contact, answers, last_frame, silent
from moorage_operator.plan.node_removal import RemovalStep

# Without these no container is started there, or none that is kept to its limits.
NEEDED_FEATURES: Final = frozenset(("overlay", "seccomp", "pids", "memory", "cpu", "SYS_ADMIN", "kernel"))

# A person has to change the Node or the host; trying again does not help.
STALLED: Final = frozenset(
    (
        "AuthenticationFailed",
        "DuplicateHost",
        "FeatureMissing",
        "HostKeyMismatch",
        "InvalidKey",
        "InvalidSpec",
        "JumpHostKeyMismatch",
        "NoShell",
        "NoisyShell",
        "NotRoot",
        "OwnedByAnotherSwarm",
        "PythonIncomplete",
        "PythonMissing",
        "PythonTooOld",
        "SecretMissing",
    )
)

# Of the host these say nothing.
OURS: Final = frozenset(("NameUnresolved", "OperatorExhausted"))

# Often over with the next attempt.
PASSING: Final = OURS | {"ConnectionRefused", "LoginTooSlow"}

_HOST_KEY: Final = re.compile(r"(?:ssh|ecdsa|sk)-[-.@a-z0-9]+ [A-Za-z0-9+/]+={0,3}")
MAX_MESSAGE: Final = 2048


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent that this operator ships; `version` is the sha256 of its archive."""

    version: str


def node_conditions(
    node: Node,
    contact: Contact | None,
    losses: Losses,
    *,
    agent: Agent,
    removal: RemovalStep | None = None,
    leading_since: datetime,
    now: datetime,
) -> tuple[Condition, ...]:
    """Ready first."""
    connected = _connected(node, contact)
    ready = _ready(node, contact, losses, connected, leading_since=leading_since, now=now)
    current = _agent_current(contact.facts if contact is not None else None, contact, agent)
    stalled = ready.status == "False" and ready.reason in STALLED
    found = (
        ready,
        connected,
        current,
        _condition("Stalled", "True" if stalled else "False", ready.reason, ready.message if stalled else ""),
    )
    return found if removal is None else (*found, _condition("Removing", "True", removal.removal.value, removal.message))


def _ready(
    node: Node, contact: Contact | None, losses: Losses, connected: Condition, *, leading_since: datetime, now: datetime
) -> Condition:
    before = find(node.status.conditions, "Ready")
    if node.spec.out_of_service:
        return _condition(
            "Ready", "False", "OutOfService", "spec.outOfService is set: its tasks were released; unset it once the host is back"
        )
    if contact is not None and contact.connected and answers(contact):
        return _condition("Ready", "False", contact.reason, contact.message)
    if contact is not None and contact.connected and not silent(contact, now=now):
        return _ready_by_features(contact.facts)
    if before is not None and _too_early(contact, leading_since=leading_since, now=now):
        return before
    if answers(contact):
        return _condition("Ready", "False", connected.reason, connected.message)
    if losses.mass and node.metadata.name in losses.silent:
        return _condition("Ready", "Unknown", "MassDisconnect", losses.mass)
    return _condition("Ready", "Unknown", connected.reason, connected.message)


def _ready_by_features(facts: HostFacts | None) -> Condition:
    missing = (
        [feature for feature in facts.features if feature.name in NEEDED_FEATURES and not feature.present] if facts is not None else []
    )
    if not missing:
        return _condition("Ready", "True", "Ready")
    details = "; ".join(f"{feature.name}: {feature.detail}" if feature.detail else feature.name for feature in missing)
    return _condition("Ready", "False", "FeatureMissing", f"the host lacks what every container needs: {details}")


def _too_early(contact: Contact | None, *, leading_since: datetime, now: datetime) -> bool:
    """A link just broken, or a process just begun, says nothing about the host yet: what was true before stays so for a while."""
    if contact is not None and answers(contact) and contact.reason not in PASSING:
        return False
    heard = last_frame(contact)
    if heard is None or heard < leading_since:
        told = contact is not None and contact.reason in PASSING - OURS
        return not told and now < leading_since + RESTART_GRACE
    return (now - heard).total_seconds() <= SILENT_AFTER_S


def _connected(node: Node, contact: Contact | None) -> Condition:
    if contact is None:
        return _condition("Connected", "Unknown", "Connecting", "not tried yet")
    if contact.connected and (answers(contact) or not contact.reason):
        return _condition("Connected", "True", "Connected")
    if contact.reason in ("HostKeyMismatch", "JumpHostKeyMismatch"):
        return _condition("Connected", "False", contact.reason, host_key_message(node, contact))
    heard = last_frame(contact)
    if contact.reason in ("Silent", "") and heard is not None:
        return _condition("Connected", "False", "Silent", f"nothing heard from the agent since {heard:%Y-%m-%d %H:%M:%S} UTC")
    return _condition("Connected", "False", contact.reason or "Connecting", contact.message)


def host_key_message(node: Node, contact: Contact) -> str:
    """With the command that would accept the key. Whoever answered chose its text: what does not look like a key enters no command."""
    jump = node.spec.ssh.jump if contact.reason == "JumpHostKeyMismatch" else None
    if jump is not None and jump.node_ref is not None:
        return f"{contact.message}; if that host was installed anew, correct spec.ssh.hostKeys of Node {jump.node_ref.name}"
    where = "spec.ssh.hostKeys" if jump is None else "spec.ssh.jump.hostKeys"
    certified = jump is None and node.spec.ssh.host_key_policy == "CertificateAuthority"
    if certified or not _HOST_KEY.fullmatch(contact.host_key_seen):
        return f"{contact.message}; if the host was installed anew, correct {where}"
    pins = {"hostKeys": [contact.host_key_seen]}
    patch = json.dumps({"spec": {"ssh": pins if jump is None else {"jump": pins}}}, separators=(",", ":"))
    command = f"kubectl patch swarmnode {node.metadata.name} --type=merge -p '{patch}'"
    return f"{contact.message}; if the host was installed anew, compare the fingerprint on its console and accept it: {command}"


def _agent_current(facts: HostFacts | None, contact: Contact | None, agent: Agent) -> Condition:
    if facts is None:
        return _condition("AgentCurrent", "Unknown", "NotConnected", "the agent's version is not known yet")
    if facts.agent_version == agent.version:
        return _condition("AgentCurrent", "True", "Current")
    if contact is not None and contact.upgrade_failed:
        return _condition("AgentCurrent", "False", "UpgradeFailed", f"agent {short(agent.version)} did not start: {contact.upgrade_failed}")
    return _condition(
        "AgentCurrent", "False", "OtherVersion", f"the agent is {short(facts.agent_version)}, the operator's {short(agent.version)}"
    )


def short(version: str) -> str:
    """Versions are sha256 sums of the agent's archive: twelve digits are enough for people."""
    return version[:12]


def _condition(kind: str, status: Truth, reason: str, message: str = "") -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message[:MAX_MESSAGE])
