from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moorage_agent import contact, daemon, people, resolves, session
from moorage_agent.clock import clock_of
from moorage_agent.errors import MESSAGE_CHARACTERS, AgentError, ImageError
from moorage_agent.ownership import Binding
from moorage_agent.paths import Paths
from moorage_agent.protocol import (
    PROTOCOL,
    Container,
    DataFile,
    EnvVar,
    Healthcheck,
    ImageSource,
    ImageSpec,
    Mount,
    Restart,
    content_hash,
    to_wire,
)
from moorage_agent.runtime.launch import Bind, Launch, Tmpfs
from moorage_agent.runtime.runtime import Started
from moorage_agent.state import HostState, TaskStore
from moorage_agent.task_state import End, Record
from moorage_agent.values import ValueStore
from moorage_agent.volumes import make_volume, volume_keys

from tests.agent.fake_host import IMAGE, FakeImages, FakeRuntime, document, task, uid
from tests.agent.operator_end import BUSY, ENDLESS, SLOW_URL, TRICKLE, UNSPEAKABLE, FakeNode, OperatorEnd, fake_node
from tests.machine.waiting import eventually

KEY = "secret/default/db/password/0123456789abcdef"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[FakeNode]:
    async with fake_node(Paths(f"{tmp_path}/disk", f"{tmp_path}/run"), FakeImages(IMAGE)) as made:
        yield made


@pytest.fixture
async def operator(node: FakeNode) -> AsyncIterator[OperatorEnd]:
    made = await node.connect()
    await made.greet()
    yield made
    made.close()


# --- hello, ownership, fencing


async def test_the_agent_speaks_first_and_says_what_it_is(node: FakeNode) -> None:
    operator = await node.connect()
    hello = await operator.hear("hello")
    assert hello["protocol"] == PROTOCOL
    assert hello["facts"]["hostId"]
    assert "bound" not in hello


async def test_after_the_operators_hello_comes_a_full_report(operator: OperatorEnd) -> None:
    await operator.hear("report")
    assert operator.reports[0].full
    assert operator.reports[0].facts is not None


async def test_a_host_remembers_whom_it_obeys(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1), epoch=3, revision=5))
    second = await node.connect()
    hello = await second.hear("hello")
    assert hello["bound"] == {"swarmId": "swarm", "nodeUid": "node", "epoch": 3, "revision": 5}
    assert HostState(node.paths).binding() == Binding("swarm", "node", 3)


@pytest.mark.parametrize(
    ("claim", "code"),
    [
        ({"swarm": "other", "epoch": 9}, "OwnedByAnotherSwarm"),
        ({"node": "second"}, "DuplicateHost"),
        ({"epoch": 0}, "StaleEpoch"),
    ],
)
async def test_strangers_are_refused_and_the_owner_stays(node: FakeNode, operator: OperatorEnd, claim: dict[str, Any], code: str) -> None:
    await operator.push(document(task(1)))
    stranger = await node.connect()
    await stranger.greet(**claim)
    refused = await stranger.hear("refused")
    assert (refused["code"], refused["epoch"]) == (code, 1)
    assert await stranger.closed()
    assert (await operator.push(document(task(1), revision=2)))["type"] == "accepted"


@pytest.mark.parametrize("claim", [{"swarm": "other", "epoch": 9}, {"node": "second"}, {"epoch": 0}, {"epoch": "none"}], ids=str)
async def test_of_a_session_whose_hello_was_not_accepted_nothing_else_is_heeded(
    node: FakeNode, operator: OperatorEnd, claim: dict[str, Any]
) -> None:
    await operator.push(document(task(1)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    stranger = await node.connect()
    await stranger.greet(**claim)
    for kind in ("uninstall", "observe", "retire"):
        stranger.send({"type": kind, "id": 1})
    assert (await stranger.hear("refused", "error"))["type"] in ("refused", "error")
    assert await stranger.closed()
    assert [frame["type"] for frame in stranger.frames] == []
    assert node.runtime.alive() == {uid(1)}
    assert (await operator.push(document(task(1), revision=2)))["type"] == "accepted"
    assert node.runtime.starts == [(uid(1), 1)]


async def test_a_session_that_was_replaced_uninstalls_nothing(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    second = await node.connect()
    await second.greet()
    operator.send({"type": "uninstall", "id": 1})
    await second.hear("report")
    assert await operator.closed()
    assert (await second.push(document(task(1), revision=2)))["type"] == "accepted"
    assert node.runtime.alive() == {uid(1)}


async def test_adopting_keeps_containers_until_the_new_owner_says_otherwise(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1), epoch=9, revision=40))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    heir = await node.connect()
    await heir.greet(swarm="other", node="theirs", epoch=1, adopt=True)
    await heir.hear("report")
    assert node.runtime.alive() == {uid(1)}
    assert (heir.reports[0].epoch, heir.reports[0].revision) == (1, 0)
    wish = dataclasses.replace(document(), swarm_id="other", node_uid="theirs", revision=1)
    assert (await heir.push(wish))["type"] == "accepted"
    await heir.until(lambda: uid(1) in heir.removed)
    assert node.runtime.alive() == set()


async def test_a_newer_session_replaces_the_older(node: FakeNode, operator: OperatorEnd) -> None:
    second = await node.connect()
    await second.greet()
    assert await operator.closed()
    assert (await second.push(document(task(1))))["type"] == "accepted"


async def test_an_old_document_is_refused_and_the_session_goes_on(operator: OperatorEnd) -> None:
    await operator.push(document(task(1), revision=5))
    refused = await operator.push(document(revision=4))
    assert refused["code"] == "StaleRevision"
    assert (await operator.push(document(task(1), revision=6)))["type"] == "accepted"


async def test_a_higher_epoch_in_a_document_fences_off_the_lower(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(epoch=7))
    stale = await node.connect()
    await stale.greet(epoch=6)
    assert (await stale.hear("refused"))["code"] == "StaleEpoch"


async def test_a_higher_epoch_is_obeyed_on_a_full_disk(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1)))
    with unwritable(node.paths.state, "binding.json", "document-a.json", "document-b.json"):
        second = await node.connect()
        await second.greet(epoch=5)
        await second.hear("report")
        assert (await second.push(document(epoch=5)))["type"] == "accepted"
        await second.until(lambda: uid(1) in second.removed)
        stale = await node.connect()
        await stale.greet(epoch=4)
        assert (await stale.hear("refused"))["code"] == "StaleEpoch"


