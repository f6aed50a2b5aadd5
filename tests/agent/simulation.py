"""One node, step by step, in an order the test chooses, with a clock that jumps to the next thing due.

The daemon's memory is the real World, its hands the real Executor; runtime, images and disk are fakes that outlive it. `crash()` is the
death of the daemon between any two steps.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import pytest
from moorage_agent.errors import ImageError
from moorage_agent.execute import Executor
from moorage_agent.paths import Paths
from moorage_agent.protocol import ImageSpec, NodeSpec, TaskReport, content_hash
from moorage_agent.steps import (
    AskValues,
    BackOff,
    BeginStop,
    Finish,
    Kill,
    NoteExit,
    Prepare,
    PullImage,
    Remove,
    Start,
    Step,
    Wait,
    image_steps,
    steps,
    task_steps,
)
from moorage_agent.task_report import task_report
from moorage_agent.task_state import ImageView, Seen
from moorage_agent.values import ValueStore
from moorage_agent.world import TaskState, World, takes_turns

from tests.agent.fake_host import Died, Doom, FakeClock, FakeImages, FakeRuntime, FakeStore

_RANK = ["Preparing", "Ready", "Starting", "Running", "Complete", "Failed", "Rejected"]


class Simulation:
    def __init__(self, paths: Paths, *, chance: random.Random | None = None) -> None:
        self.paths, self.chance = paths, chance or random.Random(1)
        self.clock = FakeClock()
        self.doom = Doom()
        self.runtime, self.images, self.store = FakeRuntime(self.clock, self.doom), FakeImages(), FakeStore(self.doom)
        self.loop = asyncio.new_event_loop()
        self.said: dict[str, TaskReport] = {}
        self.wish: NodeSpec | None = None
        self.crash()

    def crash(self) -> None:
        """The daemon is gone and a new one looks at what is there."""
        self.world = World(ValueStore(self.paths))
        self.world.heard_at = self.clock.time
        self.executor = Executor(
            self.world,
            runtime=self.runtime,
            images=self.images,
            store=cast("Any", self.store),
            paths=self.paths,
            clock=self.clock,
            features=lambda: (),
            volumes_made=lambda: None,
        )
        for uid in self.store.known():
            state, spec = TaskState(uid, record=self.store.record(uid)), self.store.spec(uid)
            self.world.tasks[uid] = state
            if spec is not None:
                self.world.remember(state, spec)
        self.observe()
        if self.wish is not None:
            self.apply(self.wish)

    def reboot(self) -> None:
        self.runtime.reboot()
        self.clock.boot_id = f"{self.chance.randrange(16**8):08x}-1111-1111-1111-111111111111"
        self.clock.time = 10.0 + self.clock.time % 10
        self.crash()

    def apply(self, wish: NodeSpec) -> None:
        self.wish = wish
        self.world.adopt_document(wish, content_hash(wish))
        for image in self.world.wished_images():
            held = self.images.get(image.digest)
            if held is not None:
                self.world.images[image.digest] = ImageView("Ready", config=held.config)

    def observe(self) -> None:
        for container in self.runtime.observe():
            state = self.world.tasks.setdefault(container.uid, TaskState(container.uid))
            state.seen = Seen(container.run, container.pid, container.started_at, container.exit)

    def due(self) -> list[Step]:
        """What is to be done now."""
        now = self.clock()
        found = [step for uid in sorted(self.world.tasks) for step in task_steps(self.world.view(uid, now), now)]
        for image in self.wish.images if self.wish else ():
            found += image_steps(image, self.world.images.get(image.digest, ImageView()), now)
        return list(dict.fromkeys(found))

    def all_steps(self) -> list[Step]:
        now = self.clock()
        views = [self.world.view(uid, now) for uid in self.world.tasks]
        return steps(views, self.wish.images if self.wish else (), self.world.images, now)

    def settle(self, limit: int = 2000) -> None:
        """Do what is due, let time pass when nothing is, until nothing is left to do or to wait for."""
        for _ in range(limit):
            self.observe()
            ready = [step for step in self.due() if not isinstance(step, Wait)]
            if ready:
                self.perform(self.chance.choice(ready))
            elif not self.sleep_to_next():
                return
        raise AssertionError(f"never settles: {[step.describe() for step in self.due()]}")

    def sleep_to_next(self) -> bool:
        """Let time pass until the next thing is due; false when nothing ever will be."""
        waits = [step.until for step in self.due() if isinstance(step, Wait) and step.until != float("inf")]
        if waits:
            self.clock.time = max(min(waits), self.clock.time) + 0.001
        return bool(waits)

    def perform(self, step: Step) -> None:
        if isinstance(step, PullImage):
            self._pull(step)
        elif isinstance(step, AskValues):
            pytest.fail(f"nobody here has values: {step.keys}")
        elif isinstance(step, NoteExit):
            self.executor.note_exit(step)
        elif isinstance(step, BackOff):
            self.executor.back_off(step)
        elif isinstance(step, BeginStop):
            self.executor.begin_stop(step)
        elif isinstance(step, Kill):
            self.executor.kill(step)
        elif isinstance(step, Finish):
            self.executor.finish(step)
        elif isinstance(step, Prepare):
            self.loop.run_until_complete(self.executor.prepare(step))
        elif isinstance(step, Start):
            self.loop.run_until_complete(self.executor.start(step))
        elif isinstance(step, Remove):
            self.loop.run_until_complete(self.executor.remove(step))
        self.check()

    def check(self) -> None:
        """What must hold at every moment."""
        alive = self.runtime.alive()
        for uid in alive & self.world.tasks.keys():
            spec = self.world.tasks[uid].spec
            if spec is not None and takes_turns(spec):
                assert spec.replaces not in alive, "a task runs beside the one it replaces"
        for uid in self.world.tasks:
            report = self.report(uid)
            before = self.said.get(uid)
            if before is not None and self.world.tasks[uid].wanted:
                assert _progress(report) >= _progress(before), f"went back from {before} to {report}"
            self.said[uid] = report

    def report(self, uid: str) -> TaskReport:
        now = self.clock()
        return task_report(self.world.view(uid, now), now)

    def perform_and_die(self, step: Step) -> None:
        """The daemon dies in the middle of the step, or right after it."""
        self.doom.effects_left, self.doom.after = self.chance.randrange(3), self.chance.random() < 0.5
        with suppress(Died):
            self.perform(step)
        self.doom.effects_left = None
        self.crash()

    def _pull(self, step: PullImage) -> None:
        try:
            image = self.images.pull(ImageSpec(step.digest, step.source), lambda _: b"", None, lambda *_: None)
        except ImageError as error:
            retry_at = None if error.retry_after_s is None else self.clock.time + error.retry_after_s
            self.world.images[step.digest] = ImageView("Failed", error.code, error.message, retry_at)
        else:
            self.world.images[step.digest] = ImageView("Ready", config=image.config)


@contextmanager
def simulation(root: Any, *, chance: random.Random | None = None) -> Iterator[Simulation]:
    made = Simulation(Paths(f"{root}/disk", f"{root}/run"), chance=chance)
    try:
        yield made
    finally:
        made.loop.close()


def _progress(report: TaskReport) -> tuple[int, int]:
    return report.restarts, _RANK.index(report.state)
