"""Reports to the operator: all there is after its hello, then each change at once. What is ready together travels together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from moorage_agent.protocol import HostFacts, ImageReport, NodeReport, TaskReport
from moorage_agent.task_report import image_report, task_report
from moorage_agent.task_state import Moment
from moorage_agent.world import World


class Reporter:
    """`send` gets each report; None while nobody listens: then nothing is kept, because the next listener gets a full report first."""

    def __init__(self, world: World, clock: Callable[[], Moment]) -> None:
        self.facts: HostFacts | None = None
        self._world, self._clock = world, clock
        self._send: Callable[[NodeReport], None] | None = None
        self._said: dict[str, TaskReport] = {}
        self._said_images: dict[str, ImageReport] = {}
        self._said_facts: HostFacts | None = None
        self._changed: dict[str, None] = {}
        self._changed_images: dict[str, None] = {}
        self._planned = False

    def listen(self, send: Callable[[NodeReport], None] | None) -> None:
        """From now on reports go to `send`, a full one at once."""
        self._send = send
        self._changed.clear()
        self._changed_images.clear()
        if send is not None:
            report = self.full()
            self._said = {task.uid: task for task in report.tasks}
            self._said_images = {image.digest: image for image in report.images}
            self._said_facts = report.facts
            send(report)

    def full(self) -> NodeReport:
        now = self._clock()
        tasks = [task_report(self._world.view(uid, now), now) for uid in self._world.tasks]
        images = [image_report(digest, image) for digest, image in self._world.images.items()]
        return self._report(full=True, tasks=tasks, images=images, facts=self.facts)

    def task_changed(self, uid: str) -> None:
        self._changed[uid] = None
        self._plan()

    def image_changed(self, digest: str) -> None:
        self._changed_images[digest] = None
        self._plan()

    def facts_changed(self, facts: HostFacts) -> None:
        self.facts = facts
        self._plan()

    def _plan(self) -> None:
        """Speak when the loop has done what is ready now: a burst becomes one frame, a single change does not wait."""
        if self._send is not None and not self._planned:
            self._planned = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._planned = False
        if self._send is None:
            return
        tasks, removed = self._news()
        images = self._image_news()
        facts = self.facts if self.facts != self._said_facts else None
        self._said_facts = self.facts
        if tasks or removed or images or facts:
            self._send(self._report(full=False, tasks=tasks, removed=removed, images=images, facts=facts))

    def _news(self) -> tuple[list[TaskReport], list[str]]:
        now = self._clock()
        tasks, removed = [], []
        for uid in self._changed:
            if uid not in self._world.tasks:
                self._said.pop(uid, None)
                removed.append(uid)
                continue
            if self._world.tasks[uid].busy:
                continue  # in milliseconds there will be news worth a frame, and whoever makes them says so
            report = task_report(self._world.view(uid, now), now)
            if report != self._said.get(uid):
                self._said[uid] = report
                tasks.append(report)
        self._changed.clear()
        return tasks, removed

    def _image_news(self) -> list[ImageReport]:
        reports = [image_report(digest, self._world.images[digest]) for digest in self._changed_images if digest in self._world.images]
        news = [report for report in reports if report != self._said_images.get(report.digest)]
        self._said_images.update({report.digest: report for report in news})
        self._changed_images.clear()
        return news

    def _report(
        self,
        *,
        full: bool,
        tasks: Iterable[TaskReport],
        images: Iterable[ImageReport],
        removed: Iterable[str] = (),
        facts: HostFacts | None = None,
    ) -> NodeReport:
        document = self._world.document
        return NodeReport(
            full=full,
            epoch=document.epoch if document else 0,
            revision=document.revision if document else 0,
            hash=self._world.document_hash,
            tasks=tuple(tasks),
            removed=tuple(removed),
            images=tuple(images),
            facts=facts,
        )
