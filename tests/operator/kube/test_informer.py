"""The informer: whatever happens between it and the server, the cache ends up equal to the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from moorage_operator.kube.backoff import Backoff
from moorage_operator.kube.cache import Cache, Change
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.informer import Informer, relist
from moorage_operator.kube.object import Key, Obj, version_of
from moorage_operator.kube.resource import SECRETS
from moorage_operator.kube.supervisor import Supervisor

from tests.operator.fakeapi import FakeApi
from tests.operator.kube.badge import Badge
from tests.operator.kube.conftest import Server
from tests.operator.kube.waiting import until
from tests.operator.kube.widgets import WIDGETS

QUICK = Backoff(base_s=0.01, cap_s=0.05)


@asynccontextmanager
async def informed(api: KubeApi, cache: Cache | None = None, **options: Any) -> AsyncIterator[tuple[Cache, Informer]]:
    cache = Cache(WIDGETS) if cache is None else cache
    informer = Informer(api, cache, clock=SystemClock(), random=Random(3), backoff=QUICK, **options)
    supervisor = Supervisor(clock=SystemClock(), random=Random(3), backoff=QUICK)
    supervisor.start("informer", informer.run)
    try:
        yield cache, informer
    finally:
        await supervisor.stop()
        assert supervisor.restarts["informer"] == 0, "an informer does not die of what a server does"


def widget(name: str, size: int = 1, namespace: str = "default") -> Obj:
    return {"metadata": {"namespace": namespace, "name": name}, "spec": {"size": size}}


@pytest.fixture
async def api(fake: FakeApi) -> AsyncIterator[KubeApi]:
    async with KubeApi(fake.credentials, clock=SystemClock()) as api:
        yield api


def add(fake: FakeApi, *names: str) -> None:
    for name in names:
        fake.store.create(WIDGETS, widget(name))


def change(fake: FakeApi, name: str, size: int) -> None:
    fake.store.update(WIDGETS, Key("default", name), lambda old: {**old, "spec": {"size": size}})


def delete(fake: FakeApi, name: str) -> None:
    fake.store.delete(WIDGETS, Key("default", name))


def same(fake: FakeApi, cache: Cache) -> Callable[[], bool]:
    def equal() -> bool:
        there = {key: version_of(obj) for key, obj in fake.store.of(WIDGETS).objects.items()}
        return there == {key: version_of(obj) for key in cache.keys() if (obj := cache.get(key)) is not None}  # noqa: SIM118

    return equal


# --- against both servers


async def test_the_cache_follows_the_server(server: Server) -> None:
    await server.api.create(WIDGETS, server.widget("before", size=1))
    async with informed(server.api, namespace=server.namespace) as (cache, informer):
        await asyncio.wait_for(informer.synced.wait(), 10)
        assert server.key("before") in cache
        await server.api.create(WIDGETS, server.widget("after", size=1))
        await server.api.patch(WIDGETS, server.key("before"), {"spec": {"size": 2}})
        await until(lambda: server.key("after") in cache and (cache.get(server.key("before")) or {})["spec"]["size"] == 2)
        await server.api.delete(WIDGETS, server.key("after"))
        await until(lambda: server.key("after") not in cache)
        assert "managedFields" not in (cache.get(server.key("before")) or {})["metadata"]


async def test_only_metadata_of_secrets_is_kept(server: Server) -> None:
    secret = {"metadata": {"namespace": server.namespace, "name": "s"}, "stringData": {"password": "x"}}
    async with informed(server.api, Cache(SECRETS), namespace=server.namespace, metadata_only=True) as (cache, _):
        await server.api.create(SECRETS, secret)
        await until(lambda: len(cache))
        (obj,) = cache.values()
        assert obj["metadata"]["name"] == "s"
        assert "data" not in obj


# --- gaps


async def test_a_deletion_in_a_gap_is_found(fake: FakeApi, api: KubeApi) -> None:
    add(fake, "a", "b", "c")
    async with informed(api) as (cache, informer):
        await until(lambda: len(cache) == 3)
        heard: list[Change] = []
        cache.subscribe(heard.append)
        fake.cut_watches()
        delete(fake, "a")
        delete(fake, "b")
        fake.forget_history()
        await until(same(fake, cache))
        assert sorted(change.key.name for change in heard if change.new is None) == ["a", "b"]
        fake.cut_watches()
        add(fake, "d")
        await until(same(fake, cache))
        assert informer.relists == 2


async def test_a_dropped_connection_is_continued_without_a_list(fake: FakeApi, api: KubeApi) -> None:
    add(fake, "a")
    async with informed(api) as (cache, informer):
        await until(lambda: len(cache) == 1)
        for number in range(3):
            fake.cut_watches()
            add(fake, f"n{number}")
            await until(same(fake, cache))
        assert informer.relists == 1


async def test_a_server_that_was_away_is_found_again(fake: FakeApi, api: KubeApi) -> None:
    add(fake, "a")
    async with informed(api) as (cache, informer):
        await until(lambda: len(cache) == 1)
        port = fake.port
        await fake.stop()
        delete(fake, "a")
        add(fake, "b")
        await until(lambda: informer.failures > 2)
        assert len(cache) == 1, "what was known stays known meanwhile"
        await fake.start(port)
        await until(same(fake, cache))


@pytest.mark.parametrize(("code", "message"), [(429, "storage is (re)initializing"), (500, "etcd is slow"), (403, "no"), (0, "cut")])
async def test_a_list_that_fails_is_tried_again(fake: FakeApi, api: KubeApi, code: int, message: str) -> None:
    add(fake, "a")
    fake.faults.fail("list", "widgets", code, times=3 if code == 429 else 6, message=message)
    async with informed(api) as (cache, informer):
        await until(informer.synced.is_set)
        assert len(cache) == 1


@pytest.mark.parametrize("code", [410, 429, 500, 0])
async def test_a_watch_that_is_refused_is_begun_again(fake: FakeApi, api: KubeApi, code: int) -> None:
    fake.faults.fail("watch", "widgets", code, times=3)
    async with informed(api) as (cache, _):
        await until(lambda: not fake.faults.failure("none", "none") and fake.calls["watch", "widgets"] > 3)
        add(fake, "a")
        await until(same(fake, cache))


async def test_a_list_that_expires_half_read_is_begun_anew(fake: FakeApi, api: KubeApi) -> None:
    for number in range(1200):
        add(fake, f"w{number:04}")
    cache = Cache(WIDGETS)
    pages_seen = 0

    def expire_once(change: Change) -> None:
        nonlocal pages_seen
        pages_seen += 1
        if pages_seen == 600:
            fake.forget_history()
            delete(fake, "w0001")

    cache.subscribe(expire_once)
    async with informed(api, cache) as (_, informer):
        await until(informer.synced.is_set)
        await until(same(fake, cache))
        assert len(cache) == 1199


async def test_an_event_that_never_came_is_made_up_by_the_slow_list(fake: FakeApi, api: KubeApi) -> None:
    add(fake, "a", "b")
    async with informed(api, relist_s=0.5) as (cache, _):
        await until(lambda: len(cache) == 2 and fake.calls["watch", "widgets"])
        fake.faults.drop_events(2)
        delete(fake, "a")
        change(fake, "b", 9)
        await until(same(fake, cache))


async def test_events_told_twice_are_heard_once(fake: FakeApi, api: KubeApi) -> None:
    async with informed(api) as (cache, _):
        await until(lambda: fake.calls["watch", "widgets"])
        heard: list[Change] = []
        cache.subscribe(heard.append)
        fake.faults.duplicate_events(3)
        add(fake, "a")
        change(fake, "a", 2)
        delete(fake, "a")
        add(fake, "end")
        await until(lambda: len(cache) == 1 and "end" in {key.name for key in cache.keys()})  # noqa: SIM118
        assert [(change.old is None, change.new is None) for change in heard[:3]] == [(True, False), (False, False), (False, True)]
        assert fake.faults.happened["duplicate"] == 3


async def test_the_answer_to_a_write_is_not_undone_by_an_older_event(fake: FakeApi, api: KubeApi) -> None:
    add(fake, "a")
    async with informed(api) as (cache, _):
        await until(lambda: len(cache) == 1)
        fake.faults.watch_delay_s = 0.2
        change(fake, "a", 2)
        cache.put(await api.patch(WIDGETS, Key("default", "a"), {"spec": {"size": 3}}))
        sizes: list[int] = []
        cache.subscribe(lambda change: sizes.append((change.new or {})["spec"]["size"]))
        await asyncio.sleep(0.6)
        assert sizes == []
        assert (cache.get(Key("default", "a")) or {})["spec"]["size"] == 3


async def test_a_restored_store_replaces_a_future_that_did_not_happen(fake: FakeApi, api: KubeApi) -> None:
    add(fake, "old", "kept")
    backup = fake.store.snapshot()
    async with informed(api) as (cache, _):
        await until(lambda: len(cache) == 2)
        change(fake, "kept", 5)
        add(fake, "future")
        delete(fake, "old")
        await until(same(fake, cache))
        port = fake.port
        await fake.stop()
        fake.store.restore(backup)
        await fake.start(port)
        await until(same(fake, cache))
        assert {key.name for key in cache.keys()} == {"old", "kept"}  # noqa: SIM118
        change(fake, "kept", 7)
        await until(same(fake, cache))


@pytest.mark.parametrize("undone", ["created", "changed", "deleted"])
async def test_a_restored_store_is_noticed_even_when_it_has_gone_on(fake: FakeApi, api: KubeApi, undone: str) -> None:
    add(fake, "a")
    backup = fake.store.snapshot()
    async with informed(api) as (cache, informer):
        await until(lambda: len(cache) == 1 and fake.calls["watch", "widgets"])
        {"created": lambda: add(fake, "b"), "changed": lambda: change(fake, "a", 2), "deleted": lambda: delete(fake, "a")}[undone]()
        await until(same(fake, cache))
        port = fake.port
        await fake.stop()
        fake.store.restore(backup)
        fake.store.version += 50
        await fake.start(port)
        await until(same(fake, cache))
        assert len(cache) == 1
        await asyncio.sleep(0.1)
        fake.cut_watches()
        add(fake, "end")
        await until(same(fake, cache))
        assert informer.relists == 2, "it is over with one list"


async def test_a_watch_nothing_comes_from_is_no_failure(fake: FakeApi, api: KubeApi) -> None:
    fake.bookmark_s = None
    async with informed(api, watch_s=1.0) as (_, informer):
        await until(lambda: fake.calls["watch", "widgets"] >= 3)
        assert (informer.failures, informer.relists) == (0, 1)
        assert informer.tried_s_ago < 2


async def test_an_informer_outlives_credentials_that_are_out_of_order_for_a_while(fake: FakeApi) -> None:
    badge = Badge()
    async with KubeApi(Credentials(fake.url, badge), clock=SystemClock()) as api, informed(api) as (cache, informer):
        await until(informer.synced.is_set)
        badge.broken = True
        fake.cut_watches()
        await until(lambda: informer.failures > 3)
        add(fake, "meanwhile")
        badge.broken = False
        await until(same(fake, cache))
        assert informer.relists == 1


async def test_a_server_that_ends_every_watch_at_once_is_not_asked_in_a_loop(fake: FakeApi, api: KubeApi) -> None:
    async with informed(api) as (_, informer):
        await until(informer.synced.is_set)
        end = asyncio.get_running_loop().time() + 0.5
        while asyncio.get_running_loop().time() < end:
            fake.cut_watches()
            await asyncio.sleep(0)
        assert fake.calls["watch", "widgets"] < 25


async def test_one_list_fills_a_cache_something_else_feeds(fake: FakeApi, api: KubeApi) -> None:
    add(fake, "a", "b")
    cache = Cache(WIDGETS)
    version = await relist(api, cache)
    delete(fake, "a")
    assert (len(cache), int(version) < fake.store.version) == (2, True)
    await relist(api, cache)
    assert same(fake, cache)()


@pytest.mark.parametrize("seed", range(8))
async def test_a_storm_of_changes_and_faults_ends_in_equality(fake: FakeApi, api: KubeApi, seed: int) -> None:
    dice = Random(seed)
    async with informed(api, relist_s=2.0) as (cache, _):
        for number in range(150):
            names = [key.name for key in fake.store.of(WIDGETS).objects]
            match dice.randrange(10):
                case 0 | 1 | 2 | 3:
                    add(fake, f"w{number}")
                case 4 | 5 if names:
                    change(fake, dice.choice(names), number)
                case 6 if names:
                    delete(fake, dice.choice(names))
                case 7:
                    fake.cut_watches()
                case 8:
                    fake.cut_watches()
                    fake.forget_history()
                case _:
                    fake.faults.fail(dice.choice(["list", "watch"]), "widgets", dice.choice([410, 500, 0]))
                    fake.faults.duplicate_events(dice.randrange(2))
                    fake.faults.drop_events(dice.randrange(2))
            await asyncio.sleep(dice.choice([0, 0, 0.001, 0.01]))
        fake.faults.clear()
        await until(same(fake, cache))
