"""What one slot needs: which of its Tasks stays, which goes, and whether a new one is due. Other slots play no part here: see rollout.py.

A slot in peace has one Task, the holder. While it is replaced there is a candidate too: prepared, not yet allowed to run (the pre-pull
gate). With StartFirst both run for a while; then, as during a handover by the agent, the slot has two holders, and the older one goes as
soon as the younger has taken over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from .restart import Over, after_end, move_at, spent
from .service_hosts import Host, Hosts
from .service_plan import Advance, Orphan, Stop
from .service_wish import Wish
from .slot_task import COMPLETE, HAS_RUN, ORPHANED, READY, REPLACED, RUNNING, STABLE, SlotTask

KEPT_ENDED = 2


@dataclass(frozen=True, slots=True)
class Want:
    """A new Task is due. `free`: nothing that serves is touched, so it waits for no other slot. `gated`: it is prepared first and runs once
    its predecessor is out of the way. `leaves`: the node to get away from, if any other will do.
    """

    reason: str
    replaces: str | None = None
    gated: bool = False
    free: bool = True
    new_version: bool = False
    serves: bool = False
    leaves: str | None = None
    attempts_used: int = 0


@dataclass(slots=True)
class Look:
    """What was found in one slot. `gate` are the steps that let a prepared candidate take over; they wait while an update is paused.

    `failing`: how tasks of the wished version fail here. `looping`: the agent has given it up as a crash loop. `waiting`: why the slot
    cannot be worked on. `due`: times at which to look again.
    """

    slot: str
    orphan: list[Orphan] = field(default_factory=list)
    stop: list[Stop] = field(default_factory=list)
    advance: list[Advance] = field(default_factory=list)
    gate: list[Stop | Advance] = field(default_factory=list)
    want: Want | None = None
    stale: bool = False
    updated: bool = False
    done: bool = False
    busy: bool = False
    looping: bool = False
    failing: str | None = None
    over: str | None = None
    waiting: str | None = None
    unsettled: bool = False
    due: list[datetime] = field(default_factory=list)
    attempt: int = 0
    home: str | None = None


def look_at(slot: str, tasks: Sequence[SlotTask], wish: Wish, hosts: Hosts, now: datetime) -> Look:
    """`tasks` are those of the slot, the oldest first."""
    if len(tasks) == 1 and _at_peace(tasks[0], wish, hosts, now):
        return Look(slot, updated=True, attempt=tasks[0].attempt, home=tasks[0].home)
    return _Slot(slot, tasks, wish, hosts, now).look()


def _at_peace(task: SlotTask, wish: Wish, hosts: Hosts, now: datetime) -> bool:
    """Almost every slot, almost always: for it the long way would find nothing."""
    return (
        task.version == wish.version
        and task.wants_run
        and not task.leaving
        and not task.exits
        and task.state == RUNNING
        and task.ready_since is not None
        and now - task.ready_since >= wish.monitor
        and (task.replaces is None or now - task.ready_since >= wish.delay)
        and hosts.is_(task.node, Host.FINE)
    )


class _Slot:
    """The working state of look_at."""

    def __init__(self, slot: str, tasks: Sequence[SlotTask], wish: Wish, hosts: Hosts, now: datetime) -> None:
        self.tasks, self.wish, self.hosts, self.now = tasks, wish, hosts, now
        self.found = Look(slot)
        self.live: list[SlotTask] = []
        self.ended: list[SlotTask] = []
        self.leaving: list[SlotTask] = []
        self.overlaps = False

    def look(self) -> Look:
        self._sort()
        holder = self._holder()
        candidate = self._candidate(holder)
        if holder is not None:
            self._held(holder, candidate)
        elif candidate is not None:
            self._alone(candidate)
        else:
            self._empty()
        self._judge(holder, candidate)
        self._forget()
        return self.found

    # --- sorting

    def _sort(self) -> None:
        for task in self.tasks:
            self.found.attempt = max(self.found.attempt, task.attempt)
            self.found.home = task.home or self.found.home
            if task.leaving:
                if not task.ended and task.node is not None and not self.hosts.is_(task.node, Host.LOST):
                    self.leaving.append(task)
            elif task.ended:
                self.ended.append(task)
            elif self.hosts.is_(task.node, Host.LOST) and (task.wants_run is False or self._can_give_up(task)):
                self._give_up(task)
            else:
                self.live.append(task)

    def _can_give_up(self, task: SlotTask) -> bool:
        """A task on a silent node may still run: giving it up is worth it only if another can take its place."""
        return self.wish.version is not None or (task.node is not None and not self.hosts.exists(task.node))

    def _give_up(self, task: SlotTask) -> None:
        """A candidate never ran and is simply dropped."""
        message = self.hosts.state(task.node).message
        if not task.wants_run:
            self.found.stop.append(Stop(task.name, task.uid, message))
            return
        self.found.orphan.append(Orphan(task.name, task.uid, task.node or "", message))
        self.ended.append(replace(task, state=ORPHANED, ended_at=self.now))

    def _holder(self) -> SlotTask | None:
        """The youngest Task that may run; older ones go as soon as it has taken over."""
        holders = [task for task in self.live if task.wants_run]
        while len(holders) > 1 and self._came_in_vain(holders[-1], holders[:-1]):
            vain = holders.pop()
            self._stop(vain, "it never became ready, its version is no longer wanted, and the task before it still serves")
        if len(holders) > 1:
            self.found.busy = self.overlaps = True
            for old in holders[:-1]:
                if _took_over(holders[-1], old):
                    self._stop(old, f"{holders[-1].name} has taken over")
        return holders[-1] if holders else None

    def _came_in_vain(self, task: SlotTask, before: Sequence[SlotTask]) -> bool:
        """StartFirst, and the wish changed before the new Task was ready: the old one that still serves is the better."""
        unwanted = self.wish.version is not None and task.version != self.wish.version
        return task.start_first and unwanted and task.ready_since is None and any(old.ready_since is not None for old in before)

    def _candidate(self, holder: SlotTask | None) -> SlotTask | None:
        """The youngest Task behind the gate, if it is of use: else it goes, and nothing that serves was touched."""
        candidates = [task for task in self.live if not task.wants_run]
        chosen = candidates[-1] if candidates and self._useful(candidates[-1], holder) else None
        for task in candidates:
            if task is not chosen:
                self._stop(task, "it is no longer needed")
        return chosen

    def _useful(self, candidate: SlotTask, holder: SlotTask | None) -> bool:
        if self.wish.version is None:
            return True
        if candidate.version != self.wish.version or self.hosts.is_(candidate.node, Host.DRAINING):
            return False
        return holder is None or (candidate.attempt > holder.attempt and self._must_go(holder) is not None)

    # --- a slot with a holder

    def _held(self, holder: SlotTask, candidate: SlotTask | None) -> None:
        if self.hosts.is_(holder.node, Host.AWAY):
            self._wait_for_host(holder)
            self.found.busy = candidate is not None
        elif candidate is not None:
            self.found.busy = True
            if not self.overlaps:
                self._open_gate(holder, candidate)
        elif (reason := self._must_go(holder)) is not None:
            self._replace(holder, reason)

    def _wait_for_host(self, holder: SlotTask) -> None:
        state = self.hosts.state(holder.node)
        self.found.waiting = f"{holder.name}: {state.message}"
        if state.until is not None:
            self.found.due.append(state.until)

    def _must_go(self, holder: SlotTask) -> str | None:
        """Why the holder should make way for another Task."""
        if self._stale(holder):
            return "a new version"
        if self.hosts.is_(holder.node, Host.DRAINING):
            return self.hosts.state(holder.node).message
        if self._may_move(holder) and holder.exits and not holder.settled(self.now, self.wish.monitor):
            return f"{holder.name} keeps crashing on node {holder.node}"
        return None

    def _stale(self, task: SlotTask) -> bool:
        return self.wish.version is not None and task.version != self.wish.version

    def _may_move(self, holder: SlotTask) -> bool:
        return not self.wish.is_global and not self.wish.sticky and holder.node is not None

    def _open_gate(self, holder: SlotTask, candidate: SlotTask) -> None:
        """StopFirst, at its last step. On one node the agent hands over; between two the old Task must be gone first."""
        if candidate.state != READY:
            return
        if candidate.node != holder.node:
            self.found.gate.append(Stop(holder.name, holder.uid, f"{candidate.name} is ready to take over"))
        elif candidate.replaces == holder.uid:
            self.found.gate.append(Advance(candidate.name, candidate.uid))

    def _replace(self, holder: SlotTask, reason: str) -> None:
        host = self.hosts.state(holder.node)
        bound = self.wish.is_global or (self.wish.sticky and holder.node is not None and self.hosts.exists(holder.node))
        if bound and host.host is Host.PAUSED:
            self.found.waiting = f"{holder.name}: {host.message}, and it belongs there"
        elif bound and host.host is Host.DRAINING:
            self._stop(holder, f"{host.message}; the slot waits for it")
        elif not self._crashing(holder):
            self._replace_when_due(holder, reason)
        elif (at := move_at(holder)) is not None and not self._later(at):
            self.found.want = self._wanted(reason, replaces=holder.uid, leaves=holder.node, failed=1)

    def _crashing(self, holder: SlotTask) -> bool:
        """Its crashes are the only reason for it to go."""
        return not self._stale(holder) and not self.hosts.is_(holder.node, Host.DRAINING)

    def _replace_when_due(self, holder: SlotTask, reason: str) -> None:
        """After a candidate that failed before it ran, as the restart policy has it."""
        failed = [task for task in self.ended if task.attempt > holder.attempt and task.failed and not self._stale(task)]
        if failed:
            again = after_end(failed, self.wish.restart, self.now)
            if isinstance(again, Over):
                self.found.over = again.failure
                return
            if self._later(again.at):
                return
        serves = holder.ready_since is not None
        broken = not serves and (holder.state not in HAS_RUN or bool(holder.exits))
        if holder.node is None:
            self._stop(holder, reason)
        self.found.want = self._wanted(
            reason,
            replaces=None if holder.node is None else holder.uid,
            free=broken or bool(failed),
            new_version=self._stale(holder),
            serves=serves,
            failed=1 if failed else 0,
        )

    # --- a slot without a holder

    def _alone(self, candidate: SlotTask) -> None:
        """Nothing serves any more: the gate is open as soon as nothing of the slot can still run."""
        self.found.busy = candidate.replaces is not None
        if not self.leaving or self._agent_waits(candidate):
            self.found.advance.append(Advance(candidate.name, candidate.uid))

    def _agent_waits(self, candidate: SlotTask) -> bool:
        """On one node the agent itself starts the new container only when the old one has ended."""
        return candidate.state == READY and all(task.uid == candidate.replaces and task.node == candidate.node for task in self.leaving)

    def _empty(self) -> None:
        ended = [task for task in self.ended if task.reason != REPLACED]
        if not ended:
            self._fill("the slot has no task")
        elif self._stale(ended[-1]):
            self._after_other_version(ended[-1])
        elif self.wish.version is not None:
            self._after(ended)

    def _after_other_version(self, last: SlotTask) -> None:
        """What has done its work runs again under the update; what has failed is replaced at once."""
        if last.state == COMPLETE and not self.leaving:
            self.found.want = self._wanted("a new version", replaces=last.uid, gated=False, free=False, new_version=True)
        else:
            self._fill("a new version")

    def _after(self, ended: Sequence[SlotTask]) -> None:
        again = after_end(self._of_version(ended), self.wish.restart, self.now)
        if isinstance(again, Over):
            self.found.over, self.found.done = again.failure, again.failure is None
        elif not self._later(again.at):
            self._fill(again.reason, failed=1 if again.counts else 0)

    def _fill(self, reason: str, *, failed: int = 0) -> None:
        self.found.want = self._wanted(reason, replaces=self.leaving[-1].uid if self.leaving else None, failed=failed)

    # --- judging

    def _judge(self, holder: SlotTask | None, candidate: SlotTask | None) -> None:
        """What the rollout must know: whether the slot has the wished version, and whether that is proven, unproven, or failing."""
        found, version = self.found, self.wish.version
        subject = holder or (self.ended[-1] if self.ended and not self.leaving else None)
        found.stale = subject is not None and self._stale(subject)
        if version is None:
            return
        found.updated = subject is not None and not found.stale and subject.reason != REPLACED
        new = next((task for task in (holder, candidate) if task is not None and not self._stale(task)), None)
        failed = self._failed_before(new)
        if new is None:
            found.failing = _describe(failed) if failed is not None else None
        else:
            self._judge_new(new, failed, is_holder=new is holder)

    def _judge_new(self, new: SlotTask, failed: SlotTask | None, *, is_holder: bool) -> None:
        found, wish = self.found, self.wish
        troubled = bool(new.exits) or new.attempts_used > 0 or failed is not None
        monitor = max(wish.monitor, STABLE) if troubled else wish.monitor
        if new.settled(self.now, monitor):
            troubled = False
        elif new.ready_since is not None:
            found.unsettled = True
            found.due.append(new.settles_at(monitor))
        if troubled:
            found.failing = _describe(failed if failed is not None and not new.exits else new)
            found.looping = move_at(new) is not None
        if is_holder and new.replaces is not None and not self.hosts.is_(new.node, Host.AWAY):
            found.busy = found.busy or not self._finished(new)

    def _finished(self, new: SlotTask) -> bool:
        """The replacement is done, and so is the pause after it."""
        return new.ready_since is not None and not self._later(new.ready_since + self.wish.delay)

    def _failed_before(self, new: SlotTask | None) -> SlotTask | None:
        """The last Task of the wished version that failed in this slot since it was first tried here."""
        others = [task.attempt for task in self.tasks if self._stale(task)]
        since = max((attempt for attempt in others if new is None or attempt < new.attempt), default=0)
        failed = [task for task in self.ended if task.failed and not self._stale(task) and task.attempt > since]
        return failed[-1] if failed else None

    # --- small things

    def _forget(self) -> None:
        """Of what has ended the last two stay, for people; what made way for another is of no interest."""
        given_up = {orphan.uid for orphan in self.found.orphan}
        replaced = [task for task in self.ended if task.reason == REPLACED]
        others = [task for task in self.ended if task.reason != REPLACED]
        for task in (*replaced, *others[:-KEPT_ENDED]):
            if task.uid not in given_up:
                self._stop(task, f"it is {task.state}, and newer ones tell enough" if task.reason != REPLACED else "it was replaced")

    def _wanted(
        self,
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
        if self.wish.version is None:
            return None
        behind = replaces is not None and not self.wish.start_first if gated is None else gated
        used = spent(self._of_version(self.tasks), self.wish.restart, self.now)
        return Want(reason, replaces, behind, free, new_version, serves, leaves, used + failed)

    def _of_version(self, tasks: Sequence[SlotTask]) -> list[SlotTask]:
        return [task for task in tasks if task.version == self.wish.version]

    def _stop(self, task: SlotTask, reason: str) -> None:
        self.found.stop.append(Stop(task.name, task.uid, reason))

    def _later(self, at: datetime) -> bool:
        """Whether `at` is still to come; then it is noted as a time to look again."""
        if at <= self.now:
            return False
        self.found.due.append(at)
        return True


def _took_over(new: SlotTask, old: SlotTask) -> bool:
    if old.node is None:
        return True
    if new.start_first:
        return new.ready_since is not None
    if new.node == old.node and new.replaces == old.uid:
        return new.state in HAS_RUN
    return True


def _describe(task: SlotTask) -> str:
    where = f" on node {task.node}" if task.node else ""
    if task.ready_since is not None:
        return f"{task.name}{where} runs again after a failure, but not yet for {STABLE.total_seconds():.0f} s"
    why = " ".join(filter(None, (f"({task.reason})" if task.reason else "", task.message)))
    return f"{task.name}{where} is {task.state} {why}".rstrip()
