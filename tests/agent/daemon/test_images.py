"""Pulls and resolves, as the operator sees them."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from moorage_agent import resolves
from moorage_agent.errors import MESSAGE_CHARACTERS, ImageError
from moorage_agent.protocol import ImageSource, ImageSpec
from moorage_agent.state import TaskStore
from moorage_agent.task_state import End, Record
from moorage_agent.values import ValueStore

from tests.agent.fake_host import document, task, uid
from tests.agent.operator_end import BUSY, ENDLESS, SLOW_URL, TRICKLE, UNSPEAKABLE, FakeNode, OperatorEnd
from tests.machine.waiting import eventually


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


async def ask_again(operator: OperatorEnd, question: dict[str, Any]) -> dict[str, Any]:
    operator.send(question)
    return await operator.hear("resolved")
