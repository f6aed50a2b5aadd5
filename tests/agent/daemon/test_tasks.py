"""Tasks from document to report, and what the daemon does without being told."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from moorage_agent import contact, daemon
from moorage_agent.clock import clock_of
from moorage_agent.errors import AgentError
from moorage_agent.paths import Paths
from moorage_agent.protocol import Container, DataFile, EnvVar, Healthcheck, Mount, Restart
from moorage_agent.runtime.launch import Bind, Launch, Tmpfs
from moorage_agent.runtime.runtime import Started

from tests.agent.daemon.disk import forget_documents, unwritable
from tests.agent.fake_host import IMAGE, FakeImages, FakeRuntime, document, task, uid
from tests.agent.operator_end import FakeNode, OperatorEnd

KEY = "secret/default/db/password/0123456789abcdef"


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
            await operator.ping()
            await asyncio.sleep(0.1)
        assert node.runtime.starts == [(uid(1), 1)]
        assert boot_id not in everything_below(node.paths.run)
    await asyncio.sleep(0.1)
    for _ in range(2):
        await operator.ping()
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


async def restarts_after_an_unheard_end(node: FakeNode, operator: OperatorEnd) -> int:
    """Once the housekeeping has seen it, and the task runs again."""
    before = operator.tasks[uid(1)].restarts
    node.runtime.end_unheard(uid(1), 1)
    await operator.until(lambda: operator.tasks[uid(1)].restarts > before)
    await operator.until(lambda: operator.tasks[uid(1)].state == "Running")
    return operator.tasks[uid(1)].restarts


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
