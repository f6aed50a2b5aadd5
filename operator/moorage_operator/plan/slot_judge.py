"""What the rollout must know of a slot: whether it has the wished version, and whether that is proven, unproven, or failing."""

from __future__ import annotations

from moorage_operator.plan.restart import move_at
from moorage_operator.plan.service_hosts import Host
from moorage_operator.plan.slot_state import Slot
from moorage_operator.plan.slot_task import REPLACED, STABLE, SlotTask


def judge(slot: Slot) -> None:
    found, version = slot.found, slot.wish.version
    subject = slot.holder or (slot.ended[-1] if slot.ended and not slot.leaving else None)
    found.stale = subject is not None and slot.stale(subject)
    if version is None:
        return
    found.updated = subject is not None and not found.stale and subject.reason != REPLACED
    new = next((task for task in (slot.holder, slot.candidate) if task is not None and not slot.stale(task)), None)
    failed = _failed_before(slot, new)
    if new is None:
        found.failing = _describe(failed) if failed is not None else None
    else:
        _judge_new(slot, new, failed, is_holder=new is slot.holder)


def _judge_new(slot: Slot, new: SlotTask, failed: SlotTask | None, *, is_holder: bool) -> None:
    found, wish = slot.found, slot.wish
    troubled = bool(new.exits) or new.attempts_used > 0 or failed is not None
    monitor = max(wish.monitor, STABLE) if troubled else wish.monitor
    if new.settled(slot.now, monitor):
        troubled = False
    elif new.ready_since is not None:
        found.unsettled = True
        found.due.append(new.settles_at(monitor))
    if troubled:
        found.failing = _describe(failed if failed is not None and not new.exits else new)
        found.looping = move_at(new) is not None
    if is_holder and new.replaces is not None and not slot.hosts.is_(new.node, Host.AWAY):
        found.busy = found.busy or not _finished(slot, new)


def _finished(slot: Slot, new: SlotTask) -> bool:
    """The replacement is done, and so is the pause after it."""
    return new.ready_since is not None and not slot.later(new.ready_since + slot.wish.delay)


def _failed_before(slot: Slot, new: SlotTask | None) -> SlotTask | None:
    """The last Task of the wished version that failed in this slot since it was first tried here."""
    others = [task.attempt for task in slot.tasks if slot.stale(task)]
    since = max((attempt for attempt in others if new is None or attempt < new.attempt), default=0)
    failed = [task for task in slot.ended if task.failed and not slot.stale(task) and task.attempt > since]
    return failed[-1] if failed else None


def _describe(task: SlotTask) -> str:
    where = f" on node {task.node}" if task.node else ""
    if task.ready_since is not None:
        return f"{task.name}{where} runs again after a failure, but not yet for {STABLE.total_seconds():.0f} s"
    why = " ".join(filter(None, (f"({task.reason})" if task.reason else "", task.message)))
    return f"{task.name}{where} is {task.state} {why}".rstrip()