async def test_an_epoch_that_a_full_disk_did_not_take_is_written_when_there_is_room(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1)))
    with unwritable(node.paths.state, "binding.json"):
        second = await node.connect()
        await second.greet(epoch=5)
        assert (await second.push(document(epoch=5)))["type"] == "accepted"
        assert HostState(node.paths).binding() == Binding("swarm", "node", 1)
    assert node.daemon is not None
    node.daemon.desk.save_again()
    assert HostState(node.paths).binding() == Binding("swarm", "node", 5)
    held = HostState(node.paths).document(Binding("swarm", "node", 5))
    assert held is not None
    assert held[0].epoch == 5


async def test_a_new_owner_is_obeyed_once_it_is_written(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1)))
    with unwritable(node.paths.state, "binding.json"):
        for _ in range(2):
            heir = await node.connect()
            await heir.greet(swarm="other", node="theirs", epoch=1, adopt=True)
            assert (await heir.hear("error", "report"))["code"] == "HostError"
            assert await heir.closed()
    heir = await node.connect()
    await heir.greet(swarm="other", node="theirs", epoch=1, adopt=True)
    await heir.hear("report")
    assert HostState(node.paths).binding() == Binding("other", "theirs", 1)
    held = HostState(node.paths).document(Binding("other", "theirs", 1))
    assert held is not None
    assert [one.uid for one in held[0].tasks] == [uid(1)]


async def test_accepted_carries_the_content_hash(operator: OperatorEnd) -> None:
    wish = document(task(1), task(2))
    accepted = await operator.push(wish)
    assert accepted == {"type": "accepted", "epoch": 1, "revision": 1, "hash": content_hash(wish)}


# --- frames


async def test_a_ping_is_answered(operator: OperatorEnd) -> None:
    operator.send({"type": "ping", "at": 12.5})
    assert await operator.hear("pong") == {"type": "pong", "at": 12.5}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "teleport"}, "UnknownMessage"),
        ({"type": "document"}, "Malformed"),
        ({"type": "document", "spec": {"tasks": [{"uid": "../../etc"}]}}, "Malformed"),
        ({"type": "value"}, "Malformed"),
        ({"type": "resolve", "source": {}}, "Malformed"),
    ],
)
async def test_a_frame_that_makes_no_sense_is_answered_by_name(operator: OperatorEnd, message: dict[str, Any], code: str) -> None:
    operator.send(message)
    assert (await operator.hear("error"))["code"] == code
    operator.send({"type": "ping", "at": 1})
    await operator.hear("pong")


async def test_bytes_that_are_no_frames_end_the_session_and_nothing_else(node: FakeNode, operator: OperatorEnd) -> None:
    operator.send_bytes(struct.pack(">II", 2**31, 0))
    assert await operator.closed()
    second = await node.connect()
    await second.greet()
    await second.hear("report")


async def test_an_operator_that_says_nothing_is_told_so_and_let_go(monkeypatch: pytest.MonkeyPatch, operator: OperatorEnd) -> None:
    monkeypatch.setattr(session, "SILENCE_S", 0.1)
    operator.send({"type": "ping", "at": 1})  # the wait that goes on began before
    error = await operator.hear("error")
    assert (error["code"], error["message"]) == ("Silence", "nothing heard from the operator for 0.1 s")
    with pytest.raises(EOFError):
        await operator.hear("error")


