"""The end: uninstalled, or replaced by another daemon."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from moorage_agent import daemon, people, session
from moorage_agent.ownership import Binding
from moorage_agent.paths import Paths
from moorage_agent.protocol import PROTOCOL
from moorage_agent.state import HostState
from moorage_agent.volumes import make_volume, volume_keys

from tests.agent.daemon.disk import forget_documents, unwritable
from tests.agent.fake_host import IMAGE, FakeImages, document, task, uid
from tests.agent.operator_end import FakeNode, OperatorEnd, fake_node


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


async def test_the_housekeeping_leaves_nothing_behind_the_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(daemon, "HOUSEKEEPING_S", 0.01)
    busy, done = threading.Event(), threading.Event()

    class Images(FakeImages):
        def tidy(self, *, disk_is_full: bool) -> None:
            busy.set()
            done.wait(10)
            os.makedirs(f"{paths.images}/downloads", exist_ok=True)

    paths = Paths(f"{tmp_path}/disk", f"{tmp_path}/run")
    async with fake_node(paths, Images(IMAGE)) as node:
        operator = await node.connect()
        await operator.greet()
        await asyncio.to_thread(busy.wait, 10)
        operator.send({"type": "uninstall", "id": 1})
        await asyncio.sleep(0.1)
        done.set()
        assert (await operator.hear("done")).get("error") is None
        await node.ended()
    assert gone(paths.root)
    assert "housekeeping failed" not in caplog.text


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
    await being_uninstalled(node, operator, grace_s=0.3)
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
    await being_uninstalled(node, operator, grace_s=0.5)
    assert (await operator.push(document(task(1), task(2), revision=2)))["code"] == "Uninstalling"
    assert await operator.hear("done") == {"type": "done", "id": 1}
    assert node.runtime.starts == [(uid(1), 1)]
    await node.ended()
    assert gone(node.paths.root)


async def test_a_daemon_that_uninstalls_retires_for_no_other(node: FakeNode, operator: OperatorEnd) -> None:
    await being_uninstalled(node, operator, grace_s=0.5)
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


def gone(directory: str) -> bool:
    return not os.path.exists(directory)


async def being_uninstalled(node: FakeNode, operator: OperatorEnd, *, grace_s: float) -> None:
    """Asked for as question 1; the only task takes so long to end."""
    await operator.push(document(task(1, "deaf", grace_s=grace_s)))
    await operator.until(lambda: node.runtime.alive() == {uid(1)})
    operator.send({"type": "uninstall", "id": 1})
    await operator.until(lambda: operator.tasks[uid(1)].stopping)
