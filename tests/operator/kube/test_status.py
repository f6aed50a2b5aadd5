"""The status writer: the latest wins, no-ops are spared, conflicts and failures are lived through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage_operator.kube.cache import Cache
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.object import Key, Obj
from moorage_operator.kube.status import StatusWriter, merge_patch, settled, status_patch
from moorage_operator.kube.timestamp import timestamp

from tests.operator.fakeapi import FakeApi
from tests.operator.fakeapi.patching import merged
from tests.operator.kube.clock import START
from tests.operator.kube.waiting import until
from tests.operator.kube.widgets import WIDGETS

A = Key("default", "a")
LATER = START + timedelta(minutes=5)


# --- what is to be written


def test_what_is_there_already_is_not_written() -> None:
    status = {"state": "Running", "inner": {"a": 1}, "list": [1]}
    assert status_patch(status, dict(status), now=START) == {}


def test_only_the_difference_is_written_and_what_vanished_is_removed_by_name() -> None:
    old = {"state": "Starting", "message": "pulling", "inner": {"a": 1, "b": 2}, "list": [1, 2]}
    new = {"state": "Running", "inner": {"a": 1}, "list": [1]}
    assert status_patch(old, new, now=START) == {"state": "Running", "message": None, "inner": {"b": None}, "list": [1]}


def test_none_means_absent() -> None:
    assert merge_patch({}, {"message": None}) == {}
    assert merge_patch({"message": "x"}, {"message": None}) == {"message": None}


VALUES = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
STATUSES = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


@given(STATUSES, STATUSES)
def test_a_patch_turns_the_old_into_the_new_and_a_second_one_is_empty(old: Obj, new: Obj) -> None:
    result = merged(old, merge_patch(old, new))
    assert result == new
    assert merge_patch(result, new) == {}


def condition(status: str, reason: str = "R", **more: Any) -> Obj:
    return {"type": "Ready", "status": status, "reason": reason, **more}


def test_a_conditions_time_moves_only_when_its_status_flips() -> None:
    first = settled([], [condition("False")], now=START)
    same = settled(first, [condition("False", "Other")], now=LATER)
    flipped = settled(same, [condition("True")], now=LATER)
    assert [conditions[0]["lastTransitionTime"] for conditions in (first, same, flipped)] == [
        timestamp(START),
        timestamp(START),
        timestamp(LATER),
    ]
    assert same[0]["reason"] == "Other"


def test_conditions_that_did_not_change_are_not_written() -> None:
    old = {"conditions": settled([], [condition("True")], now=START)}
    assert status_patch(old, {"conditions": [condition("True")]}, now=LATER) == {}


# --- writing it


@dataclass
class Bench:
    fake: FakeApi
    api: KubeApi
    cache: Cache
    writer: StatusWriter
    conflicts: list[Key] = field(default_factory=list)

    def add(self, name: str = "a") -> Obj:
        obj = self.fake.store.create(WIDGETS, {"metadata": {"namespace": "default", "name": name}, "spec": {"size": 1}})
        obj = {**obj, "metadata": dict(obj["metadata"])}
        self.cache.put(obj)
        return obj

    def there(self, name: str = "a") -> Obj:
        return dict(self.fake.store.get(WIDGETS, Key("default", name)).get("status") or {})

    @property
    def patches(self) -> int:
        return self.fake.calls["patch", "widgets/status"]


@pytest.fixture
async def bench(fake: FakeApi) -> AsyncIterator[Bench]:
    async with KubeApi(fake.credentials, clock=SystemClock()) as api:
        cache, conflicts = Cache(WIDGETS), list[Key]()
        writer = StatusWriter(api, cache, clock=SystemClock(), random=Random(1), on_conflict=conflicts.append)
        task = asyncio.create_task(writer.run())
        yield Bench(fake, api, cache, writer, conflicts)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_status_arrives_and_the_answer_is_in_the_cache(bench: Bench) -> None:
    bench.writer.put(bench.add(), {"state": "Running"})
    assert await bench.writer.drain(within_s=5)
    assert bench.there() == {"state": "Running"}
    assert (bench.cache.get(A) or {})["status"] == {"state": "Running"}


async def test_the_same_status_again_costs_nothing(bench: Bench) -> None:
    obj = bench.add()
    for _ in range(5):
        bench.writer.put(obj, {"state": "Running", "conditions": [condition("True")]})
        await bench.writer.drain(within_s=5)
    assert (bench.patches, bench.writer.written, bench.writer.spared) == (1, 1, 4)


async def test_of_many_wishes_during_a_write_only_the_last_is_written(bench: Bench) -> None:
    obj = bench.add()
    bench.fake.faults.delay("patch", 0.1)
    for number in range(50):
        bench.writer.put(obj, {"progress": number})
        await asyncio.sleep(0.001)
    await bench.writer.drain(within_s=5)
    assert bench.there() == {"progress": 49}
    assert bench.patches <= 3


async def test_objects_do_not_wait_for_each_other(bench: Bench) -> None:
    bench.fake.faults.delay("patch", 0.2)
    objects = [bench.add(f"w{number}") for number in range(12)]
    for obj in objects:
        bench.writer.put(obj, {"state": "Running"})
    await until(lambda: bench.patches == 12)
    assert bench.writer.written == 0
    assert await bench.writer.drain(within_s=5)


async def test_a_status_changed_under_us_is_read_decided_again_and_written_on_top(bench: Bench) -> None:
    obj = bench.add()
    bench.fake.store.update(WIDGETS, A, lambda old: {**old, "spec": {"size": 9}})
    bench.writer.put(obj, {"state": "Running"})
    assert await bench.writer.drain(within_s=5)
    assert bench.there() == {"state": "Running"}
    assert bench.conflicts == [A]
    assert (bench.cache.get(A) or {})["spec"] == {"size": 9}


async def test_a_successor_of_the_same_name_does_not_get_its_predecessors_status(bench: Bench) -> None:
    obj = bench.add()
    bench.fake.store.delete(WIDGETS, A)
    bench.fake.store.create(WIDGETS, {"metadata": {"namespace": "default", "name": "a"}, "spec": {"size": 1}})
    bench.writer.put(obj, {"state": "Failed"})
    assert await bench.writer.drain(within_s=5)
    assert bench.there() == {}


async def test_a_deleted_object_is_let_go(bench: Bench) -> None:
    obj = bench.add()
    bench.fake.store.delete(WIDGETS, A)
    bench.writer.put(obj, {"state": "Failed"})
    assert await bench.writer.drain(within_s=5)
    bench.cache.remove(A)
    bench.writer.put(obj, {"state": "Failed"})
    assert await bench.writer.drain(within_s=5)


async def test_a_server_in_trouble_gets_the_latest_wish_later(bench: Bench) -> None:
    obj = bench.add()
    bench.fake.faults.fail("patch", "widgets/status", 500, times=2)
    bench.writer.put(obj, {"state": "Starting"})
    await until(lambda: bench.patches == 1)
    bench.writer.put(obj, {"state": "Running"})
    assert await bench.writer.drain(within_s=5)
    assert bench.there() == {"state": "Running"}


async def test_a_status_the_server_refuses_is_logged_and_not_sent_for_ever(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    obj = bench.add()
    bench.fake.store.register(WIDGETS, validate=lambda old, _: [("status.state", "Unsupported value")] if old else [])
    bench.writer.put(obj, {"state": "Nonsense"})
    assert await bench.writer.drain(within_s=5)
    assert bench.patches == 1
    assert "status refused" in caplog.text


async def test_what_is_not_written_in_time_is_said(bench: Bench) -> None:
    obj = bench.add()
    bench.fake.faults.delay("patch", 5)
    bench.writer.put(obj, {"state": "Running"})
    assert not await bench.writer.drain(within_s=0.1)
    assert bench.writer.waiting == 1
