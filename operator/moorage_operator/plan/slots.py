"""Which slots a Service has: 1..N for a Replicated one (holes are allowed), one per eligible node for a Global one."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count, islice

from moorage_operator.plan.filters import allows_namespace, meets_constraints, runs_image_platform
from moorage_operator.plan.fleet_view import Fleet, NodeView
from moorage_operator.plan.placement_needs import Demand
from moorage_operator.plan.slot_task import RUNNING, SlotTask

Slots = dict[str, list[SlotTask]]


def by_slot(tasks: Iterable[SlotTask]) -> Slots:
    """Tasks per slot, the oldest first."""
    slots: Slots = defaultdict(list)
    for task in tasks:
        slots[task.slot].append(task)
    for members in slots.values():
        if len(members) > 1:
            members.sort(key=lambda task: (task.attempt, task.name))
    return slots


def replicated_slots(slots: Mapping[str, Sequence[SlotTask]], replicas: int, *, keep_low: bool) -> list[str]:
    """The slots there should be: those in use, without the surplus, or with the lowest free numbers added.

    `keep_low` removes the highest numbers, because slots own data; otherwise Swarm's order of removal holds.
    """
    used = [slot for slot, members in slots.items() if slot.isdecimal() and any(not task.leaving for task in members)]
    if len(used) > replicas:
        order = sorted(used, key=int) if keep_low else _last_to_go_first(used, slots)
        used = order[:replicas]
    taken = set(used)
    free = (slot for slot in map(str, count(1)) if slot not in taken)
    return sorted([*used, *islice(free, replicas - len(used))], key=int)


def _last_to_go_first(used: Collection[str], slots: Mapping[str, Sequence[SlotTask]]) -> list[str]:
    """Swarm's preference: slots without a node go first, then those on crowded nodes, those that do not run, the highest."""
    placed: dict[str | None, int] = defaultdict(int)
    keys: list[tuple[bool, int, bool, int, str]] = []
    for idle, number, slot in sorted((not _runs(slots[slot]), int(slot), slot) for slot in used):
        node = _node(slots[slot])
        keys.append((node is None, placed[node], idle, number, slot))
        placed[node] += 1
    return [slot for *_, slot in sorted(keys)]


def _runs(members: Iterable[SlotTask]) -> bool:
    return any(task.state == RUNNING and not task.leaving for task in members)


def _node(members: Sequence[SlotTask]) -> str | None:
    """Where the slot is: with its oldest task that is neither ended nor leaving."""
    return next((task.node for task in members if not task.leaving and not task.ended), None)


# --- Global


def global_slot(node: NodeView) -> str:
    """The slot of a node in every Global service: it follows the Node object, not its name."""
    return hashlib.sha256(node.uid.encode()).hexdigest()[:10]


def global_slots(slots: Mapping[str, Sequence[SlotTask]], fleet: Fleet, demand: Demand) -> dict[str, NodeView]:
    """The nodes of a Global service by slot. A paused or unready node keeps its task but gets no first one."""
    nodes = {global_slot(node): node for node in fleet.nodes.values() if eligible(node, demand)}
    return {
        slot: node for slot, node in sorted(nodes.items()) if (node.ready and node.availability == "Active") or _in_use(slots.get(slot, ()))
    }


def eligible(node: NodeView, demand: Demand) -> bool:
    """Whether a Global service belongs on this node. Free memory, cpu and ports are no part of it: lacking those, its task waits."""
    if node.out_of_service or node.deleting or node.availability == "Drain":
        return False
    return all(check(demand, node) is None for check in (allows_namespace, meets_constraints, runs_image_platform))


def _in_use(members: Iterable[SlotTask]) -> bool:
    return any(not task.leaving for task in members)
