"""Supervisors die by force, disks fill up, hosts reboot: what is known of a container stays known, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from moorage_agent.errors import StartFailed
from moorage_agent.execute import _PASSING
from moorage_agent.runtime import record, supervisor
from moorage_agent.runtime.launch import Tmpfs
from moorage_agent.runtime.runtime import Runtime

from tests.machine.waiting import eventually
from tests.root.runtime.conftest import Make
from tests.root.runtime.host import Container, Host

COUNTING = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); usleep 3000; done; exit 7"
KERNEL = tuple(int(part) for part in os.uname().release.split(".")[:2])


def zygote_of(host: Host) -> int:
    """The newest: numbers of processes start again from the beginning some day."""
    return max((pid for pid, name in host.processes().items() if name == "moorage-zygote"), key=lambda pid: record.start_time(pid) or 0)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    eventually(f"process {pid} is gone", lambda: not Path(f"/proc/{pid}/exe").exists() or not os.path.lexists(f"/proc/{pid}/exe"))


def supervisor_of(container: Container) -> int:
    return container.facts["shim"]


async def adopted(container: Container, dead: int) -> None:
    for _ in range(500):
        if supervisor_of(container) != dead and supervisor.is_supervised(container.host.paths.task_run(container.uid)):
            return
        await asyncio.sleep(0.01)
    raise TimeoutError("nobody adopted the container")


async def test_containers_do_not_notice_the_death_of_the_zygote(make: Make, host: Host, runtime: Runtime) -> None:
    container = make("/bin/sh", "-c", COUNTING)
    await container.start()
    old = zygote_of(host)
    os.kill(old, signal.SIGKILL)
    other = make("/bin/sh", "-c", "exit 4")
    await other.start()
    assert zygote_of(host) != old
    assert (await container.ended()).exit.code == 7  # type: ignore[union-attr]
    assert (await other.ended()).exit.code == 4  # type: ignore[union-attr]
    assert container.output() == "".join(f"line {number}\n" for number in range(300))


async def test_a_terminal_ends_with_its_supervisor_and_the_exit_code_is_kept(make: Make, runtime: Runtime) -> None:
    container = make("/bin/sh", "-c", "trap 'exit 8' HUP; echo up; while :; do usleep 10000; done", tty=True)
    await container.start()
    await container.until_output("up")
    os.kill(supervisor_of(container), signal.SIGKILL)
    assert (await container.ended()).exit.code == 8  # type: ignore[union-attr]
    assert container.output() == "up\r\n"


async def test_container_whose_supervisor_died_is_adopted(make: Make, runtime: Runtime) -> None:
    container = make("/bin/sh", "-c", COUNTING)
    started = await container.start()
    await container.until_output("line 20")
    dead = supervisor_of(container)
    os.kill(dead, signal.SIGKILL)
    await adopted(container, dead)
    state = container.state()
    assert state is not None
    assert state.pid == started.pid
    assert (await runtime.exec(container.uid, ["/bin/echo", "still"], timeout_s=10)).output == b"still\n"
    assert (await container.ended()).exit.code == 7  # type: ignore[union-attr]
    lines = container.output().splitlines()
    assert lines == sorted(lines, key=lambda line: int(line.split()[1]))
    assert set(lines) >= {f"line {number}" for number in range(40, 300)}
    assert len(lines) >= 299  # what one read returned may go with its reader


async def test_adopters_can_die_too(make: Make) -> None:
    container = make("/bin/sh", "-c", COUNTING)
    await container.start()
    for _ in range(3):
        dead = supervisor_of(container)
        os.kill(dead, signal.SIGKILL)
        await adopted(container, dead)
    assert (await container.ended()).exit.code == 7  # type: ignore[union-attr]


async def test_container_that_ends_together_with_its_supervisor(make: Make, runtime: Runtime) -> None:
    """The zygote buries it and still knows its code when it hears of the supervisor."""
    for _ in range(10):
        container = make("/bin/sleep", "100")
        started = await container.start()
        os.kill(supervisor_of(container), signal.SIGKILL)
        os.kill(started.pid, signal.SIGTERM if random.random() < 0.5 else signal.SIGKILL)
        runtime.kill(container.uid)
        assert (await container.ended()).exit.code == 137  # type: ignore[union-attr]


@pytest.mark.skipif(KERNEL < (6, 15), reason="the kernel forgets exit codes of processes that were waited for (PIDFD_INFO_EXIT: 6.15)")
async def test_exit_code_survives_zygote_and_supervisor(make: Make, host: Host, runtime: Runtime) -> None:
    container = make("/bin/sh", "-c", "trap 'exit 6' TERM; echo up; while :; do sleep 0.02; done")
    started = await container.start()
    await container.until_output("up")
    kill(zygote_of(host))
    os.kill(supervisor_of(container), signal.SIGKILL)
    os.kill(started.pid, signal.SIGTERM)
    state = await asyncio.wait_for(runtime.next_exit(), 20)
    assert state.exit is not None
    assert (state.uid, state.exit.code) == (container.uid, 6)


async def test_new_zygote_takes_over_what_has_no_supervisor(make: Make, host: Host, runtime: Runtime) -> None:
    container = make("/bin/sh", "-c", "trap 'echo bye; exit 6' TERM; echo up; while :; do sleep 0.02; done", env=("KEPT=in memory",))
    started = await container.start()
    await container.until_output("up")
    dead = supervisor_of(container)
    kill(zygote_of(host))
    os.kill(dead, signal.SIGKILL)
    await runtime.ensure_zygote()
    await adopted(container, dead)
    assert (await runtime.exec(container.uid, ["sh", "-c", "echo $KEPT"], timeout_s=10)).output == b"in memory\n"
    os.kill(started.pid, signal.SIGTERM)
    state = await container.ended()
    assert state.exit is not None
    assert state.exit.code in ((6,) if KERNEL >= (6, 15) else (6, None))
    assert "bye" in container.output()


async def test_code_nobody_saw_is_unknown_and_not_invented(make: Make, host: Host, runtime: Runtime) -> None:
    container = make("/bin/sleep", "100")
    started = await container.start()
    runtime.close()
    kill(zygote_of(host))
    os.kill(supervisor_of(container), signal.SIGKILL)
    kill(started.pid)
    eventually("it is buried", lambda: not os.path.exists(f"/proc/{started.pid}"))
    other = host.runtime()
    await other.ensure_zygote()
    other.observe()
    state = await asyncio.wait_for(other.next_exit(), 20)
    assert state.exit is not None
    assert (state.exit.code, state.exit.reason) == (None, "SupervisorLost")
    other.close()


async def test_reboot_is_seen_as_one(make: Make, host: Host) -> None:
    container = make("/bin/sleep", "100")
    await container.start()
    other_boot = host.folder / "boot_id"
    other_boot.write_text("another\n")
    after = Runtime(type(host.paths)(host.paths.root, host.paths.run, str(other_boot)), cgroup_root=host.cgroup_root)
    (state,) = after.observe()
    assert state.exit is not None
    assert (state.pid, state.exit.code, state.exit.reason) == (None, None, "HostRebooted")


@pytest.mark.parametrize("victim", ["moorage-shim", "moorage-zygote"])
async def test_killed_at_any_step_of_a_start(make: Make, host: Host, runtime: Runtime, victim: str) -> None:
    """A start under fire either works or fails cleanly. The moments are spread over the whole of it; the seed is printed."""
    seed = int(time.time())
    print("seed", seed)
    chance = random.Random(seed)
    failed = 0
    for _ in range(25):
        container = make("/bin/sleep", "100")
        start = asyncio.create_task(container.start())
        await asyncio.sleep(chance.uniform(0, 0.03))
        for pid in [pid for pid, name in host.processes().items() if name == victim]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            await start
        except StartFailed as failure:
            failed += 1
            assert failure.exit_code == 125  # noqa: PT017
            assert failure.errno in _PASSING, failure  # noqa: PT017
        await runtime.ensure_zygote()
        await runtime.remove(container.uid)
        left = host.left_behind()
        assert (left["cgroups"], left["tasks"], left["run"], left["mounts"]) == ([], [], [], [])
    eventually("all supervisors are gone", lambda: host.left_behind()["processes"] == [])
    assert failed > 0 or victim == "moorage-zygote"  # a shim does not need it any more, and a request it did not take goes to the next


async def test_two_hundred_rounds_leave_everything_as_it_was(make: Make, host: Host, runtime: Runtime) -> None:
    await make("/bin/true").start()
    before, zygote = host.left_behind() | {"tasks": [], "run": [], "cgroups": [], "processes": []}, zygote_of(host)
    for state in runtime.observe():
        await runtime.remove(state.uid)
    fds, own = len(os.listdir(f"/proc/{zygote}/fd")), len(os.listdir("/proc/self/fd"))
    for _ in range(25):
        containers = [make("/bin/sh", "-c", "echo x; exit 1", mounts=(Tmpfs("/t"),)) for _ in range(8)]
        await asyncio.gather(*(container.start() for container in containers))
        await asyncio.gather(*(container.ended() for container in containers))
        await asyncio.gather(*(runtime.remove(container.uid) for container in containers))
    eventually("all supervisors are gone", lambda: host.left_behind()["processes"] == [])
    assert host.left_behind() == before
    assert zygote_of(host) == zygote
    assert len(os.listdir(f"/proc/{zygote}/fd")) == fds
    assert len(os.listdir("/proc/self/fd")) <= own


DEEP = "i=0; while [ $i -lt 1500 ]; do mkdir d; cd d; i=$((i+1)); done; echo deep"


async def test_a_container_that_nested_directories_very_deep_starts_again_and_goes(make: Make, host: Host, runtime: Runtime) -> None:
    container = make("/bin/sh", "-c", DEEP)
    try:
        await container.start()
        await container.ended()
        assert container.output() == "deep\n"
        await make("/bin/sh", "-c", DEEP, uid=container.uid, run=2).start()
        await runtime.remove(container.uid)
        assert host.left_behind()["tasks"] == []
    finally:
        rm = await asyncio.create_subprocess_exec("rm", "-rf", host.paths.task(container.uid))
        assert await rm.wait() == 0, "it would be in the way of every run to come"


@pytest.fixture
def small_disk(host: Host) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = host.folder / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "small", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_full_disk_loses_output_and_keeps_the_exit_code(host: Host, small_disk: Path) -> None:
    paths = type(host.paths)(str(small_disk / "root"), str(host.folder / "small-run"))
    paths.make()
    runtime = Runtime(paths, cgroup_root=host.cgroup_root + "-small")
    fill = "cat /dev/zero > /fill 2>/dev/null"
    line = f"echo before; usleep 200000; {fill}; seq 9999; usleep 200000; rm /fill; usleep 50000; echo after; {fill}; exit 5"
    container = Container(host, runtime, argv=("/bin/sh", "-c", line))
    await container.start()
    state = await container.ended()
    assert state.exit is not None
    assert state.exit.code == 5
    text = "".join(Path(path, name).read_text() for path, _, names in os.walk(runtime.log_dir(container.uid)) for name in names)
    assert "before" in text
    assert "after" in text
    assert "bytes of output were lost" in text
    with pytest.raises(StartFailed):  # the disk is full: nothing is started that could not be recorded
        await Container(host, runtime, argv=("/bin/sleep", "100")).start()
    for seen in runtime.observe():
        await runtime.remove(seen.uid)
    await runtime.stop_zygote()
    runtime.close()


async def test_zygote_of_another_version_is_replaced_and_its_containers_live_on(make: Make, host: Host, runtime: Runtime) -> None:
    container = make("/bin/sh", "-c", COUNTING)
    await container.start()
    old = zygote_of(host)
    newer = host.runtime()
    newer._client._version = "another"
    await newer.ensure_zygote()
    assert zygote_of(host) != old
    dead = supervisor_of(container)
    os.kill(dead, signal.SIGKILL)
    await adopted(container, dead)  # by the old zygote, whose child it is
    assert (await container.ended()).exit.code == 7  # type: ignore[union-attr]
    eventually("the retired zygote ends with its last container", lambda: not os.path.exists(f"/proc/{old}/cmdline") or not _alive(old))
    newer.close()


def _alive(pid: int) -> bool:
    return bool(Path(f"/proc/{pid}/cmdline").read_bytes()) if os.path.exists(f"/proc/{pid}") else False


async def test_records_are_allocated_before_anything_starts(make: Make, host: Host) -> None:
    container = make("/bin/sleep", "100")
    await container.start()
    path = Path(host.paths.task(container.uid), "exits")
    assert path.stat().st_size == record.RECORD_BYTES * record.SLOTS
    assert path.stat().st_blocks * 512 >= record.RECORD_BYTES * record.SLOTS
