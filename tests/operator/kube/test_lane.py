"""Lanes: how many at once, how many a second."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage_operator.kube.lane import Lane, RateLimit

from tests.operator.kube.clock import ManualClock, settle


def test_after_a_rest_a_burst_passes_at_once_and_then_an_even_pace() -> None:
    limit = RateLimit(per_s=10, burst=3)
    assert [round(limit.reserve(100.0), 3) for _ in range(6)] == [0, 0, 0, 0.1, 0.2, 0.3]
    assert limit.reserve(200.0) == 0


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=200))
def test_never_more_than_the_burst_and_the_rate(gaps: list[float]) -> None:
    limit, now, begun = RateLimit(per_s=10, burst=3), 0.0, []
    for gap in gaps:
        now += gap
        begun.append(now + limit.reserve(now))
    for first in range(len(begun)):
        for last in range(first, len(begun)):
            assert last - first + 1 <= 3 + 10 * (begun[last] - begun[first]) + 1e-6


async def test_as_many_at_once_as_there_are_slots() -> None:
    clock = ManualClock()
    lane, inside, most = Lane(slots=2, rate=1000, clock=clock), 0, 0

    async def work() -> None:
        nonlocal inside, most
        async with lane:
            inside += 1
            most = max(most, inside)
            await clock.sleep(1)
            inside -= 1

    tasks = [asyncio.create_task(work()) for _ in range(5)]
    await clock.advance(3)
    assert most == 2
    await asyncio.gather(*tasks)


async def test_one_that_is_cancelled_gives_its_slot_back() -> None:
    clock = ManualClock()
    lane = Lane(slots=1, rate=1000, clock=clock)

    async def hold() -> None:
        async with lane:
            await clock.sleep(1000)

    holder = asyncio.create_task(hold())
    await settle()
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
    async with asyncio.timeout(1), lane:
        pass
