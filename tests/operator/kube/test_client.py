"""The client: lanes, patience, identity, and errors that say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from moorage_operator.errors import (
    AlreadyExists,
    ApiError,
    ApiUnavailable,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    TooManyRequests,
    Unauthorized,
)
from moorage_operator.kube.answer import error_of, retry_after_s, status_error
from moorage_operator.kube.client import MANAGER, KubeApi
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.object import Key, Obj
from moorage_operator.kube.resource import CONFIG_MAPS, NODES, TASKS, Resource
from moorage_operator.kube.transport import Call

from tests.operator.fakeapi import FakeApi
from tests.operator.kube.clock import ManualClock, settle
from tests.operator.kube.waiting import until
from tests.operator.kube.widgets import WIDGETS


@pytest.fixture
async def api(fake: FakeApi) -> AsyncIterator[KubeApi]:
    async with KubeApi(fake.credentials, clock=SystemClock(), timeout_s=0.3) as api:
        yield api


def widget(name: str = "a") -> Obj:
    return {"metadata": {"namespace": "default", "name": name}, "spec": {"size": 1}}


A = Key("default", "a")


# --- where things are


@pytest.mark.parametrize(
    ("resource", "arguments", "expected"),
    [
        (TASKS, (), "/apis/moorage.dev/v1alpha1/swarmtasks"),
        (TASKS, ("shop",), "/apis/moorage.dev/v1alpha1/namespaces/shop/swarmtasks"),
        (TASKS, ("shop", "web-1-x", "status"), "/apis/moorage.dev/v1alpha1/namespaces/shop/swarmtasks/web-1-x/status"),
        (NODES, ("", "n1"), "/apis/moorage.dev/v1alpha1/swarmnodes/n1"),
        (CONFIG_MAPS, ("shop", "c"), "/api/v1/namespaces/shop/configmaps/c"),
        (CONFIG_MAPS, ("../kube-system", "a/b?c"), "/api/v1/namespaces/..%2Fkube-system/configmaps/a%2Fb%3Fc"),
    ],
)
def test_paths(resource: Resource, arguments: tuple[str, ...], expected: str) -> None:
    assert resource.path(*arguments) == expected


# --- what answers mean


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (400, "BadRequest", Invalid),
        (401, "Unauthorized", Unauthorized),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (410, "Expired", Gone),
        (413, "RequestEntityTooLarge", Invalid),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", TooManyRequests),
        (500, "InternalError", ApiUnavailable),
        (503, "ServiceUnavailable", ApiUnavailable),
        (405, "MethodNotAllowed", ApiError),
    ],
)
def test_each_refusal_has_its_class(code: int, reason: str, expected: type[ApiError]) -> None:
    body = b'{"kind":"Status","message":"because","reason":"' + reason.encode() + b'"}'
    error = error_of("create swarmtasks.moorage.dev shop/a", code, {}, body)
    assert type(error) is expected
    assert (error.status, error.reason) == (code, reason)
    assert str(error) == "cannot create swarmtasks.moorage.dev shop/a: because"


def test_a_version_the_server_has_not_reached_is_gone() -> None:
    status = {"code": 504, "reason": "Timeout", "details": {"causes": [{"reason": "ResourceVersionTooLarge"}]}}
    assert type(status_error("watch", status)) is Gone


def test_a_proxys_page_is_shown_shortened() -> None:
    error = error_of("list", 502, {}, b"<html>" + b"x" * 5000)
    assert type(error) is ApiUnavailable
    assert "502: <html>xxx" in str(error)
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("code", "headers", "expected"),
    [
        (429, {"Retry-After": "7"}, 7.0),
        (429, {}, 1.0),
        (503, {"Retry-After": "2"}, 2.0),
        (503, {}, None),
        (500, {"Retry-After": "2"}, None),
    ],
)
def test_only_what_was_not_carried_out_is_worth_sending_again(code: int, headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(code, headers) == expected


# --- patience


async def test_what_the_server_puts_off_is_sent_again_when_it_says_so(fake: FakeApi) -> None:
    clock = ManualClock()
    async with KubeApi(fake.credentials, clock=clock) as api:
        fake.faults.fail("create", "widgets", 429, retry_after_s=5)
        fake.faults.fail("create", "widgets", 503, retry_after_s=2)
        task = asyncio.create_task(api.create(WIDGETS, widget()))
        await until(lambda: fake.calls["create", "widgets"] == 1)
        await asyncio.sleep(0.05)
        await clock.advance(4.9)
        assert fake.calls["create", "widgets"] == 1
        await clock.advance(0.2)
        await until(lambda: fake.calls["create", "widgets"] == 2)
        await asyncio.sleep(0.05)
        await clock.advance(2)
        assert (await task)["metadata"]["name"] == "a"


async def test_a_server_that_never_has_time_is_reported(fake: FakeApi, api: KubeApi) -> None:
    fake.faults.fail("create", "widgets", 429, times=10, message="too many requests, please try again later")
    clock = ManualClock()
    async with KubeApi(fake.credentials, clock=clock) as patient:
        task = asyncio.create_task(patient.create(WIDGETS, widget()))
        for _ in range(50):
            await clock.advance(1)
            await asyncio.sleep(0.01)
        with pytest.raises(TooManyRequests) as refused:
            await task
    assert refused.value.retry_after_s == 1.0
    assert fake.calls["create", "widgets"] == 4


async def test_a_server_that_does_not_answer_is_unavailable(fake: FakeApi, api: KubeApi) -> None:
    fake.faults.delay("get", 5)
    with pytest.raises(ApiUnavailable, match=r"cannot get widgets.test.moorage.dev default/a: no answer within 0.3 s"):
        await api.get(WIDGETS, A)


async def test_a_server_that_is_not_there_is_unavailable(fake: FakeApi) -> None:
    await fake.stop()
    async with KubeApi(fake.credentials, clock=SystemClock()) as api:
        with pytest.raises(ApiUnavailable) as refused:
            await api.get(WIDGETS, A)
    assert refused.value.status == 0
    assert refused.value.__cause__ is not None


async def test_a_connection_cut_under_a_write_is_tried_once_more(fake: FakeApi, api: KubeApi) -> None:
    await api.list(CONFIG_MAPS)
    fake.faults.fail("create", "widgets", 0)
    assert (await api.create(WIDGETS, widget()))["metadata"]["name"] == "a"


async def test_a_write_whose_answer_was_cut_off_says_that_somebody_made_it(fake: FakeApi, api: KubeApi) -> None:
    fake.faults.fail("create", "widgets", 0, after=True)
    with pytest.raises(AlreadyExists):
        await api.create(WIDGETS, widget())


async def test_connections_cut_again_and_again_are_reported(fake: FakeApi, api: KubeApi) -> None:
    fake.faults.fail("create", "widgets", 0, times=5)
    with pytest.raises(ApiUnavailable):
        await api.create(WIDGETS, widget())


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n{", b"nonsense"]
)
async def test_what_no_api_server_says_is_unavailable(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as listener:
        address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with KubeApi(Credentials(address), clock=SystemClock()) as api:
            with pytest.raises(ApiUnavailable):
                await api.get(WIDGETS, A)


# --- identity


async def test_a_refused_token_is_renewed_once(fake: FakeApi) -> None:
    class Rotating:
        def __init__(self) -> None:
            self.asked: list[bool] = []

        async def authorization(self, *, refused: bool = False) -> str | None:
            self.asked.append(refused)
            return "Bearer new" if any(self.asked) else "Bearer old"

    fake.token = "new"
    identity = Rotating()
    async with KubeApi(Credentials(fake.url, identity), clock=SystemClock()) as api:
        await api.list(WIDGETS)
        fake.token = "unknown to us"
        with pytest.raises(Unauthorized):
            await api.list(WIDGETS)
    assert identity.asked.count(True) == 2


async def test_all_writes_have_one_field_manager(fake: FakeApi, api: KubeApi) -> None:
    await api.create(WIDGETS, widget())
    await api.patch(WIDGETS, A, {"spec": {"size": 2}})
    await api.patch_status(WIDGETS, A, {"seen": 1})
    obj = await api.apply(WIDGETS, {**widget(), "spec": {"other": 1}})
    assert {entry["manager"] for entry in obj["metadata"]["managedFields"]} == {MANAGER}


async def test_a_session_lent_to_another_client_is_let_in(fake: FakeApi) -> None:
    fake.token = "right"
    async with fake.credentials.session() as session, session.get(f"{fake.url}/api/v1/configmaps") as response:
        assert response.status == 200


# --- lanes


async def test_status_writes_do_not_wait_behind_creates(fake: FakeApi) -> None:
    async with KubeApi(fake.credentials, clock=SystemClock(), slots=2) as api:
        await api.create(WIDGETS, widget())
        fake.faults.delay("create", 0.5)
        creates = [asyncio.create_task(api.create(WIDGETS, widget(f"w{number}"))) for number in range(6)]
        await until(lambda: fake.calls["create", "widgets"] == 3)
        await asyncio.wait_for(api.patch_status(WIDGETS, A, {"seen": 1}), 0.4)
        assert not any(task.done() for task in creates)
        await asyncio.gather(*creates)


async def test_no_more_writes_in_flight_than_slots(fake: FakeApi) -> None:
    async with KubeApi(fake.credentials, clock=SystemClock(), slots=3) as api:
        fake.faults.delay("create", 0.1)
        tasks = [asyncio.create_task(api.create(WIDGETS, widget(f"w{number}"))) for number in range(6)]
        await asyncio.sleep(0.08)
        assert fake.calls["create", "widgets"] == 3
        await asyncio.gather(*tasks)


async def test_writes_keep_to_their_rate(fake: FakeApi) -> None:
    clock = ManualClock()
    async with KubeApi(fake.credentials, clock=clock, rate=5) as api:
        tasks = [asyncio.create_task(api.create(WIDGETS, widget(f"w{number}"))) for number in range(12)]
        await until(lambda: fake.calls["create", "widgets"] >= 5)
        await asyncio.sleep(0.05)
        assert fake.calls["create", "widgets"] == 5
        await clock.advance(1.01)
        await until(lambda: fake.calls["create", "widgets"] >= 10)
        await asyncio.sleep(0.05)
        assert fake.calls["create", "widgets"] == 10
        await clock.advance(1)
        await asyncio.gather(*tasks)


async def test_a_cancelled_call_gives_its_slot_back(fake: FakeApi) -> None:
    async with KubeApi(fake.credentials, clock=SystemClock(), slots=1) as api:
        fake.faults.delay("create", 30)
        task = asyncio.create_task(api.create(WIDGETS, widget()))
        await until(lambda: fake.calls["create", "widgets"] == 1)
        task.cancel()
        await settle()
        fake.faults.clear()
        await asyncio.wait_for(api.create(WIDGETS, widget("b")), 5)


# --- what metrics see


async def test_every_request_is_observed(fake: FakeApi) -> None:
    seen: list[Call] = []
    async with KubeApi(fake.credentials, clock=SystemClock(), observe=seen.append) as api:
        await api.create(WIDGETS, widget())
        with pytest.raises(AlreadyExists):
            await api.create(WIDGETS, widget())
        await api.list(WIDGETS)
    assert [(call.verb, call.resource, call.status) for call in seen] == [
        ("create", "widgets", 201),
        ("create", "widgets", 409),
        ("list", "widgets", 200),
    ]
    assert all(0 < call.seconds < 5 for call in seen)


async def test_a_large_object_comes_through_a_watch_whole(fake: FakeApi, api: KubeApi) -> None:
    version = (await api.list(WIDGETS)).version
    fake.store.create(WIDGETS, {**widget(), "spec": {"text": "x" * 1_200_000}})
    async for event in api.watch(WIDGETS, version=version, timeout_s=5):
        assert len(event.object["spec"]["text"]) == 1_200_000
        break
