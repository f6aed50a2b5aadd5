"""The work queue: each key once, one worker at a time, failures later and later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from random import Random

import pytest
from moorage_operator.errors import ApiUnavailable, InvalidSpec, NotLeader
from moorage_operator.kube.queue import Outcome, WorkQueue

from tests.operator.kube.clock import ManualClock, settle


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Desk:
    """A reconcile that records when it looked at what, and answers as it was told."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.looks: list[tuple[str, float]] = []
        self.answers: dict[str, list[float | Exception | None]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_once: dict[str, int] = {}
        self.most_at_once = 0
        self._inside: set[str] = set()

    async def reconcile(self, key: str) -> float | None:
        assert key not in self._inside, "two workers on one key"
        self._inside.add(key)
        self.most_at_once = max(self.most_at_once, len(self._inside))
        self.looks.append((key, round(self.clock.monotonic() - 1000, 3)))
        try:
            await self.gate.wait()
        finally:
            self._inside.discard(key)
        answers = self.answers.get(key)
        answer = answers.pop(0) if answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def keys(self) -> list[str]:
        return [key for key, _ in self.looks]

    def times(self) -> list[float]:
        return [when for _, when in self.looks]


@asynccontextmanager
async def working(queue: WorkQueue[str]) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def queue_for(desk: Desk, *, workers: int = 4, observe: Callable[[Outcome, float], object] | None = None) -> WorkQueue[str]:
    reconcile: Callable[[str], Awaitable[float | None]] = desk.reconcile
    return WorkQueue("test", reconcile, clock=desk.clock, random=Random(1), workers=workers, observe=observe)


async def test_a_key_added_often_is_looked_at_once(clock: ManualClock) -> None:
    desk = Desk(clock)
    queue = queue_for(desk)
    for _ in range(5):
        queue.add("a")
    assert queue.depth == 1
    async with working(queue):
        await settle()
    assert desk.keys() == ["a"]


async def test_keys_are_served_in_the_order_they_came(clock: ManualClock) -> None:
    desk = Desk(clock)
    queue = queue_for(desk, workers=1)
    for key in "cab":
        queue.add(key)
    async with working(queue):
        await settle()
    assert desk.keys() == ["c", "a", "b"]


async def test_a_key_added_while_worked_on_is_looked_at_once_more_afterwards(clock: ManualClock) -> None:
    desk = Desk(clock)
    queue = queue_for(desk)
    desk.gate.clear()
    async with working(queue):
        queue.add("a")
        await settle()
        queue.add("a")
        queue.add("a")
        await settle()
        assert desk.keys() == ["a"]
        desk.gate.set()
        await settle()
    assert desk.keys() == ["a", "a"]


async def test_no_more_keys_at_a_time_than_workers(clock: ManualClock) -> None:
    desk = Desk(clock)
    queue = queue_for(desk, workers=3)
    desk.gate.clear()
    async with working(queue):
        for number in range(10):
            queue.add(str(number))
        await settle()
        assert (queue.running, queue.depth, queue.idle) == (3, 7, False)
        desk.gate.set()
        await settle()
        assert queue.idle
    assert (desk.most_at_once, len(desk.looks)) == (3, 10)


async def test_of_several_wishes_the_earliest_counts(clock: ManualClock) -> None:
    desk = Desk(clock)
    queue = queue_for(desk)
    async with working(queue):
        queue.add("a", 30)
        queue.add("a", 10)
        queue.add("a", 20)
        await clock.advance(60)
    assert desk.looks == [("a", 10.0)]


async def test_a_look_fulfils_the_wishes_from_before_it(clock: ManualClock) -> None:
    desk = Desk(clock)
    queue = queue_for(desk)
    async with working(queue):
        queue.add("a", 10)
        queue.add("a")
        await clock.advance(60)
    assert desk.looks == [("a", 0.0)]


async def test_a_look_may_ask_for_the_next(clock: ManualClock) -> None:
    desk = Desk(clock)
    desk.answers["a"] = [5.0, 7.0, None]
    queue = queue_for(desk)
    async with working(queue):
        queue.add("a")
        await clock.advance(60)
    assert desk.times() == [0.0, 5.0, 12.0]


async def test_failures_come_back_later_and_later_up_to_a_minute(clock: ManualClock) -> None:
    desk = Desk(clock)
    desk.answers["a"] = [ApiUnavailable("down")] * 15
    queue = queue_for(desk)
    async with working(queue):
        queue.add("a")
        await clock.advance(3600)
    gaps = [later - earlier for earlier, later in pairwise(desk.times())]
    assert len(gaps) == 15
    assert all(0.5 * min(60, 0.1 * 2**n) <= round(gap, 2) + 0.01 <= min(60, 0.1 * 2**n) + 0.02 for n, gap in enumerate(gaps))


async def test_a_success_makes_the_next_failure_the_first(clock: ManualClock) -> None:
    desk = Desk(clock)
    down = ApiUnavailable("down")
    desk.answers["a"] = [down, down, down, down, None, down, None]
    queue = queue_for(desk)
    async with working(queue):
        queue.add("a")
        await clock.advance(60)
        before = len(desk.looks)
        queue.add("a")
        await clock.advance(0.1)
    assert len(desk.looks) == before + 2


async def test_a_changed_manifest_does_not_wait_for_the_back_off(clock: ManualClock) -> None:
    desk = Desk(clock)
    desk.answers["a"] = [ApiUnavailable("down")] * 8
    queue = queue_for(desk)
    async with working(queue):
        queue.add("a")
        await clock.advance(20)
        before = len(desk.looks)
        queue.add("a")
        await settle()
    assert len(desk.looks) == before + 1


async def test_an_invalid_spec_is_not_tried_again_by_itself(clock: ManualClock) -> None:
    desk = Desk(clock)
    desk.answers["a"] = [InvalidSpec("no image")]
    outcomes: list[Outcome] = []
    queue = queue_for(desk, observe=lambda outcome, _: outcomes.append(outcome))
    async with working(queue):
        queue.add("a")
        await clock.advance(3600)
    assert (desk.keys(), outcomes) == (["a"], ["invalid"])


async def test_a_bug_is_logged_with_its_traceback_and_tried_again(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(clock)
    desk.answers["a"] = [ZeroDivisionError("oops")]
    outcomes: list[Outcome] = []
    queue = queue_for(desk, observe=lambda outcome, _: outcomes.append(outcome))
    async with working(queue):
        queue.add("a")
        await clock.advance(1)
    assert outcomes == ["bug", "done"]
    assert "Traceback" in caplog.text


async def test_one_key_that_fails_holds_up_no_other(clock: ManualClock) -> None:
    desk = Desk(clock)
    desk.answers["bad"] = [RuntimeError("x")] * 100
    queue = queue_for(desk, workers=1)
    async with working(queue):
        queue.add("bad")
        queue.add("good")
        await clock.advance(1)
    assert desk.keys().count("good") == 1


async def test_a_process_that_does_not_lead_looks_again_later(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(clock)
    desk.answers["a"] = [NotLeader("another leads")]
    queue = queue_for(desk)
    async with working(queue):
        queue.add("a")
        await clock.advance(1)
    assert desk.keys() == ["a", "a"]
    assert caplog.text == ""


async def test_depth_and_age_tell_how_far_behind_the_workers_are(clock: ManualClock) -> None:
    desk = Desk(clock)
    queue = queue_for(desk)
    assert (queue.depth, queue.oldest_age_s) == (0, 0.0)
    queue.add("a")
    clock.jump(3)
    queue.add("b")
    clock.jump(2)
    assert (queue.depth, queue.oldest_age_s) == (2, 5.0)


async def test_what_was_worked_on_when_cancelled_is_not_lost(clock: ManualClock) -> None:
    desk = Desk(clock)
    queue = queue_for(desk, workers=2)
    desk.gate.clear()
    async with working(queue):
        queue.add("a")
        queue.add("b")
        queue.add("c")
        await settle()
    assert (queue.running, queue.depth) == (0, 3)
    desk.gate.set()
    async with working(queue):
        await settle()
    assert sorted(desk.keys()) == ["a", "a", "b", "b", "c"]
