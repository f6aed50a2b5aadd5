"""Commands in running containers, terminals, and `init: true`."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from moorage_agent.errors import StartFailed
from moorage_agent.protocol import Resources, Security
from moorage_agent.runtime.runtime import Runtime

from tests.machine.waiting import eventually
from tests.root.runtime.conftest import Make, Run
from tests.root.runtime.host import Host
from tests.root.runtime.test_confinement import status_fields


async def test_exec_answers_with_code_and_output(make: Make, runtime: Runtime) -> None:
    container = make("/bin/sleep", "100", env=("SECRET=s3cret",), hostname="box")
    await container.start()
    result = await runtime.exec(container.uid, ["sh", "-c", "hostname; echo $SECRET; echo err >&2; exit 3"], timeout_s=10)
    assert (result.code, sorted(result.output.split())) == (3, [b"box", b"err", b"s3cret"])


async def test_exec_is_never_wider_than_the_container(make: Make, runtime: Runtime) -> None:
    container = make("/bin/sh", "-c", "cat /proc/self/status; sleep 100", user="web", security=Security(cap_drop=("KILL",)))
    await container.start()
    await container.until_output("Mems_allowed")
    own = status_fields(container.output())
    theirs = status_fields((await runtime.exec(container.uid, ["cat", "/proc/self/status"], timeout_s=10)).output.decode())
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups")
    assert {name: theirs[name] for name in names} == {name: own[name] for name in names}


async def test_exec_is_in_the_containers_cgroups_and_namespaces(make: Make, runtime: Runtime) -> None:
    container = make("/bin/sleep", "100", resources=Resources(pids_limit=50))
    started = await container.start()
    line = (
        "cat /proc/self/cgroup | grep -v ':/$'; for n in pid net ipc uts mnt cgroup; do readlink /proc/self/ns/$n; done; ls /proc/self/fd"
    )
    output = (await runtime.exec(container.uid, ["sh", "-c", line], timeout_s=10)).output.decode().split()
    namespaces = [os.readlink(f"/proc/{started.pid}/ns/{name}") for name in ("pid", "net", "ipc", "uts", "mnt", "cgroup")]
    assert output == [*namespaces, "0", "1", "2", "3"]


async def test_exec_is_as_ready_to_be_killed_for_memory_as_its_container(make: Make, runtime: Runtime) -> None:
    container = make("/bin/sleep", "100", security=Security(oom_score_adj=123))
    await container.start()
    assert (await runtime.exec(container.uid, ["cat", "/proc/self/oom_score_adj"], timeout_s=10)).output == b"123\n"


async def test_exec_that_takes_too_long_is_killed_with_its_children(make: Make, runtime: Runtime) -> None:
    container = make("/bin/sleep", "100")
    await container.start()
    began = time.monotonic()
    result = await runtime.exec(container.uid, ["sh", "-c", "echo begun; sleep 77 & sleep 77"], timeout_s=0.5)
    assert (result.code, result.output) == (124, b"begun\n")
    assert time.monotonic() - began < 5
    assert b"sleep 77" not in (await runtime.exec(container.uid, ["ps"], timeout_s=10)).output


async def test_exec_keeps_four_kib_and_never_blocks_the_command(make: Make, runtime: Runtime) -> None:
    container = make("/bin/sleep", "100")
    await container.start()
    result = await runtime.exec(container.uid, ["sh", "-c", "seq 100000; exit 1"], timeout_s=30)
    assert (result.code, len(result.output)) == (1, 4096)


async def test_exec_of_nothing_is_127_and_says_why(make: Make, runtime: Runtime) -> None:
    container = make("/bin/sleep", "100")
    await container.start()
    result = await runtime.exec(container.uid, ["/nothing"], timeout_s=10)
    assert result.code == 127
    assert b"No such file" in result.output


async def test_exec_in_a_container_that_does_not_run(run: Run, runtime: Runtime) -> None:
    container = await run("true")
    result = await runtime.exec(container.uid, ["true"], timeout_s=10)
    assert (result.code, b"does not run" in result.output) == (126, True)


async def test_exec_given_up_by_its_caller_ends(make: Make, host: Host, runtime: Runtime) -> None:
    container = make("/bin/sleep", "100")
    await container.start()
    asking = asyncio.create_task(runtime.exec(container.uid, ["sleep", "88"], timeout_s=60))
    await asyncio.sleep(0.3)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    eventually("the command is gone", lambda: "moorage-exec" not in host.processes().values())


async def test_many_execs_leave_nothing(make: Make, host: Host, runtime: Runtime) -> None:
    container = make("/bin/sleep", "100")
    await container.start()
    results = await asyncio.gather(*(runtime.exec(container.uid, ["sh", "-c", f"exit {number}"], timeout_s=20) for number in range(40)))
    assert [result.code for result in results] == list(range(40))
    eventually("all of it is gone", lambda: "moorage-exec" not in host.processes().values())
    assert b"defunct" not in (await runtime.exec(container.uid, ["ps"], timeout_s=10)).output


async def test_terminal(run: Run) -> None:
    container = await run(
        "tty; stty size; echo $TERM; test -t 0 && test -t 1 && test -t 2 && echo all; ls -l /dev/console | cut -c1", tty=True
    )
    assert container.output().replace("\r", "").splitlines() == ["/dev/pts/0", "24 80", "xterm", "all", "c"]


async def test_terminal_of_another_user(run: Run) -> None:
    assert "ok" in (await run("echo ok > /dev/tty", tty=True, user="web")).output()


@pytest.mark.parametrize("tty", [False, True])
async def test_init_passes_signals_on_and_reaps(make: Make, runtime: Runtime, tty: bool) -> None:
    line = "trap 'exit 9' USR1; (sleep 0.05 & exec sleep 0.1) & wait; echo ready; while :; do sleep 0.05; done"
    container = make("/bin/sh", "-c", line, init=True, tty=tty)
    await container.start()
    await container.until_output("ready")
    processes = (await runtime.exec(container.uid, ["ps"], timeout_s=10)).output.decode()
    assert "Z" not in [line.split()[3] for line in processes.splitlines()[1:] if len(line.split()) > 3], processes
    runtime.signal(container.uid, signal.SIGUSR1)
    assert (await container.ended()).exit.code == 9  # type: ignore[union-attr]


async def test_init_ends_with_its_program_and_its_code(run: Run) -> None:
    container = await run("sleep 100 & sh -c 'kill -KILL $$'; kill -KILL $$", init=True)
    assert (await container.ended()).exit.code == 137  # type: ignore[union-attr]


async def test_init_lets_sleep_be_stopped(make: Make, runtime: Runtime) -> None:
    """A first process ignores signals it has no handler for; with init the program is not the first."""
    container = make("/bin/sleep", "100", init=True)
    await container.start()
    runtime.signal(container.uid, signal.SIGTERM)
    assert (await container.ended()).exit.code == 128 + signal.SIGTERM  # type: ignore[union-attr]


async def test_init_is_confined_as_its_program(make: Make, runtime: Runtime) -> None:
    container = make("/bin/sleep", "100", init=True, user="web")
    started = await container.start()
    status = status_fields(Path(f"/proc/{started.pid}/status").read_text())
    assert (status["Seccomp"], status["NoNewPrivs"], status["CapPrm"], status["Uid"].split()[0]) == ("2", "1", f"{0:016x}", "1000")
    assert len(os.listdir(f"/proc/{started.pid}/fd")) == 3


@pytest.mark.parametrize("tty", [False, True])
async def test_init_where_new_privileges_are_allowed(run: Run, tty: bool) -> None:
    container = await run(
        "grep -E 'NoNewPrivs|Seccomp:' /proc/1/status; echo up; exit 9", init=True, tty=tty, security=Security(no_new_privs=False)
    )
    assert container.output().split() == ["NoNewPrivs:", "0", "Seccomp:", "2", "up"]
    assert (await container.ended()).exit.code == 9  # type: ignore[union-attr]


async def test_init_reports_a_program_that_is_not_there(make: Make) -> None:
    with pytest.raises(StartFailed) as failed:
        await make("/bin/nothing", init=True).start()
    assert failed.value.exit_code == 127