async def test_nothing_is_heeded_before_the_hello(node: FakeNode) -> None:
    operator = await node.connect()
    operator.send({"type": "document", "spec": {}})
    assert (await operator.hear("error"))["code"] == "ProtocolError"
    assert await operator.closed()


async def test_unknown_fields_of_a_newer_operator_are_ignored(node: FakeNode) -> None:
    operator = await node.connect()
    await operator.greet(mood="sunny")
    wish = document(task(1))
    operator.send({"type": "document", "spec": {**to_wire(wish), "weather": {"wind": 3}}})
    assert (await operator.hear("accepted"))["revision"] == 1


# --- work


async def test_tasks_start_and_every_change_is_told_at_once(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(*(task(number) for number in range(1, 51))))
    await operator.until(lambda: sum(report.state == "Running" for report in operator.tasks.values()) == 50)
    assert len(node.runtime.alive()) == 50
    node.runtime.end(uid(7), 3)
    await operator.until(lambda: operator.tasks[uid(7)].restarts == 1)
    assert operator.tasks[uid(7)].exit_code == 3


async def test_values_are_asked_for_by_key_and_never_twice(node: FakeNode, operator: OperatorEnd) -> None:
    file = DataFile("/run/secrets/password", KEY, secret=True)
    container = Container(command=("run",), env=(EnvVar("PASSWORD", key=KEY),), files=(file,))
    await operator.push(document(task(1, container=container), task(2, container=container)))
    assert (await operator.hear("need"))["keys"] == [KEY]
    await operator.until(lambda: operator.tasks[uid(1)].reason == "WaitingForSecrets")
    operator.send({"type": "value", "key": KEY, "error": {"code": "NotFound", "message": "Secret default/db has no key password"}})
    await operator.until(lambda: "has no key password" in operator.tasks[uid(2)].message)
    operator.send({"type": "value", "key": KEY}, b"hunter2")
    await operator.until(lambda: node.runtime.alive() == {uid(1), uid(2)})
    assert "PASSWORD=hunter2" in node.runtime.containers[uid(1)].launch.env
    assert all(frame["type"] != "need" for frame in operator.frames)


async def test_an_operator_that_comes_later_is_asked_for_what_is_missing(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1, container=Container(command=("run",), env=(EnvVar("A", key=KEY),)))))
    await operator.hear("need")
    second = await node.connect()
    await second.greet()
    assert (await second.hear("need"))["keys"] == [KEY]


async def test_secrets_stand_in_no_file_of_the_disk(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1, container=Container(command=("run",), env=(EnvVar("PASSWORD", key=KEY),)))))
    await operator.hear("need")
    operator.send({"type": "value", "key": KEY}, b"hunter2")
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    assert b"PASSWORD" in everything_below(node.paths.root)
    assert b"hunter2" not in everything_below(node.paths.root)


async def test_files_of_a_task_that_waits_or_starts_are_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "HOUSEKEEPING_S", 0.02)
    monkeypatch.setattr(daemon, "SWEEP_AGE_S", 0.0)  # as after a long wait, or when the clock was put forward
    node = FakeNode(Paths(f"{tmp_path}/disk", f"{tmp_path}/run"), FakeImages(IMAGE))
    found: list[bool] = []

    class SlowRuntime(FakeRuntime):
        async def start(self, launch: Launch, *, still: Callable[[], bool]) -> Started:
            if launch.mounts:
                await swept(node.paths)
                found.extend(map(is_there, launch.mounts))
            return await super().start(launch, still=still)

    node.runtime = SlowRuntime(clock_of(node.paths))
    node.start()
    operator = await node.connect()
    await operator.greet()
    container = Container(command=("run",), files=(DataFile("/run/secrets/password", KEY, secret=True),))
    waiting = task(2, container=container, replaces=uid(1), desired_state="Ready")
    await operator.push(document(task(1), waiting))
    await operator.hear("need")
    operator.send({"type": "value", "key": KEY}, b"hunter2")
    await operator.until(lambda: operator.tasks[uid(2)].state == "Ready")
    await swept(node.paths)
    await operator.push(document(task(1), dataclasses.replace(waiting, desired_state="Running"), revision=2))
    await operator.until(lambda: operator.tasks[uid(2)].state in ("Running", "Rejected"))
    assert found == [True]
    await swept(node.paths)
    assert os.listdir(f"{node.paths.secrets}/files") == [], "a container that runs has its file, whatever becomes of the name"
    await node.stop()


async def test_an_image_is_pulled_with_credentials_asked_for_first(node: FakeNode, operator: OperatorEnd) -> None:
    digest = "sha256:" + "b" * 64
    source = ImageSource("Registry", reference="private.example/app:1", credentials="pull/default/registry")
    await operator.push(document(dataclasses.replace(task(1), image=ImageSpec(digest, source))))
    assert (await operator.hear("need"))["keys"] == ["pull/default/registry"]
    operator.send({"type": "value", "key": "pull/default/registry"}, b"{}")
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    assert node.images.pulled == [digest]


