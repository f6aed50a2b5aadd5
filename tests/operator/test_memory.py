"""What the collector of garbage no longer looks at, and what it still finds."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator

import pytest
from moorage_operator.memory import EVERY_S, FIRST_S, YOUNG, settle, stay_settled

from tests.operator.kube.clock import ManualClock


class Thing:
    """One that may hold itself."""

    def __init__(self, *, cyclic: bool = False) -> None:
        self.itself = self if cyclic else None


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """As the other tests had it."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.fixture
async def clock() -> AsyncIterator[ManualClock]:
    """Of a process whose memory stays settled."""
    clock = ManualClock()
    staying = asyncio.create_task(stay_settled(clock))
    yield clock
    assert not staying.done()
    staying.cancel()
    await asyncio.gather(staying, return_exceptions=True)


def looked_at(thing: Thing) -> bool:
    """By the collector."""
    return any(each is thing for each in gc.get_objects())


def test_what_is_there_is_not_looked_at_again_and_what_comes_is() -> None:
    there = Thing()
    assert looked_at(there)
    settle()
    assert not looked_at(there)
    assert looked_at(Thing())


def test_garbage_goes_before_it_could_stay_for_ever() -> None:
    gone = weakref.ref(Thing(cyclic=True))
    settle()
    assert gone() is None


def test_a_cycle_made_later_is_still_collected() -> None:
    settle()
    gone = weakref.ref(Thing(cyclic=True))
    gc.collect()
    assert gone() is None


async def test_young_objects_are_looked_at_seldom_from_the_start(clock: ManualClock) -> None:
    await clock.advance(0)
    assert gc.get_threshold()[0] == YOUNG


async def test_the_first_minute_belongs_to_the_start(clock: ManualClock) -> None:
    thing = Thing()
    await clock.advance(FIRST_S - 1)
    assert looked_at(thing)
    await clock.advance(1)
    assert not looked_at(thing)


async def test_what_came_since_settles_again_and_again(clock: ManualClock) -> None:
    await clock.advance(FIRST_S)
    for _ in range(3):
        thing = Thing()
        await clock.advance(EVERY_S - 1)
        assert looked_at(thing)
        await clock.advance(1)
        assert not looked_at(thing)
