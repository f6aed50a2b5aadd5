"""What one slot needs: which of its Tasks stays, which goes, and whether a new one is due. Other slots play no part here: see rollout.py.

A slot in peace has one Task, the holder. While it is replaced there is a candidate too: prepared, not yet allowed to run (the pre-pull
gate). With StartFirst both run for a while; then, as during a handover by the agent, the slot has two holders, and the older one goes as
soon as the younger has taken over.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from moorage_operator.plan.restart import Over, after_end, move_at, spent
from moorage_operator.plan.service_hosts import Host, Hosts
from moorage_operator.plan.service_plan import Advance, Stop
from moorage_operator.plan.service_wish import Wish
from moorage_operator.plan.slot_judge import judge
from moorage_operator.plan.slot_look import NEW_VERSION, Look, Want
from moorage_operator.plan.slot_state import Slot
from moorage_operator.plan.slot_task import COMPLETE, HAS_RUN, READY, REPLACED, RUNNING, SlotTask


def look_at(name: str, tasks: Sequence[SlotTask], wish: Wish, hosts: Hosts, now: datetime) -> Look:
    """`tasks` are those of the slot, the oldest first."""
    if len(tasks) == 1 and wish.version is not None and _serves(tasks[0], hosts):
        if tasks[0].version != wish.version:
            return _outdated(name, tasks[0], wish)
        if _proven(tasks[0], wish, now):
            return Look(name, updated=True, attempt=tasks[0].attempt, home=tasks[0].home)
    slot = Slot(name, tasks, wish, hosts, now)
    if slot.holder is not None:
        _held(slot, slot.holder, slot.candidate)
    elif slot.candidate is not None:
        _alone(slot, slot.candidate)
    else:
        _empty(slot)
    judge(slot)
    slot.forget()
    return slot.found


# --- almost every slot, almost always: the long way would find the same


def _serves(task: SlotTask, hosts: Hosts) -> bool:
    quiet = task.wants_run and not task.leaving and not task.exits and task.attempts_used == 0
    return quiet and task.state == RUNNING and task.ready_since is not None and hosts.is_(task.node, Host.FINE)


def _proven(task: SlotTask, wish: Wish, now: datetime) -> bool:
    assert task.ready_since is not None
    age = now - task.ready_since
    return age >= wish.monitor and (task.replaces is None or age >= wish.delay)


def _outdated(slot: str, task: SlotTask, wish: Wish) -> Look:
    want = Want(NEW_VERSION, task.uid, gated=not wish.start_first, free=False, new_version=True, serves=True)
    return Look(slot, want=want, stale=True, attempt=task.attempt, home=task.home)


# --- a slot with a holder


def _held(slot: Slot, holder: SlotTask, candidate: SlotTask | None) -> None:
    if slot.hosts.is_(holder.node, Host.AWAY):
        _wait_for_host(slot, holder)
    elif candidate is not None:
        slot.found.busy = True
        if not slot.crowded:
            _open_gate(slot, holder, candidate)
    elif (reason := slot.must_go(holder)) is not None and not (slot.crowded and slot.wish.start_first):
        _replace(slot, holder, reason)


def _wait_for_host(slot: Slot, holder: SlotTask) -> None:
    state = slot.hosts.state(holder.node)
    slot.found.waiting = f"{holder.name}: {state.message}"
    slot.found.unheard = state.silent
    if state.until is not None:
        slot.found.due.append(state.until)


def _open_gate(slot: Slot, holder: SlotTask, candidate: SlotTask) -> None:
    """StopFirst, at its last step. On one node the agent hands over; between two the old Task must be gone first."""
    if candidate.state != READY:
        return
    if candidate.node != holder.node:
        slot.found.gate.append(Stop(holder.name, holder.uid, f"{candidate.name} is ready to take over"))
    elif candidate.replaces == holder.uid:
        slot.found.gate.append(Advance(candidate.name, candidate.uid))


def _replace(slot: Slot, holder: SlotTask, reason: str) -> None:
    host = slot.hosts.state(holder.node)
    bound = slot.wish.is_global or (slot.wish.sticky and holder.node is not None and slot.hosts.exists(holder.node))
    if bound and host.host is Host.PAUSED:
        slot.found.waiting = f"{holder.name}: {host.message}, and it belongs there"
    elif bound and host.host is Host.DRAINING:
        slot.stop(holder, f"{host.message}; the slot waits for it")
    elif not _crashing(slot, holder):
        _replace_when_due(slot, holder, reason)
    elif (at := move_at(holder)) is not None and not slot.later(at):
        slot.found.want = _wanted(slot, reason, replaces=holder.uid, leaves=holder.node, failed=1)


def _crashing(slot: Slot, holder: SlotTask) -> bool:
    """Its crashes are the only reason for it to go."""
    return not slot.stale(holder) and not slot.hosts.is_(holder.node, Host.DRAINING)


def _replace_when_due(slot: Slot, holder: SlotTask, reason: str) -> None:
    """After a candidate that failed before it ran, as the restart policy has it."""
    failed = [task for task in slot.ended if task.attempt > holder.attempt and task.failed and not slot.stale(task)]
    if failed:
        again = after_end(failed, slot.wish.restart, slot.now)
        if isinstance(again, Over):
            slot.found.over = again.failure
            return
        if slot.later(again.at):
            return
    serves = holder.ready_since is not None
    broken = not serves and (holder.state not in HAS_RUN or bool(holder.exits))
    if holder.node is None:
        slot.stop(holder, reason)
    slot.found.want = _wanted(
        slot,
        reason,
        replaces=None if holder.node is None else holder.uid,
        free=broken or bool(failed),
        new_version=slot.stale(holder),
        serves=serves,
        failed=1 if failed else 0,
    )


# --- a slot without a holder


def _alone(slot: Slot, candidate: SlotTask) -> None:
    """Nothing serves any more: the gate is open as soon as nothing of the slot can still run."""
    slot.found.busy = candidate.replaces is not None
    if not slot.leaving or _agent_waits(slot, candidate):
        slot.found.advance.append(Advance(candidate.name, candidate.uid))


def _agent_waits(slot: Slot, candidate: SlotTask) -> bool:
    """On one node the agent itself starts the new container only when the old one has ended."""
    return candidate.state == READY and all(task.uid == candidate.replaces and task.node == candidate.node for task in slot.leaving)


def _empty(slot: Slot) -> None:
    ended = [task for task in slot.ended if task.reason != REPLACED]
    if not ended:
        _fill(slot, "the slot has no task")
    elif slot.stale(ended[-1]):
        _after_other_version(slot, ended[-1])
    elif slot.wish.version is not None:
        _after(slot, ended)


def _after_other_version(slot: Slot, last: SlotTask) -> None:
    """What has done its work runs again under the update; what has failed is replaced at once."""
    if last.state == COMPLETE and not slot.leaving:
        slot.found.want = _wanted(slot, NEW_VERSION, replaces=last.uid, gated=False, free=False, new_version=True)
    else:
        _fill(slot, NEW_VERSION)


def _after(slot: Slot, ended: Sequence[SlotTask]) -> None:
    again = after_end(slot.of_version(ended), slot.wish.restart, slot.now)
    if isinstance(again, Over):
        slot.found.over, slot.found.done = again.failure, again.failure is None
    elif not slot.later(again.at):
        _fill(slot, again.reason, failed=1 if again.counts else 0)


def _fill(slot: Slot, reason: str, *, failed: int = 0) -> None:
    slot.found.want = _wanted(slot, reason, replaces=slot.leaving[-1].uid if slot.leaving else None, failed=failed)


# --- what it wants


def _wanted(
    slot: Slot,
    reason: str,
    *,
    replaces: str | None,
    gated: bool | None = None,
    free: bool = True,
    new_version: bool = False,
    serves: bool = False,
    leaves: str | None = None,
    failed: int = 0,
) -> Want | None:
    if slot.wish.version is None:
        return None
    behind = replaces is not None and not slot.wish.start_first if gated is None else gated
    used = spent(slot.of_version(slot.tasks), slot.wish.restart, slot.now)
    return Want(reason, replaces, behind, free, new_version, serves, leaves, used + failed)