async def test_a_failed_image_is_told_and_a_new_task_gets_a_new_try(node: FakeNode, operator: OperatorEnd) -> None:
    digest = "sha256:" + "b" * 64
    node.images.broken[digest] = ImageError("Unauthorized", "the registry answered 401; set imagePullSecret")
    await operator.push(document(task(1, digest=digest)))
    await operator.until(lambda: operator.tasks[uid(1)].state == "Rejected")
    assert operator.tasks[uid(1)].reason == "Unauthorized"
    node.images.broken.clear()
    await operator.push(document(task(2, digest=digest), revision=2))
    await operator.until(lambda: operator.tasks[uid(2)].state == "Running")


@pytest.mark.parametrize("said", ["of the type \ud800", "\x1b[2J", "x" * 40_000_000], ids=["no character", "for the terminal", "endless"])
async def test_what_a_hostile_image_makes_an_error_say_reaches_the_operator_as_short_plain_text(node: FakeNode, said: str) -> None:
    digest = "sha256:" + "b" * 64
    node.images.broken[digest] = ImageError("InvalidImage", f"a layer {said}")
    operator = await node.connect()
    await operator.greet()
    await operator.push(document(task(1, digest=digest)))
    await operator.until(lambda: operator.tasks[uid(1)].state == "Rejected")
    later = await node.connect()
    await later.greet()
    await later.until(lambda: later.tasks[uid(1)].state == "Rejected")
    message = later.tasks[uid(1)].message
    assert message.startswith("a layer ")
    assert message.isprintable()
    assert len(message) <= MESSAGE_CHARACTERS


async def test_a_record_of_an_earlier_agent_that_holds_such_a_text_does_not_keep_the_operator_away(node: FakeNode) -> None:
    end = End("Rejected", "InvalidImage", "\ud800" + "x" * 40_000_000)
    await node.stop()
    TaskStore(node.paths).save_record(uid(1), Record(end=end))
    node.start()
    operator = await node.connect()
    await operator.greet()
    await operator.until(lambda: operator.tasks[uid(1)].state == "Rejected")
    assert len(operator.tasks[uid(1)].message) <= MESSAGE_CHARACTERS


@pytest.mark.parametrize("reference", [UNSPEAKABLE, ENDLESS])
async def test_a_resolve_is_answered_whatever_the_image_says(operator: OperatorEnd, reference: str) -> None:
    operator.send({"type": "resolve", "id": 80, "source": {"kind": "Registry", "reference": reference}})
    assert (await operator.hear("resolved"))["id"] == 80


async def test_credentials_that_were_refused_are_asked_for_anew(node: FakeNode, operator: OperatorEnd) -> None:
    digest = "sha256:" + "b" * 64
    source = ImageSource("Registry", reference="private.example/app:1", credentials="pull/default/registry")
    node.images.broken[digest] = ImageError("Unauthorized", "401")
    await operator.push(document(dataclasses.replace(task(1), image=ImageSpec(digest, source))))
    await operator.hear("need")
    operator.send({"type": "value", "key": "pull/default/registry"}, b"old")
    await operator.until(lambda: operator.tasks[uid(1)].state == "Rejected")
    node.images.broken.clear()
    second = await node.connect()
    await second.greet()
    await second.push(document(dataclasses.replace(task(2), image=ImageSpec(digest, source)), revision=2))
    assert (await second.hear("need"))["keys"] == ["pull/default/registry"]
    second.send({"type": "value", "key": "pull/default/registry"}, b"new")
    await second.until(lambda: second.tasks[uid(2)].state == "Running")


async def test_a_password_corrected_under_its_key_ends_the_wait_for_the_next_try(node: FakeNode, operator: OperatorEnd) -> None:
    digest = "sha256:" + "b" * 64
    source = ImageSource("Registry", reference="private.example/app:1", credentials="pull/default/registry")
    node.images.broken[digest] = ImageError("Unauthorized", "401", 300.0)
    await operator.push(document(dataclasses.replace(task(1), image=ImageSpec(digest, source))))
    await operator.hear("need")
    operator.send({"type": "value", "key": "pull/default/registry"}, b"old")
    await operator.until(lambda: operator.tasks[uid(1)].reason == "Unauthorized")
    node.images.broken.clear()
    operator.send({"type": "value", "key": "pull/default/registry"}, b"new")
    await operator.until(lambda: operator.tasks[uid(1)].state == "Running")


async def test_a_source_whose_password_is_missing_does_not_hold_up_another_of_the_same_image(node: FakeNode, operator: OperatorEnd) -> None:
    digest = "sha256:" + "b" * 64
    closed = ImageSource("Registry", reference="private.example/app:1", credentials="pull/other/registry")
    opened = ImageSource("Registry", reference="open.example/app:1")
    await operator.push(document(*(dataclasses.replace(task(n), image=ImageSpec(digest, s)) for n, s in ((1, closed), (2, opened)))))
    await operator.until(lambda: operator.tasks[uid(2)].state == "Running")


