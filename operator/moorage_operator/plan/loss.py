"""When a node counts as lost, and what that means for its tasks.

A loss is silence, and nothing but silence: a host that refuses our connection, our key or our swarm lives, and a second copy of its tasks
would be one too many. Many nodes falling silent at once are more likely our loss than theirs, so nothing is replaced then.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

from moorage_operator.api import Node, find
from moorage_operator.plan.loss_rule import LossRule
from moorage_operator.plan.node_contact import SILENT_AFTER_S, Contact, connecting, last_frame, silent

RESTART_GRACE: Final = timedelta(seconds=30)
MASS_WINDOW: Final = timedelta(seconds=60)
MASS_SHARE: Final = 0.30
MASS_LEAST: Final = 3

# Frames come every 5 s. Of hosts cut off together the last is silent 5 s after the first, whose tasks could be replaced by then: so two
# missing frames are enough to be one of a mass.
OVERDUE_AFTER_S: Final = 10.0

# Hosts cut off together are heard for the last time up to one frame apart, and each is overdue 10 s later: before this nobody can tell one
# host's loss from that of many, whatever unreachable.after says.
DECIDED_AFTER: Final = timedelta(seconds=20)


# A network heals node by node, as the next attempts come: those still silent must not be taken for the few that are lost.
REPRIEVE: Final = timedelta(seconds=75)


@dataclass(frozen=True, slots=True)
class Losses:
    """`silent`: nodes by name, each with the time from which a loss counts. `given_up`: a person said that they will not come back.

    `known`: all Node objects. `mass`: why nothing is replaced at present, or "". `reprieved`: until when nodes that fell with a mass are
    waited for, though it is none any more.
    """

    known: frozenset[str]
    silent: Mapping[str, datetime] = field(default_factory=dict)
    given_up: frozenset[str] = frozenset()
    mass: str = ""
    reprieved: Mapping[str, datetime] = field(default_factory=dict)


class Fate(Enum):
    STAYS = "Stays"
    WAITS = "Waits"
    LOST = "Lost"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a task. WAITS: its node is silent and it is not lost yet; look again at `at`, if there is a time."""

    fate: Fate
    message: str = ""
    at: datetime | None = None


def losses(
    nodes: Iterable[Node],
    contacts: Mapping[str, Contact],
    *,
    leading_since: datetime,
    now: datetime,
    before: Losses | None = None,
    names: Iterable[str] = (),
) -> Losses:
    """`contacts` are by uid of the Node; `leading_since` is since when this process leads without a break: what it did not hear since then
    gets a grace period.

    `names`: of all Node objects, also of those that cannot be read: they are not gone. `before`: what was found last.
    """
    known, given_up, late, counted = set(names), set[str](), list[Node](), 0
    in_time = now.timestamp() - OVERDUE_AFTER_S
    for node in nodes:
        known.add(node.metadata.name)
        contact = contacts.get(node.metadata.uid)
        if node.spec.out_of_service:
            given_up.add(node.metadata.name)
        elif contact is not None and contact.last_frame_at is not None and contact.last_frame_at >= in_time:
            counted += 1  # nearly all of them at nearly any time: on these few lines depends what the whole costs
        elif _was_here(node, contact):
            counted += 1
            if not connecting(contact):
                late.append(node)
    quiet = [node for node in late if silent(contacts.get(node.metadata.uid), now=now)]
    overdue = [node for node in late if silent(contacts.get(node.metadata.uid), now=now, after_s=OVERDUE_AFTER_S)]
    if now < leading_since + RESTART_GRACE:
        quiet = [node for node in quiet if not _untried(node, contacts, leading_since) or _unknown_since(node) is not None]
        overdue = [node for node in overdue if not _untried(node, contacts, leading_since)]
    mass = _mass((_fell_silent(node, contacts, leading_since) for node in overdue), among=counted)
    reprieved = before.reprieved if before is not None else {}
    return Losses(
        known=frozenset(known),
        silent={node.metadata.name: _counts_from(node, contacts, leading_since) for node in quiet},
        given_up=frozenset(given_up),
        mass=mass,
        reprieved={
            name: now + REPRIEVE if mass else reprieved[name]
            for name in (node.metadata.name for node in overdue)
            if mass or name in reprieved
        },
    )


