"""The apply loop: for each task that something happened to, ask for its next step and have it performed. Level-triggered.

An event costs as much as the tasks it touches, however many there are. Quick steps run in place; those that take their time run beside the
loop, one per task, so many in flight; a task that waits for a free start is simply asked again later.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterable
from itertools import islice
from typing import Any

from moorage_agent.errors import AgentError
from moorage_agent.execute import Executor
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
    task_steps,
)
from moorage_agent.task_state import Moment
from moorage_agent.world import World

log = logging.getLogger("moorage.apply")

REMOVES_IN_FLIGHT = 4
TRY_AGAIN_S = 5.0


def starts_in_flight() -> int:
    """About two per core: more only delay each other."""
    return max(2, 2 * len(os.sched_getaffinity(0)))


class ApplyLoop:
    """`pull`, `ask` and `changed` are told of images to pull, values to ask for and tasks whose report may have changed."""

    def __init__(
        self,
        world: World,
        executor: Executor,
        *,
        clock: Callable[[], Moment],
        pull: Callable[[PullImage], None],
        ask: Callable[[tuple[str, ...]], None],
        changed: Callable[[str], None],
    ) -> None:
        self._world, self._executor, self._clock = world, executor, clock
        self._pull, self._ask, self._changed = pull, ask, changed
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._timers: dict[str, tuple[float, asyncio.TimerHandle]] = {}
        self._lanes = {Start: Lane(starts_in_flight()), Prepare: Lane(starts_in_flight()), Remove: Lane(REMOVES_IN_FLIGHT)}
        self._running: set[asyncio.Task[None]] = set()

    def touch(self, uids: Iterable[str]) -> None:
        """Something happened to these tasks. Without a document nothing is known to be unwanted: containers are then left as they are."""
        if self._world.document is None:
            return
        self._dirty.update(dict.fromkeys(uids))
        if self._dirty:
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled; steps in flight are then let finish by `settle`."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for _ in range(64):  # then let sessions speak
                if not self._dirty:
                    break
                uid = next(iter(self._dirty))
                del self._dirty[uid]
                self._advance(uid)
            if self._dirty:
                self._wake.set()
                await asyncio.sleep(0)

    async def settle(self) -> None:
        """Wait for the steps in flight."""
        while self._running:
            await asyncio.wait(self._running)

    def _advance(self, uid: str) -> None:
        if uid not in self._world.tasks:
            self._timers.pop(uid, (0, None))
            return
        now = self._clock()
        try:
            for step in task_steps(self._world.view(uid, now), now):
                self._perform(uid, step, now)
        except Exception:  # whatever it is, it is this task's alone: the others go on
            log.exception("a task's next step failed by a bug", extra={"fields": {"task": uid}})
            asyncio.get_running_loop().call_later(TRY_AGAIN_S, self.touch, (uid,))
        self._changed(uid)

    def _perform(self, uid: str, step: Step, now: Moment) -> None:
        if isinstance(step, Wait):
            self._wait(step, now)
        elif isinstance(step, PullImage):
            self._pull(step)
        elif isinstance(step, AskValues):
            self._ask(step.keys)
        elif isinstance(step, (Start, Prepare, Remove)):
            self._launch(uid, step)
        else:
            log.info("step", extra={"fields": {"step": step.describe()}})
            self._at_once(step)
            self.touch((uid, *self._world.relatives(uid)))

    def _at_once(self, step: NoteExit | BackOff | BeginStop | Kill | Finish) -> None:
        if isinstance(step, NoteExit):
            self._executor.note_exit(step)
        elif isinstance(step, BackOff):
            self._executor.back_off(step)
        elif isinstance(step, BeginStop):
            self._executor.begin_stop(step)
        elif isinstance(step, Kill):
            self._executor.kill(step)
        else:
            self._executor.finish(step)

    def _wait(self, step: Wait, now: Moment) -> None:
        until, timer = self._timers.get(step.uid, (0.0, None))
        if until == step.until and timer is not None and not timer.cancelled() and timer.when() > asyncio.get_running_loop().time():
            return
        if timer is not None:
            timer.cancel()
        self._timers.pop(step.uid, None)
        if step.until != float("inf"):
            timer = asyncio.get_running_loop().call_later(max(0.0, step.until - now.boot), self.touch, (step.uid,))
            self._timers[step.uid] = (step.until, timer)

    def _launch(self, uid: str, step: Start | Prepare | Remove) -> None:
        lane = self._lanes[type(step)]
        if not lane.enter(uid):
            return
        log.info("step", extra={"fields": {"step": step.describe()}})
        self._world.tasks[uid].busy = True
        task = asyncio.get_running_loop().create_task(self._carry_out(uid, step, lane))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _carry_out(self, uid: str, step: Start | Prepare | Remove, lane: Lane) -> None:
        relatives = self._world.relatives(uid)
        pause = 0.0
        try:
            await self._work(step)
        except AgentError as error:
            pause = TRY_AGAIN_S
            log.warning("step failed", extra={"fields": {"step": step.describe(), "error": str(error)}})
        except Exception:
            pause = TRY_AGAIN_S
            log.exception("step failed by a bug", extra={"fields": {"step": step.describe()}})
        if pause:
            await asyncio.sleep(pause)
        if uid in self._world.tasks:
            self._world.tasks[uid].busy = False
        else:
            self._changed(uid)
        self.touch((uid, *relatives, *lane.leave()))

    def _work(self, step: Start | Prepare | Remove) -> Coroutine[Any, Any, None]:
        if isinstance(step, Prepare):
            return self._executor.prepare(step)
        if isinstance(step, Start):
            return self._executor.start(step)
        return self._executor.remove(step)


class Lane:
    """So many steps of a kind at once; whoever found it full is named when a place is free."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._queue: dict[str, None] = {}

    def enter(self, uid: str) -> bool:
        if self._free == 0:
            self._queue[uid] = None
            return False
        self._queue.pop(uid, None)
        self._free -= 1
        return True

    def leave(self) -> tuple[str, ...]:
        """Give the place back. Returns who waits for it."""
        self._free += 1
        waiting = tuple(islice(self._queue, self._free))
        for uid in waiting:
            del self._queue[uid]
        return waiting
