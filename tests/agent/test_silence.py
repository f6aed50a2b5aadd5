from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest
from moorage_agent.errors import AgentError
from moorage_agent.silence import look_at

from tests.machine.waiting import eventually


async def test_what_answers_is_returned_or_raised() -> None:
    assert await look_at("/a", lambda: 7) == 7
    with pytest.raises(TimeoutError, match="the server said so"):
        await look_at("/a", told)


def told() -> None:
    raise TimeoutError("the server said so")


async def test_what_hangs_costs_one_thread_until_it_answers() -> None:
    server, came = threading.Event(), list[bool]()
    before = threading.active_count()
    for _ in range(5):
        with pytest.raises(AgentError, match="bind source /dead does not answer") as silent:
            await look_at("/dead", lambda: server.wait(60), too_late=came.append, within_s=0.05)
        assert silent.value.code == "BindSourceSilent"
    assert threading.active_count() == before + 1
    assert await look_at("/alive", lambda: 7) == 7
    server.set()
    eventually("the late answer is handed over", lambda: came == [True])
    assert await look_at("/dead", lambda: 8) == 8


async def test_many_who_look_together_cost_one_thread_when_it_hangs_and_each_an_answer_when_it_does_not() -> None:
    server = threading.Event()
    before = threading.active_count()
    looks = [look_at("/dead", lambda: server.wait(60), within_s=0.2) for _ in range(8)]
    told = asyncio.gather(*looks, return_exceptions=True)
    await asyncio.sleep(0.1)
    assert threading.active_count() == before + 1
    assert [getattr(error, "code", None) for error in await told] == ["BindSourceSilent"] * 8
    assert threading.active_count() == before + 1
    server.set()
    eventually("the look ends", lambda: threading.active_count() == before)
    assert await asyncio.gather(*(look_at("/dead", partial(int, number)) for number in range(8))) == list(range(8))
