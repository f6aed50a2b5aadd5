"""Task.status: monotonic, silent where there is no news, two writes in a good life."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from moorage_agent.protocol import Exit, TaskReport
from moorage_operator.api import Task, TaskStatus, find
from moorage_operator.plan.placement import Unplaceable
from moorage_operator.plan.task import ENDED, ORDER, orphaned_status, pending_status, task_state, task_status, write_at

from tests.operator.plan.fleets import NOON
from tests.operator.plan.objects import task

LATER = NOON + timedelta(minutes=1)


def report(state: str, **more: Any) -> TaskReport:
    return TaskReport(uid="uid-web-1-abc", state=state, **more)


def with_status(one: Task, status: TaskStatus | None) -> Task:
    """As it comes back from the API server: through JSON."""
    return one if status is None else Task.parse({**one.wire(), "status": status.wire()})


def condition(status: TaskStatus | None, kind: str) -> tuple[str, str]:
    found = find(status.conditions, kind) if status else None
    assert found is not None
    return found.status, found.reason


def test_a_running_task_is_ready() -> None:
    status = task_status(task(), report("Running", started_at=NOON.timestamp() + 0.7, pid=7), now=NOON)
    assert status is not None
    assert (status.state, status.started_at, status.restarts) == ("Running", NOON, 0)
    assert condition(status, "Scheduled") == ("True", "Placed")
    assert condition(status, "Ready") == ("True", "Running")
    assert condition(status, "Complete") == ("False", "Running")


def test_an_unhealthy_or_stopping_task_is_not_ready() -> None:
    assert condition(task_status(task(), report("Running", healthy=False, reason="Unhealthy"), now=NOON), "Ready") == ("False", "Unhealthy")
    assert condition(task_status(task(), report("Running", stopping=True), now=NOON), "Ready")[0] == "False"


def test_the_same_report_twice_is_no_news() -> None:
    exits = (Exit(code=1, at=NOON.timestamp() - 9.3), Exit(code=137, at=NOON.timestamp() - 3.9, oom_killed=True, reason="OOM"))
    said = report("Running", restarts=2, started_at=NOON.timestamp() + 0.25, exit_code=137, oom_killed=True, last_exits=exits)
    first = with_status(task(), task_status(task(), said, now=NOON))
    assert task_status(first, said, now=LATER) is None


def test_a_new_desired_state_alone_is_no_news() -> None:
    first = with_status(task(), task_status(task(), report("Ready"), now=NOON))
    raw = first.wire()
    raw["metadata"]["generation"] = 2
    assert task_status(Task.parse(raw), report("Ready"), now=LATER) is None


def test_exits_come_newest_first_and_at_most_five() -> None:
    exits = tuple(Exit(code=code, at=NOON.timestamp() + code) for code in range(8))
    status = task_status(task(), report("Starting", restarts=8, last_exits=exits), now=NOON)
    assert status is not None
    assert [one.code for one in status.last_exits] == [7, 6, 5, 4, 3]


def test_conditions_keep_the_time_of_their_last_change() -> None:
    one = with_status(task(), task_status(task(), report("Running"), now=NOON))
    status = task_status(one, report("Running", message="look"), now=LATER)
    assert status is not None
    assert {condition.last_transition_time for condition in status.conditions} == {NOON}


def test_a_report_from_the_past_is_ignored() -> None:
    one = with_status(task(), task_status(task(), report("Running", restarts=1), now=NOON))
    assert task_status(one, report("Starting", restarts=1), now=LATER) is None


def test_a_task_that_ended_stays_so() -> None:
    one = with_status(task(), task_status(task(), report("Failed", restarts=3), now=NOON))
    assert task_status(one, report("Running", restarts=4), now=LATER) is None


def test_an_orphan_stays_one_when_its_node_returns() -> None:
    one = with_status(task(), orphaned_status(task(), "node n1 is out of service", now=NOON))
    assert one.status.reason == "NodeLost"
    assert task_status(one, report("Running", restarts=9), now=LATER) is None


def test_an_agent_that_lost_its_memory_makes_the_count_go_on() -> None:
    one = with_status(task(), task_status(task(), report("Running", restarts=5), now=NOON))
    first = task_status(one, report("Preparing"), now=LATER)
    assert first is not None
    assert (first.restarts, first.state) == (6, "Preparing")
    second = task_status(with_status(one, first), report("Running"), now=LATER)
    assert second is not None
    assert (second.restarts, second.state) == (6, "Running")


def test_a_code_that_the_api_server_would_refuse_keeps_nothing_from_being_written() -> None:
    status = task_status(task(), report("Failed", exit_code=3_221_225_786), now=NOON)
    assert status is not None
    assert status.exit_code is None


reports = st.builds(
    report,
    st.sampled_from([state for state in ORDER if state not in ("Pending", "Assigned", "Orphaned")]),
    restarts=st.integers(0, 4),
    healthy=st.sampled_from([None, True, False]),
    stopping=st.booleans(),
    reason=st.sampled_from(["", "CrashLoopBackOff"]),
)


@given(st.lists(reports, max_size=8))
def test_restarts_and_state_only_grow_and_what_ended_never_changes(said: list[TaskReport]) -> None:
    one = task()
    for each in said:
        before = (one.status.restarts or 0, ORDER[task_state(one)])
        status = task_status(one, each, now=NOON)
        if status is not None:
            assert (status.restarts or 0, ORDER[status.state or ""]) >= before
            assert task_state(one) not in ENDED or status.state == one.status.state
        one = with_status(one, status)
        assert task_status(one, each, now=LATER) is None or each.restarts < (one.status.restarts or 0)


def test_a_good_life_is_one_status_write() -> None:
    """The Task itself is the other."""
    one, first_seen, writes = task(), None, []
    for millis, said in [
        (0, report("Preparing", reason="Pulling")),
        (40, report("Preparing")),
        (60, report("Starting")),
        (90, report("Running")),
    ]:
        now = NOON + timedelta(milliseconds=millis)
        status = task_status(one, said, now=now)
        assert status is not None
        first_seen = first_seen or now
        if write_at(one.status, status, first_seen=first_seen) <= now:
            writes.append(status.state)
            one = with_status(one, status)
    assert writes == ["Running"]


def test_a_slow_pull_is_written_after_a_moment_and_then_every_five_seconds() -> None:
    pulling = task_status(task(), report("Preparing", reason="Pulling", message="1 of 9 bytes"), now=NOON)
    assert pulling is not None
    assert write_at(TaskStatus(), pulling, first_seen=NOON) == NOON + timedelta(milliseconds=200)
    further = task_status(with_status(task(), pulling), report("Preparing", reason="Pulling", message="2 of 9 bytes"), now=NOON)
    assert further is not None
    assert write_at(pulling, further, first_seen=NOON) == NOON + timedelta(seconds=5)


def test_a_queue_of_starts_is_not_worth_a_write_each() -> None:
    waits = task_status(task(), report("Preparing"), now=NOON)
    assert waits is not None
    assert write_at(TaskStatus(), waits, first_seen=NOON) == NOON + timedelta(seconds=1)


def test_an_exit_and_the_gate_are_written_at_once() -> None:
    running = task_status(task(), report("Running"), now=NOON)
    assert running is not None
    down = task_status(with_status(task(), running), report("Starting", restarts=1, reason="CrashLoopBackOff"), now=NOON)
    gate = task_status(task(), report("Ready"), now=NOON)
    assert down is not None
    assert gate is not None
    assert write_at(running, down, first_seen=NOON) == NOON
    assert write_at(TaskStatus(), gate, first_seen=NOON) == NOON


def test_a_task_without_a_node_says_why_and_says_it_once() -> None:
    why = Unplaceable("web-1-abc", "NoSuitableNode", "no suitable node: 1 node drained")
    waiting = task(nodeName=None)
    status = pending_status(waiting, why, now=NOON)
    assert status is not None
    assert (status.state, status.message) == ("Pending", why.message)
    assert condition(status, "Scheduled") == ("False", "NoSuitableNode")
    assert pending_status(with_status(waiting, status), why, now=LATER) is None
    assert pending_status(task(), replace(why, message="other"), now=LATER) is None
