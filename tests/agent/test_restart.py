from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage_agent.protocol import Exit, Restart
from moorage_agent.restart import after_exit, crash_looping, delay_s
from moorage_agent.task_state import Moment, Record

NOW = Moment(wall=10_000.0, boot=500.0, boot_id="b")


def after(
    record: Record,
    *,
    code: int | None = 1,
    lived: float = 0.0,
    at: float = 10_000.0,
    policy: Restart | None = None,
    reason: str | None = None,
) -> Record:
    ended = Exit(code, at, started_at=at - lived, reason=reason)
    return after_exit(record, ended, run=record.run + 1, policy=policy or Restart(), now=NOW, chance=0.5)


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True), st.floats(0.1, 60), st.floats(60, 600))
def test_the_delay_stays_within_a_fifth_of_its_limit(streak: int, chance: float, first: float, most: float) -> None:
    pause = delay_s(Restart(delay_s=first, max_delay_s=most), streak, chance=chance)
    assert first * 0.8 <= pause + 1e-9
    assert pause <= most * 1.2 + 1e-9


def test_a_delay_of_zero_is_no_hot_loop() -> None:
    policy = Restart(delay_s=0.0)
    pauses = [delay_s(policy, streak, chance=0.5) for streak in range(1, 6)]
    assert pauses == pytest.approx([0.0, 0.2, 0.4, 0.8, 1.6])


def test_a_minute_of_stable_running_forgives_what_was_before() -> None:
    record = Record()
    for _ in range(6):
        record = after(record)
    assert record.restart_at == pytest.approx(NOW.boot + 32)
    assert after(record, lived=61).restart_at == pytest.approx(NOW.boot + 1)


def test_five_exits_within_five_minutes_are_a_crash_loop() -> None:
    record = Record()
    for at in (0, 60, 120, 180):
        record = after(record, at=10_000.0 + at)
    assert not crash_looping(record)
    assert crash_looping(after(record, at=10_299))
    assert not crash_looping(after(record, at=10_301))


def test_exits_before_the_clock_was_set_back_are_no_crash_loop() -> None:
    record = Record()
    for at in (900_000, 950_000, 990_000, 999_000):
        record = after(record, at=float(at))
    assert not crash_looping(after(record, at=10_000.0))


def test_attempts_before_the_clock_was_set_back_are_outside_the_window() -> None:
    policy = Restart(max_attempts=2, window_s=100)
    record = Record()
    for at in (900_000, 950_000, 10_000):
        record = after(record, at=float(at), policy=policy)
    assert record.end is None


def test_reboots_are_no_crash_loop_and_no_attempt() -> None:
    record = Record()
    for _ in range(9):
        record = after(record, code=None, reason="HostRebooted", policy=Restart(max_attempts=1))
    assert not crash_looping(record)
    assert record.end is None
    assert record.restart_at == NOW.boot


def test_attempts_outside_the_window_are_forgotten() -> None:
    policy = Restart(max_attempts=2, window_s=100)
    record = Record()
    for at in (0, 200, 400, 600, 650):
        record = after(record, at=10_000.0 + at, policy=policy)
        assert record.end is None
    record = after(record, at=10_680.0, policy=policy)
    assert record.end is not None
    assert (record.end.state, record.end.reason) == ("Failed", "MaxAttempts")


def test_an_unhealthy_container_failed_though_it_ended_well() -> None:
    assert after(Record(), code=0, reason="Unhealthy", policy=Restart(condition="OnFailure")).end is None
    end = after(Record(), code=0, reason="Unhealthy", policy=Restart(condition="None")).end
    assert end is not None
    assert end.state == "Failed"


def test_a_task_that_made_way_is_complete_whatever_its_exit_code() -> None:
    end = after(Record(), code=143, reason="Replaced", policy=Restart(condition="Any")).end
    assert end is not None
    assert (end.state, end.reason) == ("Complete", "Replaced")


def test_the_end_says_what_happened_in_words() -> None:
    record = after(Record(), code=137, lived=3.21)
    assert record.message == "exited with code 137 after 3.2 s; starts again after 1.0 s"
    assert dataclasses.replace(record).restarts == 1


def test_only_so_many_exits_are_kept() -> None:
    record = Record()
    for _ in range(50):
        record = after(record)
    assert len(record.exits) == 10
    assert record.restarts == 50