def verdict(node: str, rule: LossRule, found: Losses, *, now: datetime) -> Verdict:
    """What the state of its node means for one task under the rule of its Service."""
    if node in found.given_up:
        return Verdict(Fate.LOST, f"node {node} is out of service")
    if node not in found.known:
        return _without_node(node, rule)
    if node not in found.silent:
        return Verdict(Fate.STAYS)
    since = found.silent[node]
    silence = f"node {node} is silent since {since.astimezone(UTC):%H:%M:%S} UTC"
    if rule.keep:
        return Verdict(Fate.WAITS, f"{silence}: waits for it, {rule.why}; if it is gone for good, set spec.outOfService on Node {node}")
    if found.mass:
        return Verdict(Fate.WAITS, f"{silence}; {found.mass}")
    at = max(since + max(rule.after, DECIDED_AFTER), found.reprieved.get(node, since))
    if now < at:
        return Verdict(Fate.WAITS, f"{silence}; replaced at {at.astimezone(UTC):%H:%M:%S} UTC if it stays so", at)
    return Verdict(Fate.LOST, f"{silence}, longer than {rule.after.total_seconds():g} s (unreachable.after)")


def _without_node(node: str, rule: LossRule) -> Verdict:
    """Its Node was deleted while the task was there, so with deletionPolicy Retain: the container may still run, on its data."""
    gone = f"node {node} no longer exists"
    if not rule.keep:
        return Verdict(Fate.LOST, gone)
    return Verdict(Fate.WAITS, f"{gone}: waits for it, {rule.why}; bring the Node back, or delete the Task to begin elsewhere without that")


def _was_here(node: Node, contact: Contact | None) -> bool:
    """A Node that was never reached has nothing to lose, and says nothing about our network."""
    return node.status.host_id is not None or last_frame(contact) is not None


def _untried(node: Node, contacts: Mapping[str, Contact], leading_since: datetime) -> bool:
    """This process never heard it. While it has just begun, that says nothing: what was true before stays so."""
    return _heard(node, contacts, leading_since) is None


def _heard(node: Node, contacts: Mapping[str, Contact], leading_since: datetime) -> datetime | None:
    """The last frame, unless it came before a break of ours: how many were sent since then nobody knows."""
    heard = last_frame(contacts.get(node.metadata.uid))
    return heard if heard is not None and heard >= leading_since else None


def _counts_from(node: Node, contacts: Mapping[str, Contact], leading_since: datetime) -> datetime:
    """The last frame; later, where the host still refused us after it: then the time at which it stopped doing even that."""
    heard = _heard(node, contacts, leading_since) or leading_since + RESTART_GRACE
    unknown_since = _unknown_since(node)
    return heard if unknown_since is None else max(heard, unknown_since - timedelta(seconds=SILENT_AFTER_S))


def _fell_silent(node: Node, contacts: Mapping[str, Contact], leading_since: datetime) -> datetime:
    """For nodes already silent when this process began the condition remembers it: else all of them would seem to fall together."""
    heard = last_frame(contacts.get(node.metadata.uid))
    unknown_since = _unknown_since(node)
    return heard or min(unknown_since or leading_since, leading_since)


def _unknown_since(node: Node) -> datetime | None:
    ready = find(node.status.conditions, "Ready")
    return ready.last_transition_time if ready is not None and ready.status == "Unknown" else None


def _mass(fallen: Iterable[datetime], *, among: int) -> str:
    times = sorted(fallen)
    together = max((bisect_right(times, start + MASS_WINDOW) - first for first, start in enumerate(times)), default=0)
    if together < MASS_LEAST or together <= MASS_SHARE * among:
        return ""
    return (
        f"{together} of {among} nodes fell silent within {MASS_WINDOW.total_seconds():g} s, which is more likely the operator's network "
        "than theirs: nothing is replaced; set spec.outOfService on Nodes that are gone for good"
    )
