"""The cache: what is newer, what is gone, and who hears of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage_operator.kube.cache import REMEMBERED_DEATHS, Cache, Change
from moorage_operator.kube.object import LAST_APPLIED, Key, Obj
from moorage_operator.kube.resource import TASKS

A = Key("shop", "a")


def task(name: str = "a", version: int | str = 1, *, uid: str = "", node: str = "n1", **metadata: Any) -> Obj:
    return {
        "metadata": {"namespace": "shop", "name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version), **metadata},
        "spec": {"nodeName": node},
    }


@pytest.fixture
def cache() -> Cache:
    return Cache(TASKS, indexes={"node": lambda obj: [obj["spec"]["nodeName"]]})


def test_what_was_put_is_found_by_key_by_uid_and_by_index(cache: Cache) -> None:
    cache.put(task())
    found = cache.get(A)
    assert found is not None
    assert cache.by_uid("uid-a") is found
    assert cache.by("node", "n1") == [found]
    assert (len(cache), cache.keys(), A in cache) == (1, [A], True)


def test_an_older_object_never_replaces_a_newer_one(cache: Cache) -> None:
    assert cache.put(task(version=7, node="new"))
    assert not cache.put(task(version=5, node="old"))
    assert [obj["spec"]["nodeName"] for obj in cache.values()] == ["new"]


def test_versions_are_numbers_not_texts(cache: Cache) -> None:
    cache.put(task(version=10))
    assert not cache.put(task(version=9))


def test_of_versions_that_are_no_numbers_the_later_arrival_wins(cache: Cache) -> None:
    cache.put(task(version="opaque-b"))
    assert cache.put(task(version="opaque-a", node="n2"))
    assert cache.count("node", "n2") == 1


def test_an_object_that_moves_leaves_its_old_index(cache: Cache) -> None:
    cache.put(task(version=1, node="n1"))
    cache.put(task(version=2, node="n2"))
    assert (cache.by("node", "n1"), cache.count("node", "n2")) == ([], 1)


def test_an_unknown_index_is_an_error_and_not_an_empty_answer(cache: Cache) -> None:
    with pytest.raises(KeyError):
        cache.by("colour", "red")


def test_a_late_answer_does_not_revive_a_deleted_object(cache: Cache) -> None:
    cache.put(task(version=1))
    cache.remove(A, uid="uid-a", version=4)
    assert not cache.put(task(version=3))
    assert len(cache) == 0


def test_a_late_answer_does_not_bring_in_an_object_that_was_never_seen_alive(cache: Cache) -> None:
    cache.remove(A, uid="uid-a")
    assert not cache.put(task(version=3))


def test_a_successor_of_the_same_name_is_another_object(cache: Cache) -> None:
    cache.put(task(version=1))
    cache.remove(A, uid="uid-a", version=2)
    assert cache.put(task(version=3, uid="second"))
    assert not cache.remove(A, uid="uid-a")
    assert cache.by_uid("second") is not None


def test_an_object_that_came_back_into_the_selection_is_taken(cache: Cache) -> None:
    cache.put(task(version=1))
    cache.remove(A, uid="uid-a", version=2)
    assert cache.put(task(version=5))


def test_a_removal_older_than_the_object_is_ignored(cache: Cache) -> None:
    cache.put(task(version=6))
    assert not cache.remove(A, uid="uid-a", version=5)
    assert len(cache) == 1


def test_a_replaced_object_of_another_uid_does_not_come_back(cache: Cache) -> None:
    cache.put(task(version=1))
    cache.put(task(version=5, uid="second"))
    assert cache.by_uid("uid-a") is None
    assert not cache.put(task(version=9))


def test_what_nobody_reads_is_stripped(cache: Cache) -> None:
    cache.put(task(managedFields=[{"manager": "kubectl"}], annotations={LAST_APPLIED: "{}", "team": "a"}))
    found = cache.get(A)
    assert found is not None
    assert found["metadata"].get("managedFields") is None
    assert found["metadata"]["annotations"] == {"team": "a"}


def test_listeners_hear_old_and_new(cache: Cache) -> None:
    heard: list[Change] = []
    end = cache.subscribe(heard.append)
    first, second = task(version=1), task(version=2)
    cache.put(first)
    cache.put(second)
    cache.put(task(version=2))
    cache.remove(A)
    end()
    cache.put(task("b"))
    assert heard == [Change(A, None, first), Change(A, first, second), Change(A, second, None)]


def test_a_listener_that_fails_does_not_keep_the_others_from_hearing(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Key] = []
    cache.subscribe(lambda _: 1 / 0)
    cache.subscribe(lambda change: heard.append(change.key))
    cache.put(task())
    assert heard == [A]
    assert "ZeroDivisionError" in caplog.text


def test_a_list_finds_the_deletions_nobody_told_of(cache: Cache) -> None:
    for name in "abc":
        cache.put(task(name, 1))
    heard: list[Change] = []
    cache.subscribe(heard.append)
    comparison = cache.relist()
    comparison.page([task("b", 1)], "9")
    assert sorted(comparison.done("9")) == [Key("shop", "a"), Key("shop", "c")]
    assert [(change.key.name, change.new) for change in heard] == [("a", None), ("c", None)]
    assert not cache.put(task("a", 8)), "its last version is older than the list that lacks it"


def test_a_list_keeps_what_was_written_after_it_was_made(cache: Cache) -> None:
    comparison = cache.relist()
    cache.put(task("new", 12))
    comparison.page([task("a", 3)], "10")
    assert comparison.done("10") == []
    assert {obj["metadata"]["name"] for obj in cache.values()} == {"a", "new"}


def test_a_list_from_a_restored_store_replaces_the_future_that_did_not_happen(cache: Cache) -> None:
    cache.put(task("a", 900, node="new"))
    cache.put(task("b", 901))
    cache.put(task("c", 902))
    cache.remove(Key("shop", "c"), uid="uid-c", version=903)
    comparison = cache.relist()
    comparison.page([task("a", 300, node="old"), task("c", 200)], "500")
    comparison.done("500")
    assert {(obj["metadata"]["name"], obj["spec"]["nodeName"]) for obj in cache.values()} == {("a", "old"), ("c", "n1")}
    assert cache.put(task("a", 501, node="newer"))


def test_a_list_is_right_about_its_past_even_when_the_store_was_restored_and_went_on(cache: Cache) -> None:
    """etcd restored with its revision bumped, or writes by others since: the list is newer than all we saw, its objects are not."""
    cache.put(task("a", 900, node="future"))
    cache.put(task("b", 901))
    cache.remove(Key("shop", "b"), uid="uid-b", version=902)
    comparison = cache.relist()
    comparison.page([task("a", 300, node="past"), task("b", 301)], "1000000")
    comparison.done("1000000")
    assert cache.count("node", "past") == 1
    assert cache.by_uid("uid-b") is not None


def test_an_answer_newer_than_the_list_is_kept_and_a_deletion_since_is_not_undone(cache: Cache) -> None:
    comparison = cache.relist()
    cache.put(task("a", 20, node="new"))
    cache.remove(Key("shop", "b"), uid="uid-b")
    comparison.page([task("a", 3, node="old"), task("b", 4)], "10")
    comparison.done("10")
    assert [(obj["metadata"]["name"], obj["spec"]["nodeName"]) for obj in cache.values()] == [("a", "new")]


def test_deaths_are_forgotten_in_the_end() -> None:
    cache = Cache(TASKS)
    for number in range(REMEMBERED_DEATHS + 10):
        cache.remove(Key("shop", str(number)), uid=str(number))
    assert len(cache._dead) == REMEMBERED_DEATHS


Write = tuple[str, int, bool]


@given(st.permutations([("a", version, version in (4, 8)) for version in range(1, 9)]), st.data())
def test_whatever_the_order_of_arrival_the_end_is_the_same(writes: list[Write], data: st.DataObject) -> None:
    """Versions 1-4 are the life of one uid, 5-8 of its successor; 4 and 8 are their deletions."""
    cache = Cache(TASKS, indexes={"node": lambda obj: [obj["spec"]["nodeName"]]})
    for name, version, deleted in [*writes, data.draw(st.sampled_from(writes))]:
        uid = "first" if version <= 4 else "second"
        if deleted:
            cache.remove(Key("shop", name), uid=uid, version=version)
        else:
            cache.put(task(name, version, uid=uid, node=f"n{version}"))
    assert len(cache) == 0
    assert all(not found for found in cache._indexes["node"].values())