async def test_a_resolve_uses_the_value_of_today(operator: OperatorEnd) -> None:
    source = {"kind": "Registry", "reference": "r.example/x:1", "credentials": "pull/default/registry"}
    for password in (b"old", b"new"):
        operator.send({"type": "resolve", "id": 1, "source": source})
        await operator.hear("need")
        operator.send({"type": "value", "key": "pull/default/registry"}, password)
        assert (await operator.hear("resolved"))["image"]["config"]["user"] == password.decode()


async def test_images_to_hold_are_pulled_without_a_task(node: FakeNode, operator: OperatorEnd) -> None:
    image = ImageSpec("sha256:" + "c" * 64, ImageSource("Registry", reference="r.example/x:1"))
    await operator.push(document(images=(image,)))
    await operator.until(
        lambda: any(one.state == "Ready" for report in operator.reports for one in report.images if one.digest == image.digest)
    )


async def test_resolve_is_answered_under_its_id(operator: OperatorEnd) -> None:
    source = {"kind": "Registry", "reference": "r.example/x:1", "credentials": "pull/default/registry"}
    operator.send({"type": "resolve", "id": 77, "source": source})
    assert (await operator.hear("need"))["keys"] == ["pull/default/registry"]
    operator.send({"type": "value", "key": "pull/default/registry"}, b"robot")
    resolved = await operator.hear("resolved")
    assert (resolved["id"], resolved["image"]["config"]["user"]) == (77, "robot")


async def test_a_resolve_without_its_credentials_says_why(operator: OperatorEnd) -> None:
    source = {"kind": "Registry", "reference": "r.example/x:1", "credentials": "pull/default/registry"}
    operator.send({"type": "resolve", "id": 78, "source": source})
    await operator.hear("need")
    operator.send(
        {"type": "value", "key": "pull/default/registry", "error": {"code": "NotFound", "message": "Secret default/registry is missing"}}
    )
    resolved = await operator.hear("resolved")
    assert resolved["error"]["message"] == "Secret default/registry is missing"


async def test_a_registry_that_asks_for_patience_is_passed_on(operator: OperatorEnd) -> None:
    operator.send({"type": "resolve", "id": 79, "source": {"kind": "Registry", "reference": BUSY}})
    assert (await operator.hear("resolved"))["error"] == {"code": "RateLimited", "message": "ask later", "retryAfterS": 70}


async def test_slow_servers_have_their_places_only_so_long(monkeypatch: pytest.MonkeyPatch, operator: OperatorEnd) -> None:
    monkeypatch.setattr(resolves, "REGISTRY_WITHIN_S", 0.3)
    for number in range(2 * resolves.IN_FLIGHT):
        operator.send({"type": "resolve", "id": number, "source": {"kind": "Registry", "reference": TRICKLE}})
    answers = [await operator.hear("resolved") for _ in range(2 * resolves.IN_FLIGHT)]
    assert {answer["error"]["message"] for answer in answers} == {f"what {TRICKLE} means could not be found out within 0.3 s"}
    operator.send({"type": "resolve", "id": 81, "source": {"kind": "Registry", "reference": "r.example/x:1"}})
    assert "image" in await operator.hear("resolved")


async def test_who_waits_for_a_place_has_all_the_time_once_it_is_free(monkeypatch: pytest.MonkeyPatch, operator: OperatorEnd) -> None:
    monkeypatch.setattr(resolves, "REGISTRY_WITHIN_S", 0.5)
    for number in range(resolves.IN_FLIGHT):
        operator.send({"type": "resolve", "id": number, "source": {"kind": "Registry", "reference": TRICKLE}})
    operator.send({"type": "resolve", "id": 81, "source": {"kind": "Registry", "reference": "r.example/x:1"}})
    answers = {answer["id"]: answer for answer in [await operator.hear("resolved") for _ in range(resolves.IN_FLIGHT + 1)]}
    assert "image" in answers[81]


async def test_archives_at_hand_wait_for_no_downloads(node: FakeNode, operator: OperatorEnd) -> None:
    for number in range(resolves.IN_FLIGHT):
        source = {"kind": "ArchiveUrl", "url": SLOW_URL, "sha256": f"{number:064x}"}
        operator.send({"type": "resolve", "id": number, "source": source})
    await asyncio.to_thread(eventually, "all of them come", lambda: node.downloads == resolves.IN_FLIGHT)
    operator.send({"type": "resolve", "id": 81, "source": {"kind": "ArchivePath", "path": "/srv/app.tar"}})
    try:
        answer = await operator.hear("resolved")
    finally:
        node.archive_is_here.set()
    assert (answer["id"], "image" in answer) == (81, True)


