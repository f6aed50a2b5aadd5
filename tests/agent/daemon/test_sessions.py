"""Whom a host obeys, and how it speaks."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import pytest
from moorage_agent import session
from moorage_agent.ownership import Binding
from moorage_agent.protocol import PROTOCOL, content_hash, to_wire
from moorage_agent.state import HostState

from tests.agent.daemon.disk import unwritable
from tests.agent.fake_host import document, task, uid
from tests.agent.operator_end import FakeNode, OperatorEnd


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
