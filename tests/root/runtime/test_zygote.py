"""How the zygote comes to be, and what it does with what it cannot do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from moorage_agent.paths import Paths
from moorage_agent.runtime.runtime import Runtime

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