async def test_a_config_that_came_is_there_for_a_host_that_starts_again(node: FakeNode, operator: OperatorEnd) -> None:
    key = "config/default/app/app.ini/0123456789abcdef"
    operator.send({"type": "value", "key": key}, b"[app]")
    await asyncio.to_thread(eventually, "it is on the platter", lambda: ValueStore(node.paths).has(key))
    assert ValueStore(node.paths).get(key) == b"[app]"


async def test_nothing_is_resolved_for_an_operator_that_is_gone(node: FakeNode, operator: OperatorEnd) -> None:
    for number in range(resolves.IN_FLIGHT):
        operator.send({"type": "resolve", "id": number, "source": {"kind": "Registry", "reference": TRICKLE}})
    second = await node.connect()
    await second.greet()
    second.send({"type": "resolve", "id": 82, "source": {"kind": "Registry", "reference": "r.example/x:1"}})
    assert "image" in await second.hear("resolved")


async def test_a_download_that_outlasts_the_patience_of_one_who_asks_is_had_by_the_next(
    monkeypatch: pytest.MonkeyPatch, node: FakeNode, operator: OperatorEnd
) -> None:
    monkeypatch.setattr(resolves, "ANSWER_WITHIN_S", 0.1)
    ask = {"type": "resolve", "id": 83, "source": {"kind": "ArchiveUrl", "url": SLOW_URL}}
    operator.send(ask)
    assert (await operator.hear("resolved"))["error"]["code"] == "StillDownloading"
    second = await node.connect()
    await second.greet()
    second.send(ask)
    assert (await second.hear("resolved"))["error"]["code"] == "StillDownloading"
    node.archive_is_here.set()
    while "error" in (answer := await ask_again(second, ask)):
        assert answer["error"]["code"] == "StillDownloading"
    assert node.downloads == 1
    assert "image" in await ask_again(second, ask)
    assert node.downloads == 2, "what a source means is asked anew once it was told"


async def test_health_decides(node: FakeNode, operator: OperatorEnd) -> None:
    check = Healthcheck(exec=("check",), interval_s=0.05, retries=2)
    container = Container(command=("run",), healthcheck=check, restart=Restart(delay_s=30))
    node.runtime.healthy[uid(1)] = True
    await operator.push(document(task(1, container=container)))
    await operator.until(lambda: operator.tasks[uid(1)].state == "Running")
    assert operator.tasks[uid(1)].healthy is True
    node.runtime.healthy[uid(1)] = False
    await operator.until(lambda: operator.tasks[uid(1)].restarts == 1)
    assert operator.tasks[uid(1)].reason == "Unhealthy"


async def test_health_checks_that_hang_hold_up_no_other(node: FakeNode, operator: OperatorEnd) -> None:
    check = Healthcheck(exec=("check",), interval_s=0.01, timeout_s=600)
    stuck, well = (Container(command=(program,), healthcheck=check) for program in ("stuck", "run"))
    await operator.push(document(*(task(number, container=stuck) for number in range(1, 10))))
    await operator.until(lambda: len(node.runtime.alive()) == 9)
    await operator.push(document(*(task(number, container=stuck) for number in range(1, 10)), task(10, container=well), revision=2))
    await operator.until(lambda: operator.tasks[uid(10)].state == "Running")
    assert operator.tasks[uid(1)].state == "Starting"


async def test_a_singleton_stops_in_silence_and_starts_with_the_next_document_not_with_the_next_session(
    node: FakeNode, operator: OperatorEnd
) -> None:
    wish = document(task(1, stop_after_s=0.4), task(2))
    await operator.push(wish)
    await operator.until(lambda: len(node.runtime.alive()) == 2)
    await operator.until(lambda: operator.tasks[uid(1)].reason == "Disconnected")
    assert node.runtime.alive() == {uid(2)}
    second = await node.connect()
    await second.greet()
    second.send({"type": "ping", "at": 1})
    await second.hear("pong")
    await asyncio.sleep(0.1)
    assert node.runtime.alive() == {uid(2)}
    await second.push(wish)
    await second.until(lambda: second.tasks[uid(1)].state == "Running")


async def test_pings_keep_a_singleton_alive(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1, stop_after_s=0.5)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    for _ in range(10):
        operator.send({"type": "ping", "at": 1})
        await operator.hear("pong")
        await asyncio.sleep(0.1)
    assert node.runtime.starts == [(uid(1), 1)]


async def test_a_full_run_directory_does_not_cut_off_a_singleton(
    node: FakeNode, operator: OperatorEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact, "WRITE_EVERY_S", 0.1)
    boot_id = clock_of(node.paths)().boot_id.encode()
    with unwritable(node.paths.run, "heard"):
        assert (await operator.push(document(task(1, stop_after_s=0.5))))["type"] == "accepted"
        await operator.until(lambda: node.runtime.alive() == {uid(1)})
        for _ in range(10):
            await ping(operator)
            await asyncio.sleep(0.1)
        assert node.runtime.starts == [(uid(1), 1)]
        assert boot_id not in everything_below(node.paths.run)
    await asyncio.sleep(0.1)
    for _ in range(2):
        await ping(operator)
    assert boot_id in everything_below(node.paths.run)


