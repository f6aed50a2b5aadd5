"""What agents report about tasks, until it is written: the latest per Task, and which containers are gone for good."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from moorage_agent.protocol import NodeReport, TaskReport


class Reports:
    """Rebuilt by the full report with which every session begins."""

    def __init__(self) -> None:
        self._latest: dict[str, TaskReport] = {}
        self._gone: set[str] = set()
        self._unwritten_since: dict[str, datetime] = {}
        self._told: set[str] = set()
        self._known: dict[str, frozenset[str]] = {}

    def take(self, report: NodeReport, *, unwished: Iterable[str]) -> list[str]:
        """Keeps what the report says and returns the uids it says something about.

        `unwished`: uids of the Tasks of that node that are being deleted or were given up. Those a full report lacks have no container
        there, and get none: the agent reports all of the last document it took, and no later one of ours lists them.
        """
        for each in report.tasks:
            self._latest[each.uid] = each
        gone = set(report.removed)
        if report.full:
            gone |= set(unwished) - {each.uid for each in report.tasks}
        self._gone |= gone
        return [*(each.uid for each in report.tasks), *gone]

    def tell(self, uids: Iterable[str]) -> None:
        """An agent is told of these Tasks, or has been."""
        self._told.update(uids)

    def know(self, node: str, uids: Iterable[str]) -> None:
        """A full report of the node with this uid has these: what it was told before our time is known, perhaps before the Task itself."""
        self._known[node] = frozenset(uids)

    def never_told(self, uid: str, *, node: str) -> bool:
        """Whether the node cannot have a container of this Task: it was made and deleted before a document listed it."""
        return node in self._known and uid not in self._known[node] and uid not in self._told

    def latest(self, uid: str) -> TaskReport | None:
        return self._latest.get(uid)

    def is_gone(self, uid: str) -> bool:
        return uid in self._gone

    def waiting_since(self, uid: str, now: datetime) -> datetime:
        """Since when something about this Task is unwritten."""
        return self._unwritten_since.setdefault(uid, now)

    def written(self, uid: str) -> None:
        self._unwritten_since.pop(uid, None)

    def forget(self, uid: str) -> None:
        """The Task is gone."""
        self._latest.pop(uid, None)
        self._gone.discard(uid)
        self._told.discard(uid)
        self._unwritten_since.pop(uid, None)

    def forget_node(self, uid: str) -> None:
        self._known.pop(uid, None)
