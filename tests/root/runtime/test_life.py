"""Start, run, end, remove."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from moorage_agent.errors import AgentError, Interrupted, InvalidTask, StartFailed
from moorage_agent.runtime import linux, witness
from moorage_agent.runtime.runtime import Runtime, Stuck

from tests.root.runtime.conftest import Make, Run
from tests.root.runtime.host import Host


@pytest.mark.parametrize("code", [0, 1, 7, 125, 126, 127, 255])
async def test_exit_codes_are_kept(run: Run, code: int) -> None:
    container = await run(f"exit {code}")
    state = container.state()
    assert state is not None
    assert state.exit is not None
    assert (state.run, state.exit.code, state.exit.oom_killed) == (1, code, False)


async def test_what_shall_no_longer_start_when_its_turn_comes_leaves_nothing(make: Make, host: Host, runtime: Runtime) -> None:
    container = make("/bin/sleep", "100")
    with pytest.raises(Interrupted):
        await runtime.start(container.launch, still=lambda: False)
    assert container.state() is None
    await runtime.remove(container.uid)
    assert (await container.start()).pid > 0
    await runtime.remove(container.uid)
    left = host.left_behind()
    assert (left["cgroups"], left["tasks"], left["run"], left["mounts"]) == ([], [], [], [])


async def test_death_by_signal_is_128_and_the_number(run: Run) -> None:
    container = await run("sh -c 'kill -TERM $$'; exit $?")
    assert (await container.ended()).exit.code == 128 + signal.SIGTERM  # type: ignore[union-attr]


async def test_first_process_killed_from_outside(make: Make, runtime: Runtime) -> None:
    container = make("/bin/sleep", "100")
    started = await container.start()
    assert Path(f"/proc/{started.pid}/comm").read_text() == "sleep\n"
    assert runtime.kill(container.uid)
    assert (await container.ended()).exit.code == 128 + signal.SIGKILL  # type: ignore[union-attr]
    assert not runtime.kill(container.uid)


async def test_exit_is_heard_of_at_once(make: Make, runtime: Runtime) -> None:
    container = make("/bin/sh", "-c", "exit 9")
    await container.start()
    state = await asyncio.wait_for(runtime.next_exit(), 10)
    assert (state.uid, state.exit and state.exit.code) == (container.uid, 9)


async def test_more_exits_at_once_than_the_socket_holds_are_heard_of_soon(
    make: Make, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "PATIENCE_S", 600.0)
    containers = [make("/bin/sleep", "1000") for _ in range(30)]
    await asyncio.gather(*(container.start() for container in containers))
    for container in containers:
        runtime.kill(container.uid)
    time.sleep(0.5)  # noqa: ASYNC251 - the loop is busy while the supervisors speak
    ended = {(await asyncio.wait_for(runtime.next_exit(), 10)).uid for _ in containers}
    assert ended == {container.uid for container in containers}


async def test_program_that_is_not_there_is_127(make: Make) -> None:
    with pytest.raises(StartFailed) as failed:
        await make("/bin/nothing").start()
    assert (failed.value.exit_code, failed.value.step) == (127, "exec")


async def test_name_that_is_not_in_path_is_127(make: Make) -> None:
    with pytest.raises(StartFailed, match="not in the image"):
        await make("nothing").start()


async def test_file_that_is_no_program_is_126(make: Make) -> None:
    with pytest.raises(StartFailed) as failed:
        await make("/etc/passwd").start()
    assert failed.value.exit_code == 126


async def test_failed_start_leaves_a_record_and_nothing_else(make: Make, host: Host, runtime: Runtime) -> None:
    container = make("/bin/nothing")
    with pytest.raises(StartFailed):
        await container.start()
    state = container.state()
    assert state is not None
    assert state.exit is not None
    assert (state.exit.code, state.exit.reason) == (127, "StartFailed")
    assert host.left_behind()["cgroups"] == []


async def test_output_of_a_life_of_one_millisecond_is_complete(run: Run) -> None:
    container = await run("echo out; echo err >&2")
    assert [(line.stream, line.text) for line in container.lines()] == [("stdout", b"out\n"), ("stderr", b"err\n")]


async def test_each_run_has_a_fresh_root(make: Make) -> None:
    first = make("/bin/sh", "-c", "echo old > /data; cat /data")
    await first.start()
    await first.ended()
    second = make("/bin/cat", "/data", uid=first.uid, run=2)
    await second.start()
    state = await second.ended()
    assert (state.run, state.exit and state.exit.code) == (2, 1)
    assert "old\n" in second.output()
    assert "No such file" in second.output()


async def test_starting_a_run_that_runs_returns_it(make: Make) -> None:
    container = make("/bin/sleep", "100")
    assert await container.start() == await container.start()


async def test_another_run_of_a_container_that_runs_is_refused(make: Make, host: Host) -> None:
    container = make("/bin/sleep", "100")
    started = await container.start()
    with pytest.raises(AgentError, match="run 1 is not over"):
        await make("/bin/true", uid=container.uid, run=2).start()
    state = container.state()
    assert state is not None
    assert state.pid == started.pid
    assert Path(host.paths.task(container.uid), "root-1").is_dir()


async def test_a_start_that_a_dead_daemon_left_under_way_is_waited_for(make: Make, host: Host, runtime: Runtime) -> None:
    container = make("/bin/sh", "-c", "echo up; sleep 1000")
    other = host.runtime()
    await other.ensure_zygote()
    cut_off = asyncio.create_task(other.start(container.launch))
    await asyncio.sleep(0)
    shim = await asyncio.to_thread(frozen_holder, Path(host.paths.task_run(container.uid), "lock"))
    cut_off.cancel()
    other.close()
    asyncio.get_running_loop().call_later(0.3, os.kill, shim, signal.SIGCONT)
    started = await container.start()
    await container.until_output("up")
    state = container.state()
    assert state is not None
    assert (state.pid, state.exit, container.facts["shim"]) == (started.pid, None, shim)


def frozen_holder(lock: Path) -> int:
    """The process that comes to hold the lock, stopped as early as can be. <bits/fcntl.h>: struct flock {type, whence, start, len, pid}."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError), lock.open("r+b") as file:
            asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, *_, holder = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))
            if kind != fcntl.F_UNLCK:
                os.kill(holder, signal.SIGSTOP)
                return int(holder)
    raise TimeoutError(f"nobody holds {lock}")


