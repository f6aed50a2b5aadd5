"""Background tasks do not vanish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from random import Random

import pytest
from moorage_operator.kube.supervisor import STABLE_S, Supervisor

from tests.operator.kube.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def supervisor(clock: ManualClock) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(clock=clock, random=Random(1))
    yield supervisor
    await supervisor.stop()


async def test_a_task_that_dies_is_started_again_logged_and_counted(
    clock: ManualClock, supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    starts = 0

    async def watch() -> None:
        nonlocal starts
        starts += 1
        if starts < 3:
            raise RuntimeError("the stream broke")
        await asyncio.Event().wait()

    supervisor.start("watch", watch)
    await clock.advance(10)
    assert (starts, supervisor.restarts["watch"]) == (3, 2)
    assert "the stream broke" in caplog.text


async def test_a_task_that_returns_is_as_dead_as_one_that_raises(clock: ManualClock, supervisor: Supervisor) -> None:
    async def short() -> None:
        return

    supervisor.start("short", short)
    await clock.advance(0.1)
    assert supervisor.restarts["short"] == 1


async def test_a_task_that_dies_at_once_is_started_less_and_less_often(clock: ManualClock, supervisor: Supervisor) -> None:
    starts: list[float] = []

    async def broken() -> None:
        starts.append(clock.monotonic())
        raise RuntimeError

    supervisor.start("broken", broken)
    await clock.advance(600)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert gaps[0] <= 0.5
    assert 15 <= gaps[-1] <= 30


async def test_a_task_that_lived_long_starts_again_soon(clock: ManualClock, supervisor: Supervisor) -> None:
    starts: list[float] = []

    async def long() -> None:
        starts.append(clock.monotonic())
        await clock.sleep(STABLE_S + 1)
        raise RuntimeError

    supervisor.start("long", long)
    await clock.advance(10 * STABLE_S)
    assert all(later - earlier < STABLE_S + 2 for earlier, later in pairwise(starts))


async def test_stop_ends_the_named_ones_and_leaves_the_others(supervisor: Supervisor) -> None:
    ended: list[str] = []

    async def endless(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    supervisor.start("a", lambda: endless("a"))
    supervisor.start("b", lambda: endless("b"))
    await asyncio.sleep(0)
    await supervisor.stop("a")
    assert (ended, supervisor.running("a"), supervisor.running("b")) == (["a"], False, True)
    with pytest.raises(ValueError, match="already"):
        supervisor.start("b", lambda: endless("b"))
