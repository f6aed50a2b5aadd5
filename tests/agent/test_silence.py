from __future__ import annotations

import threading

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
