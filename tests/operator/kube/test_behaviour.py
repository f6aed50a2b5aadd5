"""What we rely on an API server for. The same suite against the one in memory and a real one: this keeps the former honest."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import aclosing

import pytest
from moorage_operator.errors import AlreadyExists, ApiError, Conflict, Gone, Invalid, NotFound, Unauthorized
from moorage_operator.kube.client import KubeApi, WatchEvent
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.identity import bearer
from moorage_operator.kube.object import Obj, uid_of, version_of
from moorage_operator.kube.resource import CONFIG_MAPS, SECRETS, Resource

from tests.operator.kube.conftest import Server
from tests.operator.kube.widgets import WIDGETS


async def made(server: Server, name: str = "a", /, **spec: object) -> Obj:
    return await server.api.create(WIDGETS, server.widget(name, **(spec or {"size": 1})))


# --- creating


async def test_a_new_object_has_a_uid_a_version_a_generation_and_no_status(server: Server) -> None:
    obj = await server.api.create(WIDGETS, {**server.widget("a", size=1), "status": {"seen": 1}})
    assert uid_of(obj)
    assert version_of(obj) > 0
    assert obj["metadata"]["generation"] == 1
    assert "status" not in obj
    assert (obj["apiVersion"], obj["kind"]) == ("test.moorage.dev/v1", "Widget")


async def test_two_of_one_name_are_refused(server: Server) -> None:
    await made(server)
    with pytest.raises(AlreadyExists):
        await made(server)


async def test_a_name_can_be_left_to_the_server(server: Server) -> None:
    obj = await server.api.create(WIDGETS, {"metadata": {"namespace": server.namespace, "generateName": "w-"}, "spec": {}})
    assert obj["metadata"]["name"].startswith("w-")


async def test_nothing_is_made_in_a_namespace_that_is_not_there(server: Server) -> None:
    with pytest.raises(NotFound):
        await server.api.create(WIDGETS, {"metadata": {"namespace": "nowhere", "name": "a"}})


async def test_a_refusal_names_the_field(server: Server) -> None:
    with pytest.raises(Invalid) as refused:
        await made(server, size=2000)
    assert [cause.field for cause in refused.value.causes] == ["spec.size"]
    assert "less than or equal to 1000" in str(refused.value)


async def test_an_object_can_be_born_with_a_finalizer(server: Server) -> None:
    obj = server.widget("a")
    obj["metadata"]["finalizers"] = ["moorage.dev/task"]
    assert (await server.api.create(WIDGETS, obj))["metadata"]["finalizers"] == ["moorage.dev/task"]


async def test_kinds_without_a_wish_have_no_generation(server: Server) -> None:
    obj = await server.api.create(CONFIG_MAPS, {"metadata": {"namespace": server.namespace, "name": "c"}, "data": {"a": "1"}})
    assert "generation" not in obj["metadata"]


# --- changing


async def test_a_changed_wish_is_a_new_generation_a_changed_label_only_a_new_version(server: Server) -> None:
    first = await made(server)
    wished = await server.api.patch(WIDGETS, server.key("a"), {"spec": {"size": 2}})
    labelled = await server.api.patch(WIDGETS, server.key("a"), {"metadata": {"labels": {"team": "x"}}})
    assert [obj["metadata"]["generation"] for obj in (first, wished, labelled)] == [1, 2, 2]
    assert version_of(first) < version_of(wished) < version_of(labelled)


async def test_a_patch_that_changes_nothing_makes_no_version(server: Server) -> None:
    first = await made(server)
    again = await server.api.patch(WIDGETS, server.key("a"), {"spec": {"size": 1}})
    assert version_of(again) == version_of(first)


async def test_null_in_a_merge_patch_removes(server: Server) -> None:
    await made(server, size=1, color="red", nested={"a": 1, "b": 2})
    obj = await server.api.patch(WIDGETS, server.key("a"), {"spec": {"color": None, "nested": {"a": None}}})
    assert obj["spec"] == {"size": 1, "nested": {"b": 2}}


async def test_a_status_is_written_through_its_own_door_only(server: Server) -> None:
    first = await made(server)
    await server.api.patch(WIDGETS, server.key("a"), {"status": {"seen": 1}})
    obj = await server.api.patch(WIDGETS, server.key("a"), {"spec": {"size": 5}, "status": {"seen": 2}}, subresource="status")
    assert (obj["spec"], obj["status"], obj["metadata"]["generation"]) == ({"size": 1}, {"seen": 2}, 1)
    assert version_of(obj) > version_of(first)


async def test_a_status_patch_can_remove(server: Server) -> None:
    await made(server)
    await server.api.patch_status(WIDGETS, server.key("a"), {"state": "Running", "message": "x"})
    obj = await server.api.patch_status(WIDGETS, server.key("a"), {"message": None})
    assert obj["status"] == {"state": "Running"}


async def test_a_write_decided_on_an_older_version_is_a_conflict(server: Server) -> None:
    first = await made(server)
    await server.api.patch(WIDGETS, server.key("a"), {"spec": {"size": 2}})
    version = first["metadata"]["resourceVersion"]
    with pytest.raises(Conflict):
        await server.api.patch(WIDGETS, server.key("a"), {"metadata": {"resourceVersion": version}, "spec": {"size": 3}})
    with pytest.raises(Conflict):
        await server.api.patch_status(WIDGETS, server.key("a"), {"seen": 1}, version=version)


async def test_a_status_meant_for_the_predecessor_of_the_same_name_is_a_conflict(server: Server) -> None:
    first = await made(server)
    await server.api.delete(WIDGETS, server.key("a"))
    await made(server)
    with pytest.raises(Conflict):
        await server.api.patch_status(WIDGETS, server.key("a"), {"state": "Running"}, version=first["metadata"]["resourceVersion"])


async def test_a_foreign_uid_is_seen_in_a_patch_of_the_object_but_not_of_its_status(server: Server) -> None:
    await made(server)
    foreign = {"metadata": {"uid": "6f1c2d34-0000-4000-8000-000000000000"}}
    with pytest.raises(Invalid, match="immutable"):
        await server.api.patch(WIDGETS, server.key("a"), {**foreign, "spec": {"size": 2}})
    obj = await server.api.patch(WIDGETS, server.key("a"), {**foreign, "status": {"state": "Running"}}, subresource="status")
    assert obj["status"] == {"state": "Running"}


async def test_a_patch_of_what_is_not_there_is_not_found(server: Server) -> None:
    with pytest.raises(NotFound):
        await server.api.patch(WIDGETS, server.key("none"), {"spec": {"size": 1}})
    with pytest.raises(NotFound):
        await server.api.get(WIDGETS, server.key("none"))


async def test_a_json_patch_does_all_or_nothing(server: Server) -> None:
    await made(server, size=1, list=["a", "b"])
    obj = await server.api.json_patch(
        WIDGETS,
        server.key("a"),
        [
            {"op": "test", "path": "/spec/size", "value": 1},
            {"op": "replace", "path": "/spec/size", "value": 2},
            {"op": "add", "path": "/spec/list/-", "value": "c"},
            {"op": "remove", "path": "/spec/list/0"},
        ],
    )
    assert obj["spec"] == {"size": 2, "list": ["b", "c"]}
    with pytest.raises(Invalid):
        await server.api.json_patch(
            WIDGETS,
            server.key("a"),
            [{"op": "replace", "path": "/spec/size", "value": 9}, {"op": "test", "path": "/spec/size", "value": 1}],
        )
    assert (await server.api.get(WIDGETS, server.key("a")))["spec"]["size"] == 2


# --- server-side apply


async def test_apply_makes_changes_and_removes_what_it_no_longer_says(server: Server) -> None:
    first = await server.api.apply(WIDGETS, server.widget("a", size=1, color="red"))
    second = await server.api.apply(WIDGETS, server.widget("a", size=2))
    assert (first["spec"], second["spec"]) == ({"size": 1, "color": "red"}, {"size": 2})
    assert uid_of(first) == uid_of(second)


async def test_apply_leaves_what_others_set(server: Server) -> None:
    await made(server, size=1, color="red")
    obj = await server.api.apply(WIDGETS, server.widget("a", other=1))
    assert obj["spec"] == {"size": 1, "color": "red", "other": 1}


async def test_apply_without_force_does_not_take_a_field_from_another(server: Server) -> None:
    await made(server, size=1)
    with pytest.raises(Conflict):
        await server.api.apply(WIDGETS, server.widget("a", size=2), force=False)
    assert (await server.api.apply(WIDGETS, server.widget("a", size=2)))["spec"]["size"] == 2


async def test_apply_writes_a_status(server: Server) -> None:
    await made(server)
    wish = {"metadata": server.widget("a")["metadata"], "status": {"state": "Running"}}
    obj = await server.api.apply(WIDGETS, wish, subresource="status")
    assert (obj["spec"], obj["status"]) == ({"size": 1}, {"state": "Running"})


# --- deleting


async def test_what_is_deleted_is_gone_and_deleting_it_again_is_no_error(server: Server) -> None:
    await made(server)
    assert await server.api.delete(WIDGETS, server.key("a")) is None
    assert await server.api.delete(WIDGETS, server.key("a")) is None


async def test_a_finalizer_holds_a_deleted_object_until_it_is_released(server: Server) -> None:
    obj = server.widget("a")
    obj["metadata"]["finalizers"] = ["moorage.dev/task"]
    first = await server.api.create(WIDGETS, obj)
    held = await server.api.delete(WIDGETS, server.key("a"))
    assert held is not None
    assert held["metadata"]["deletionTimestamp"]
    assert held["metadata"]["generation"] == 2
    assert version_of(held) > version_of(first)
    again = await server.api.delete(WIDGETS, server.key("a"))
    assert again is not None
    await server.api.json_patch(WIDGETS, server.key("a"), [{"op": "remove", "path": "/metadata/finalizers"}])
    with pytest.raises(NotFound):
        await server.api.get(WIDGETS, server.key("a"))


async def test_no_finalizer_is_added_to_a_dying_object(server: Server) -> None:
    obj = server.widget("a")
    obj["metadata"]["finalizers"] = ["moorage.dev/one"]
    await server.api.create(WIDGETS, obj)
    await server.api.delete(WIDGETS, server.key("a"))
    with pytest.raises(Invalid):
        await server.api.patch(WIDGETS, server.key("a"), {"metadata": {"finalizers": ["moorage.dev/one", "moorage.dev/two"]}})
    await server.api.patch(WIDGETS, server.key("a"), {"metadata": {"finalizers": None}})


async def test_a_deletion_can_be_meant_for_one_uid_or_version_only(server: Server) -> None:
    first = await made(server)
    with pytest.raises(Conflict):
        await server.api.delete(WIDGETS, server.key("a"), uid="6f1c2d34-0000-4000-8000-000000000000")
    await server.api.patch(WIDGETS, server.key("a"), {"spec": {"size": 2}})
    with pytest.raises(Conflict):
        await server.api.delete(WIDGETS, server.key("a"), version=first["metadata"]["resourceVersion"])
    assert await server.api.delete(WIDGETS, server.key("a"), uid=uid_of(first)) is None


async def test_a_selection_is_deleted_at_once(server: Server) -> None:
    for number in range(4):
        obj = server.widget(f"w{number}")
        obj["metadata"]["labels"] = {"parity": "even" if number % 2 == 0 else "odd"}
        await server.api.create(WIDGETS, obj)
    await server.api.delete_collection(WIDGETS, namespace=server.namespace, labels="parity=odd")
    left = await server.api.list(WIDGETS, namespace=server.namespace)
    assert [obj["metadata"]["name"] for obj in left.items] == ["w0", "w2"]


async def test_what_a_deleted_object_owned_goes_with_it(server: Server) -> None:
    # Of a kind the garbage collector knows already: it looks for new ones every 30 s only.
    owner = await server.api.create(CONFIG_MAPS, {"metadata": {"namespace": server.namespace, "name": "owner"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid_of(owner), "controller": True}
    owned = {"metadata": {"namespace": server.namespace, "name": "owned", "ownerReferences": [reference]}}
    await server.api.create(CONFIG_MAPS, owned)
    await server.api.delete(CONFIG_MAPS, server.key("owner"))
    async with asyncio.timeout(20):
        while await _there(server, "owned"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def _there(server: Server, name: str) -> bool:
    return bool((await server.api.list(CONFIG_MAPS, namespace=server.namespace, fields=f"metadata.name={name}")).items)


# --- reading


async def test_a_list_read_in_pages_is_of_one_moment(server: Server) -> None:
    for number in range(7):
        await made(server, f"w{number}")
    versions, names = set(), []
    async with aclosing(server.api.pages(WIDGETS, limit=3, namespace=server.namespace)) as pages:
        async for page in pages:
            versions.add(page.version)
            names += [obj["metadata"]["name"] for obj in page.items]
            await server.api.delete(WIDGETS, server.key("w6"))
    assert (len(versions), names) == (1, [f"w{number}" for number in range(7)])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("color=red", ["r"]),
        ("color==red", ["r"]),
        ("color!=red", ["b", "n"]),
        ("color in (red, blue)", ["b", "r"]),
        ("color notin (red)", ["b", "n"]),
        ("color", ["b", "r"]),
        ("!color", ["n"]),
        ("color,color!=red", ["b"]),
    ],
)
async def test_label_selectors(server: Server, labels: str, expected: list[str]) -> None:
    for name, color in (("r", "red"), ("b", "blue"), ("n", "")):
        obj = server.widget(name)
        obj["metadata"]["labels"] = {"color": color} if color else {}
        await server.api.create(WIDGETS, obj)
    found = await server.api.list(WIDGETS, namespace=server.namespace, labels=labels)
    assert [obj["metadata"]["name"] for obj in found.items] == expected


async def test_field_selectors(server: Server) -> None:
    await made(server, "r", color="red")
    await made(server, "b", color="blue")

    async def names(fields: str) -> list[str]:
        return [obj["metadata"]["name"] for obj in (await server.api.list(WIDGETS, namespace=server.namespace, fields=fields)).items]

    assert await names("metadata.name=r") == ["r"]
    assert await names("spec.color=blue") == ["b"]
    assert await names("spec.color!=blue") == ["r"]
    with pytest.raises(Invalid):
        await names("spec.size=1")


async def test_metadata_alone_has_no_data(server: Server) -> None:
    name = server.key("s")
    secret = {"metadata": {"namespace": name.namespace, "name": name.name}, "stringData": {"password": "x"}}
    await server.api.create(SECRETS, secret)
    obj = await server.api.get(SECRETS, name, metadata_only=True)
    listed = await server.api.list(SECRETS, namespace=server.namespace, metadata_only=True)
    assert obj["kind"] == "PartialObjectMetadata"
    for shown in (obj, *listed.items):
        assert shown["metadata"]["name"] == "s"
        assert "data" not in shown


async def test_a_kind_that_is_not_there_is_not_found(server: Server) -> None:
    with pytest.raises(NotFound):
        await server.api.list(Resource("nothing.moorage.dev", "v1", "things", "Thing"))


async def test_unknown_credentials_are_unauthorized(server: Server) -> None:
    if server.fake is not None:
        server.fake.token = "right"
    # Without our certificate and without a look at the server's: the token is to be what decides.
    tls = ssl._create_unverified_context() if server.fake is None else None
    credentials = Credentials(server.credentials.server, bearer("wrong"), tls)
    async with KubeApi(credentials, clock=SystemClock()) as stranger:
        with pytest.raises(Unauthorized):
            await stranger.list(WIDGETS)
    if server.fake is not None:
        server.fake.token = ""


# --- watching


async def heard(server: Server, version: str, count: int, *, labels: str = "", metadata_only: bool = False) -> list[WatchEvent]:
    found: list[WatchEvent] = []
    watch = server.api.watch(WIDGETS, version=version, timeout_s=20, namespace=server.namespace, labels=labels, metadata_only=metadata_only)
    async with asyncio.timeout(20), aclosing(watch) as events:
        async for event in events:
            if event.type != "BOOKMARK":
                found.append(event)
            if len(found) == count:
                break
    return found


async def test_a_watch_tells_what_happened_since_a_list_and_what_happens(server: Server) -> None:
    version = (await server.api.list(WIDGETS, namespace=server.namespace)).version
    await made(server)
    task = asyncio.create_task(heard(server, version, 4))
    await server.api.patch(WIDGETS, server.key("a"), {"spec": {"size": 2}})
    await server.api.patch_status(WIDGETS, server.key("a"), {"seen": 1})
    await server.api.delete(WIDGETS, server.key("a"))
    events = await task
    versions = [version_of(event.object) for event in events]
    assert [event.type for event in events] == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]
    assert versions == sorted(set(versions)), "a deletion has a version of its own"
    assert events[-1].object["spec"] == {"size": 2}


async def test_of_a_selection_what_enters_is_added_and_what_leaves_is_deleted(server: Server) -> None:
    first = await made(server)
    for team in ("x", "y", "x"):
        await server.api.patch(WIDGETS, server.key("a"), {"metadata": {"labels": {"team": team}}})
    events = await heard(server, first["metadata"]["resourceVersion"], 3, labels="team=x")
    assert [event.type for event in events] == ["ADDED", "DELETED", "ADDED"]
    assert version_of(events[0].object) < version_of(events[1].object) < version_of(events[2].object)


async def test_a_dying_object_is_first_modified_and_then_deleted(server: Server) -> None:
    obj = server.widget("a")
    obj["metadata"]["finalizers"] = ["moorage.dev/task"]
    first = await server.api.create(WIDGETS, obj)
    await server.api.delete(WIDGETS, server.key("a"))
    await server.api.patch(WIDGETS, server.key("a"), {"metadata": {"finalizers": None}})
    events = await heard(server, first["metadata"]["resourceVersion"], 2)
    assert [event.type for event in events] == ["MODIFIED", "DELETED"]


async def test_a_watch_of_metadata_has_nothing_else(server: Server) -> None:
    version = (await server.api.list(WIDGETS, namespace=server.namespace)).version
    await made(server)
    (event,) = await heard(server, version, 1, metadata_only=True)
    assert event.object["metadata"]["name"] == "a"
    assert "spec" not in event.object


async def test_a_watch_ends_quietly(server: Server) -> None:
    version = (await server.api.list(WIDGETS, namespace=server.namespace)).version
    events = [event async for event in server.api.watch(WIDGETS, version=version, timeout_s=2, namespace=server.namespace)]
    assert {event.type for event in events} <= {"BOOKMARK"}


async def test_a_watch_nothing_comes_from_is_given_up(server: Server) -> None:
    version = (await server.api.list(WIDGETS, namespace=server.namespace)).version
    if server.fake is not None:
        server.fake.bookmark_s = None
    async with asyncio.timeout(10):
        watch = server.api.watch(WIDGETS, version=version, timeout_s=60, inactivity_s=0.5, namespace=server.namespace)
        assert [event async for event in watch] == []


async def test_a_version_from_too_long_ago_is_gone(server: Server) -> None:
    with pytest.raises(Gone):
        await heard(server, "1", 1)


async def test_a_version_from_the_future_is_met_with_silence(server: Server) -> None:
    version = int((await server.api.list(WIDGETS, namespace=server.namespace)).version)
    task = asyncio.create_task(heard(server, str(version + 1_000_000), 1))
    await asyncio.sleep(0.2)
    await made(server)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task, 1)


async def test_a_watch_of_what_is_not_there_is_an_error(server: Server) -> None:
    with pytest.raises(ApiError):
        async for _ in server.api.watch(Resource("nothing.moorage.dev", "v1", "things", "Thing"), version="1", timeout_s=2):
            pass