async def test_a_daemon_that_died_finds_everything_again(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1), task(2), revision=3))
    await operator.until(lambda: len(node.runtime.alive()) == 2)
    starts = list(node.runtime.starts)
    await node.stop()
    node.runtime.end(uid(2), 1)
    node.start()
    second = await node.connect()
    hello = await second.greet()
    assert hello["bound"]["revision"] == 3
    await second.until(lambda: second.tasks.get(uid(2)) is not None and second.tasks[uid(2)].restarts == 1)
    assert second.tasks[uid(1)].restarts == 0
    assert node.runtime.starts == starts


async def test_a_chore_that_cannot_be_done_ends_neither_the_daemon_nor_the_other_chores(
    node: FakeNode, operator: OperatorEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "HOUSEKEEPING_S", 0.05)
    node.runtime.stuck = AgentError("Stuck", "a container that nobody knows does not go")
    restart = Restart(delay_s=0.01)
    await operator.push(document(task(1, restart=restart)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    await node.stop()
    node.start()
    second = await node.connect()
    await second.greet()
    await second.until(lambda: second.tasks[uid(1)].state == "Running")
    for _ in range(3):
        restarts = await restarts_after_an_unheard_end(node, second)
    assert restarts == 3


async def test_without_a_document_containers_are_left_alone(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    await node.stop()
    forget_documents(node.paths)
    node.start()
    await asyncio.sleep(0.1)
    assert node.runtime.alive() == {uid(1)}


async def test_a_new_volume_is_told_no_later_than_that_its_task_runs(node: FakeNode, operator: OperatorEnd) -> None:
    node.images.held[IMAGE] = dataclasses.replace(node.images.held[IMAGE], layers=(node.paths.root,))
    container = Container(command=("run",), mounts=(Mount("/data", "volume", "default/shop/data"),))
    await operator.push(document(task(1, container=container)))
    await operator.until(lambda: operator.tasks[uid(1)].state == "Running")
    told = [report.facts.volumes for report in operator.reports if report.facts is not None]
    assert told[-1] == ("default/shop/data",), "where a Service made anew finds its data hangs on it"


async def test_uninstall_stops_everything_and_keeps_volumes(node: FakeNode, operator: OperatorEnd) -> None:
    make_volume(node.paths, "default/shop/data")
    await operator.push(document(task(1)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    operator.send({"type": "uninstall", "id": 5})
    assert (await operator.hear("done")).get("error") is None
    assert node.runtime.containers == {}
    assert os.listdir(node.paths.root) == ["volumes"]
    assert volume_keys(node.paths) == ("default/shop/data",)


async def test_uninstall_works_without_a_document(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    await node.stop()
    forget_documents(node.paths)
    node.start()
    local = await node.connect()
    local.send({"type": "uninstall"})
    assert (await local.hear("done")).get("error") is None
    assert node.runtime.containers == {}


async def test_uninstall_works_on_a_full_disk(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    with unwritable(node.paths.state, "document-a.json", "document-b.json"):
        operator.send({"type": "uninstall", "id": 5})
        assert (await operator.hear("done")).get("error") is None
    assert gone(node.paths.root)


async def test_an_uninstall_that_began_is_done_whether_or_not_the_asker_stays(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1, "deaf", grace_s=0.3)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    local = await node.connect()
    local.send({"type": "uninstall"})
    await operator.until(lambda: operator.tasks[uid(1)].stopping)
    local.close()
    await node.ended()
    assert node.runtime.containers == {}
    assert gone(node.paths.root)


async def test_an_uninstall_is_asked_for_again_and_done_once(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1, "deaf", grace_s=0.3)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    operator.send({"type": "uninstall", "id": 1})
    await operator.until(lambda: operator.tasks[uid(1)].stopping)
    second = await node.connect()
    await second.greet()
    second.send({"type": "uninstall", "id": 2})
    assert await second.hear("done") == {"type": "done", "id": 2}
    await node.ended()


async def test_a_host_that_is_uninstalled_meanwhile_obeys_no_other_swarm(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1, "deaf", grace_s=0.5)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    local = await node.connect()
    local.send({"type": "uninstall"})
    await operator.until(lambda: operator.tasks[uid(1)].stopping)
    local.close()
    heir = await node.connect()
    await heir.greet(swarm="other", node="theirs", epoch=1, adopt=True)
    assert (await heir.hear("refused", "report"))["code"] == "Uninstalling"
    assert await heir.closed()
    assert HostState(node.paths).binding() == Binding("swarm", "node", 1)
    await node.ended()
    assert gone(node.paths.root)


async def test_a_host_that_belongs_to_nobody_is_claimed_by_nobody_while_it_is_uninstalled(node: FakeNode) -> None:
    assert node.daemon is not None
    stranger = await node.connect()
    await stranger.hear("hello")
    await node.daemon.desk.uninstall()
    stranger.send({"type": "hello", "protocol": PROTOCOL, "swarmId": "other", "nodeUid": "theirs", "epoch": 1})
    assert (await stranger.hear("refused", "error", "report"))["code"] == "Uninstalling"
    await node.ended()
    assert gone(node.paths.root)


async def test_an_uninstall_is_answered_though_its_operator_sends_another_document_meanwhile(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1, "deaf", grace_s=0.5)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    operator.send({"type": "uninstall", "id": 1})
    await operator.until(lambda: operator.tasks[uid(1)].stopping)
    assert (await operator.push(document(task(1), task(2), revision=2)))["code"] == "Uninstalling"
    assert await operator.hear("done") == {"type": "done", "id": 1}
    assert node.runtime.starts == [(uid(1), 1)]
    await node.ended()
    assert gone(node.paths.root)


async def test_a_daemon_that_uninstalls_retires_for_no_other(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1, "deaf", grace_s=0.5)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    operator.send({"type": "uninstall", "id": 1})
    await operator.until(lambda: operator.tasks[uid(1)].stopping)
    upgrade = await node.connect()
    upgrade.send({"type": "retire"})
    assert (await upgrade.hear("refused"))["code"] == "Uninstalling"
    assert await upgrade.closed()
    assert await operator.hear("done") == {"type": "done", "id": 1}
    await node.ended()
    assert gone(node.paths.root)


async def test_a_daemon_told_to_end_begins_to_remove_no_files(node: FakeNode, operator: OperatorEnd) -> None:
    await operator.push(document(task(1)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    node.runtime.removable.clear()
    operator.send({"type": "uninstall", "id": 1})
    await operator.until(lambda: operator.tasks[uid(1)].stopping)
    assert node.daemon is not None
    node.daemon.leave()
    assert await operator.closed()
    node.runtime.removable.set()
    await node.ended()
    await asyncio.sleep(0.2)
    assert HostState(node.paths).binding() == Binding("swarm", "node", 1)


async def test_a_person_who_uninstalls_sees_what_is_left_for_as_long_as_it_takes(
    node: FakeNode, operator: OperatorEnd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await operator.push(document(task(1, "deaf", grace_s=2.0)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    monkeypatch.setattr(session, "SILENCE_S", 1.0)
    monkeypatch.setattr(people, "LOOK_EVERY_S", 0.1)
    async with node.listening():
        await people.uninstall(node.paths)
    await node.ended()
    assert gone(node.paths.root)
    assert capsys.readouterr().err.splitlines()[0] == "still stopping: web-1-x"


async def test_a_retiring_daemon_ends_and_says_nothing_more(node: FakeNode, operator: OperatorEnd) -> None:
    local = await node.connect()
    local.send({"type": "retire"})
    assert await operator.closed()


async def restarts_after_an_unheard_end(node: FakeNode, operator: OperatorEnd) -> int:
    """Once the housekeeping has seen it, and the task runs again."""
    before = operator.tasks[uid(1)].restarts
    node.runtime.end_unheard(uid(1), 1)
    await operator.until(lambda: operator.tasks[uid(1)].restarts > before)
    await operator.until(lambda: operator.tasks[uid(1)].state == "Running")
    return operator.tasks[uid(1)].restarts


async def ping(operator: OperatorEnd) -> None:
    operator.send({"type": "ping", "at": 1})
    await operator.hear("pong")


async def ask_again(operator: OperatorEnd, question: dict[str, Any]) -> dict[str, Any]:
    operator.send(question)
    return await operator.hear("resolved")


@contextlib.contextmanager
def unwritable(directory: str, *names: str) -> Iterator[None]:
    """Files of ours that cannot be written anew, as on a full disk."""
    blocked = [Path(directory, f"{name}.new") for name in names]
    for path in blocked:
        path.mkdir()
    yield
    for path in blocked:
        shutil.rmtree(path, ignore_errors=True)


def gone(directory: str) -> bool:
    return not os.path.exists(directory)


async def swept(paths: Paths) -> None:
    """Until values are swept the next time."""
    left = Bind(f"{paths.secrets}/files/of-nobody", "/")
    os.mknod(left.source)
    for _ in range(2000):
        if not is_there(left):
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


def is_there(mount: Bind | Tmpfs) -> bool:
    return isinstance(mount, Bind) and os.path.exists(mount.source)


def everything_below(directory: str) -> bytes:
    return b"".join(path.read_bytes() for path in Path(directory).rglob("*") if path.is_file())


def forget_documents(paths: Paths) -> None:
    for slot in Path(paths.state).glob("document-*.json"):
        slot.unlink()
