from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from moorage_agent.protocol import Container, Healthcheck, Restart

from tests.root.daemon.agent_host import AgentHost

pytestmark = pytest.mark.root

MINORS = range(9, 15)


def interpreters() -> dict[str, str]:
    """One python3 of each minor version this machine has, by version."""
    found = {}
    for minor in MINORS:
        candidates = [shutil.which(f"python3.{minor}"), *map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3.{minor}"))]
        for candidate in filter(None, candidates):
            done = subprocess.run([candidate, "-I", "-S", "-c", "import ctypes, ssl, zlib"], capture_output=True, check=False)
            if done.returncode == 0:
                found[f"3.{minor}"] = candidate
                break
    return found


@pytest.mark.parametrize("version", interpreters())
def test_the_whole_agent_runs_on_this_python(agent_home: Path, busybox_archive: Path, tmp_path: Path, version: str) -> None:
    host = AgentHost(agent_home, tmp_path / "host", busybox_archive, python=interpreters()[version])
    host.start()
    operator = host.connect()
    assert operator.hello["facts"]["python"].startswith(version)
    script = "mkdir -p /www; exec httpd -f -p 127.0.0.1:8080 -h /www"
    served = host.task(
        operator,
        container=Container(command=("sh", "-c", script), healthcheck=Healthcheck(tcp_port=8080), stop_grace_s=0.1),
    )
    failing = host.task(operator, container=Container(command=("false",), restart=Restart(delay_s=0.1, max_attempts=1)))
    operator.push(served, failing)
    operator.wait_state("Running", served)
    operator.wait_state("Failed", failing)
    host.kill()
    host.start()
    operator = host.connect()
    operator.wait_state("Running", served)
    operator.push()
    operator.wait("removal", lambda: operator.removed == {served.uid, failing.uid})
    host.destroy()
