"""How the zygote comes to be, and what it does with what it cannot do."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from moorage_agent.errors import AgentError, HostLacks, StartFailed
from moorage_agent.paths import Paths
from moorage_agent.runtime import cgroup, client
from moorage_agent.runtime.runtime import Runtime

from tests.machine.waiting import eventually
from tests.root.runtime.conftest import Make
from tests.root.runtime.host import PYTHON, Container, Host

# What a scope takes in systemd 239 (RHEL 8), 245 (Ubuntu 20.04), 247 (Debian 11) and 249 (Ubuntu 22.04), of what is of use to us.
OLD_SYSTEMD_RUN = """#!/bin/sh
while [ "$1" != -- ]; do
    if [ "$1" = -p ]; then
        case "$2" in
            Delegate=*|TasksMax=*|Before=*|After=*|TimeoutStopSec=*|Slice=*|Description=*) ;;
            *) echo "Unknown assignment: $2" >&2; exit 1 ;;
        esac
        shift
    fi
    shift
done
shift
exec "$@"
"""


class Booted(Paths):
    """Of a host that systemd has booted."""

    __slots__ = ()
    under_systemd = True


async def test_an_old_systemd_runs_containers_too(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "systemd-run").write_text(OLD_SYSTEMD_RUN)
    (tmp_path / "systemd-run").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    paths = Booted(str(host.folder / "booted"), str(host.folder / "booted-run"))
    paths.make()
    runtime = Runtime(paths, cgroup_root=f"{host.cgroup_root}-booted", python=PYTHON)
    try:
        container = Container(host, runtime, argv=("/bin/sh", "-c", "exit 7"))
        await container.start()
        assert (await container.ended()).exit.code == 7  # type: ignore[union-attr]
    finally:
        await runtime.remove_orphans([])
        await runtime.stop_zygote()
        runtime.close()


@pytest.mark.parametrize("command", ["sleep 100", "kill -9 $$", "exit 1", "exit 0"])
async def test_a_zygote_that_does_not_come_this_time_is_no_lack_of_the_host(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(client, "START_TIMEOUT_S", 0.5)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec 2>/dev/null\n{command}\n")
    python.chmod(0o755)
    runtime = Runtime(Paths(str(tmp_path / "root"), str(tmp_path / "run")), cgroup_root=host.cgroup_root, python=str(python))
    with pytest.raises(AgentError, match="may pass") as raised:
        await runtime.ensure_zygote()
    assert type(raised.value) is AgentError
    runtime.close()


async def test_a_zygote_killed_before_it_serves_is_no_lack_of_the_host(host: Host, runtime: Runtime) -> None:
    await runtime.stop_zygote()
    eventually("the first one has left", lambda: not host.processes())
    os.makedirs(host.paths.run, exist_ok=True)
    held = Path(host.paths.run, "cgroup-bases")
    held.unlink(missing_ok=True)
    os.mkfifo(held)  # it reads it before it serves, and waits
    coming = asyncio.create_task(runtime.ensure_zygote())
    try:
        await asyncio.to_thread(eventually, "one comes", lambda: "moorage-zygote" in host.processes().values())
        (pid,) = [pid for pid, name in host.processes().items() if name == "moorage-zygote"]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(AgentError, match="may pass: the zygote ended before it served") as raised:
            await coming
    finally:
        held.unlink()
    assert type(raised.value) is AgentError
    await runtime.ensure_zygote()


async def test_a_zygote_without_its_rights_is_a_lack_of_the_host(host: Host, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec setpriv --bounding-set -sys_admin --inh-caps -sys_admin {PYTHON} "$@"\n')
    python.chmod(0o755)
    runtime = Runtime(Paths(str(tmp_path / "root"), str(tmp_path / "run")), cgroup_root=host.cgroup_root, python=str(python))
    with pytest.raises(HostLacks, match="not permitted"):
        await runtime.ensure_zygote()
    runtime.close()


def requests_held(pid: int) -> list[str]:
    """What a process has open of what the daemon sent."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return [link for link in found if link.startswith(("/memfd:moorage-request", "socket:"))][1:]  # it listens


@contextmanager
def no_more_processes(host: Host, pid: int) -> Iterator[None]:
    """The process cannot fork."""
    top = cgroup.Cgroups(cgroup.mounted(), host.cgroup_root).top_of("pids")
    if top is None:
        pytest.skip("this host does not limit processes")
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    before = next(path for _, controllers, path in lines if "pids" in controllers.split(",")) if "/pids/" in top else lines[-1][2]
    tight = Path(f"{top}/tight")
    tight.mkdir()
    (tight / "pids.max").write_text("1")
    (tight / "cgroup.procs").write_text(str(pid))
    try:
        yield
    finally:
        Path(f"{top.removesuffix(f'/{host.cgroup_root}')}{before}/cgroup.procs").write_text(str(pid))
        tight.rmdir()


async def test_a_zygote_that_cannot_fork_says_so_and_keeps_nothing(make: Make, host: Host, runtime: Runtime) -> None:
    pid = (await runtime._client.facts()).pid
    eventually("it serves nobody", lambda: not requests_held(pid))
    container = make("/bin/sleep", "100")
    with no_more_processes(host, pid):
        with pytest.raises(StartFailed) as raised:
            await container.start()
        assert raised.value.errno == errno.EAGAIN
        eventually("nothing it was sent is left open", lambda: not requests_held(pid))
    await container.start()
    assert (await runtime._client.facts()).pid == pid