async def test_a_run_that_came_to_its_end_without_a_daemon_is_not_run_twice(make: Make, host: Host, runtime: Runtime) -> None:
    container = make("/bin/sh", "-c", "echo once; exit 7")
    other = host.runtime()
    await other.start(container.launch)
    await container.ended()
    other.close()
    await runtime.ensure_zygote()
    assert (await container.start()).started_at > 0
    ended = await asyncio.wait_for(runtime.next_exit(), 10)
    assert ended.exit is not None
    assert (ended.run, ended.exit.code, container.output()) == (1, 7, "once\n")


async def test_signal_reaches_the_first_process(make: Make, runtime: Runtime) -> None:
    container = make("/bin/sh", "-c", "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    await container.start()
    await container.until_output("ready")
    assert runtime.signal(container.uid, signal.SIGTERM)
    assert (await container.ended()).exit.code == 5  # type: ignore[union-attr]


async def test_remove_leaves_nothing(make: Make, host: Host, runtime: Runtime) -> None:
    before = host.left_behind()
    container = make("/bin/sh", "-c", "echo x; sleep 100 & sleep 100")
    await container.start()
    await runtime.remove(container.uid)
    assert host.left_behind() == before
    await runtime.remove(container.uid)  # again is no error


async def test_new_runtime_sees_and_hears_of_what_an_old_one_started(make: Make, host: Host, runtime: Runtime) -> None:
    container = make("/bin/sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    started = await container.start()
    await container.until_output("ready")
    runtime.close()
    other = host.runtime()
    await other.ensure_zygote()
    (state,) = other.observe()
    assert (state.uid, state.pid, state.started_at) == (container.uid, started.pid, started.started_at)
    other.signal(container.uid, signal.SIGTERM)
    ended = await asyncio.wait_for(other.next_exit(), 10)
    assert ended.exit is not None
    assert ended.exit.code == 3
    other.close()


async def test_what_nobody_knows_is_collected(make: Make, host: Host, runtime: Runtime) -> None:
    known, orphan = make("/bin/sleep", "100"), make("/bin/sleep", "100")
    await known.start()
    await orphan.start()
    lost = str(uuid.uuid4())
    for top in runtime._tops():
        Path(f"{top}/std/{lost}.3/inner").mkdir(parents=True)
    assert await runtime.remove_orphans([known.uid]) == sorted([orphan.uid, lost])
    assert host.left_behind()["cgroups"] == [("std", f"{known.uid}.1")]
    assert [state.uid for state in runtime.observe()] == [known.uid]


async def test_one_that_cannot_be_collected_keeps_no_other(make: Make, runtime: Runtime) -> None:
    await make("/bin/true").start()
    stuck, later = f"00000000{str(uuid.uuid4())[8:]}", f"ffffffff{str(uuid.uuid4())[8:]}"
    places = [Path(f"{top}/std/{name}.1") for top in runtime._tops() for name in (stuck, later)]
    for place in places:
        place.mkdir()
    busy = next(place for place in places if place.name == f"{stuck}.1")
    linux.mount("busy", str(busy), "tmpfs", 0)
    try:
        with pytest.raises(Stuck, match=stuck):
            await runtime.remove_orphans([])
        assert [place.exists() for place in places if place.name == f"{later}.1"] == [False] * len(runtime._tops())
    finally:
        linux.umount2(str(busy), linux.MNT_DETACH)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"cwd": "relative"}, "InvalidWorkingDir"),
        ({"env": ("NOVALUE",)}, "InvalidEnv"),
        ({"network": "Bridge"}, "InvalidNetwork"),
        ({"hostname": "a/b"}, "InvalidHostname"),
        ({"env": ("A=b\0c",)}, "InvalidText"),
    ],
)
async def test_what_can_never_start_is_refused_before_anything_exists(make: Make, host: Host, fields: dict[str, object], code: str) -> None:
    with pytest.raises(InvalidTask) as refused:
        await make("/bin/true", **fields).start()
    assert refused.value.code == code
    assert host.left_behind()["tasks"] == []


async def test_a_variable_without_a_value_is_named_and_a_value_without_a_name_is_not_told(make: Make) -> None:
    with pytest.raises(InvalidTask, match="variable 'NOVALUE' is not NAME=value"):
        await make("/bin/true", env=("A=b", "NOVALUE")).start()
    with pytest.raises(InvalidTask) as refused:
        await make("/bin/true", env=("=hunter2",)).start()
    assert "hunter2" not in refused.value.message


async def test_fifty_at_once(make: Make) -> None:
    containers = [make("/bin/sh", "-c", f"echo {number}; exit {number}") for number in range(50)]
    await asyncio.gather(*(container.start() for container in containers))
    states = await asyncio.gather(*(container.ended() for container in containers))
    assert [state.exit.code for state in states if state.exit] == list(range(50))
    assert [container.output() for container in containers] == [f"{number}\n" for number in range(50)]
