"""The Tasks of one slot, sorted: which may run, which wait behind the gate, which are on their way out, which have ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from moorage_operator.plan.service_hosts import Host, Hosts
from moorage_operator.plan.service_plan import Orphan, Stop
from moorage_operator.plan.service_wish import Wish
from moorage_operator.plan.slot_look import NEW_VERSION, Look
from moorage_operator.plan.slot_task import HAS_RUN, ORPHANED, REPLACED, SlotTask

KEPT_ENDED = 2


class Slot:
    """The working state of look_at: what is decided goes into `found`.

    `leaving` are only those whose container may still run. A slot `overlaps` while two of its Tasks may run: a handover, or StartFirst.
    """

    def __init__(self, slot: str, tasks: Sequence[SlotTask], wish: Wish, hosts: Hosts, now: datetime) -> None:
        self.tasks, self.wish, self.hosts, self.now = tasks, wish, hosts, now
        self.found = Look(slot)
        self.live: list[SlotTask] = []
        self.ended: list[SlotTask] = []
        self.leaving: list[SlotTask] = []
        self.overlaps = False
        self._sort()
        self.holder = self._youngest_holder()
        self.candidate = self._useful_candidate()

    # --- what others ask

    @property
    def crowded(self) -> bool:
        """Two of its containers may be running already."""
        return self.overlaps or (self.holder is not None and bool(self.leaving))

    def stale(self, task: SlotTask) -> bool:
        return self.wish.version is not None and task.version != self.wish.version

    def must_go(self, holder: SlotTask) -> str | None:
        """Why the holder should make way for another Task."""
        if self.stale(holder):
            return NEW_VERSION
        if self.hosts.is_(holder.node, Host.DRAINING):
            return self.hosts.state(holder.node).message
        if self._may_move(holder) and holder.exits and not holder.settled(self.now, self.wish.monitor):
            return f"{holder.name} keeps crashing on node {holder.node}"
        return None

    def of_version(self, tasks: Sequence[SlotTask]) -> list[SlotTask]:
        return [task for task in tasks if task.version == self.wish.version]

    def stop(self, task: SlotTask, reason: str) -> None:
        self.found.stop.append(Stop(task.name, task.uid, reason))

    def later(self, at: datetime) -> bool:
        """Whether `at` is still to come; then it is noted as a time to look again."""
        if at <= self.now:
            return False
        self.found.due.append(at)
        return True

    def forget(self) -> None:
        """Of what has ended the last two stay, for people; what made way for another is of no interest."""
        given_up = {orphan.uid for orphan in self.found.orphan}
        replaced = [task for task in self.ended if task.reason == REPLACED]
        others = [task for task in self.ended if task.reason != REPLACED]
        for task in (*replaced, *others[:-KEPT_ENDED]):
            if task.uid not in given_up:
                self.stop(task, f"it is {task.state}, and newer ones tell enough" if task.reason != REPLACED else "it was replaced")

    def _may_move(self, holder: SlotTask) -> bool:
        return not self.wish.is_global and not self.wish.sticky and holder.node is not None

    # --- sorting

    def _sort(self) -> None:
        for task in self.tasks:
            self.found.attempt = max(self.found.attempt, task.attempt)
            self.found.home = task.home or self.found.home
            if task.leaving:
                if task.wants_run and not task.ended and task.node is not None and not self.hosts.is_(task.node, Host.LOST):
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
        self.ended.append(task._replace(state=ORPHANED, ended_at=self.now))

    def _youngest_holder(self) -> SlotTask | None:
        """The youngest Task that may run; older ones go as soon as it has taken over."""
        holders = [task for task in self.live if task.wants_run]
        while len(holders) > 1 and self._came_in_vain(holders[-1]):
            self.stop(holders.pop(), "it never became ready, and is no longer wanted so")
        if len(holders) > 1:
            self.found.busy = self.overlaps = True
            for old in holders[:-1]:
                if _took_over(holders[-1], old):
                    self.stop(old, f"{holders[-1].name} has taken over")
        return holders[-1] if holders else None

    def _came_in_vain(self, task: SlotTask) -> bool:
        """StartFirst, and the wish changed before the new Task was ready: the old one is still there, and the better of the two."""
        if not task.start_first or task.ready_since is not None:
            return False
        return self.stale(task) or (task.node is None and not self.wish.start_first)

    def _useful_candidate(self) -> SlotTask | None:
        """The youngest Task behind the gate, if it is of use: else it goes, and nothing that serves was touched.

        Out of reach, or behind a holder that is, it is of none: it would hold up the update of slots that can be worked on.
        """
        candidates = [task for task in self.live if not task.wants_run]
        chosen = candidates[-1] if candidates and self._useful(candidates[-1], self.holder) else None
        for task in candidates:
            if task is not chosen:
                self.stop(task, "it is no longer needed")
        return chosen

    def _useful(self, candidate: SlotTask, holder: SlotTask | None) -> bool:
        if holder is not None and any(self.hosts.is_(task.node, Host.AWAY) for task in (holder, candidate)):
            return False
        if self.wish.version is None:
            return True
        if candidate.version != self.wish.version or self.hosts.is_(candidate.node, Host.DRAINING):
            return False
        return holder is None or (candidate.attempt > holder.attempt and self.must_go(holder) is not None)


def _took_over(new: SlotTask, old: SlotTask) -> bool:
    if old.node is None:
        return True
    if new.start_first:
        return new.ready_since is not None
    if new.node == old.node and new.replaces == old.uid:
        return new.state in HAS_RUN
    return True
