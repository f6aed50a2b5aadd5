"""The runtime on a host with systemd, cgroup v2 with all controllers, and AppArmor."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import KernelHost
from tests.fleet.ssh_client import ssh_command
from tests.machine.debs import unpacked
from tests.root.runtime.host import busybox_root

pytestmark = pytest.mark.uml

AGENT = Path(__file__).parents[3] / "agent"
DRIVER = Path(__file__).with_name("own_kernel_driver.py")


def put(host: KernelHost, source: Path, target: str) -> None:
    """Copy a folder into the host."""
    archive = subprocess.run(["tar", "-C", source, "--exclude=__pycache__", "-cf", "-", "."], capture_output=True, check=True).stdout
    command = [
        *ssh_command(host.folder / "known_hosts", host.key_file, f"root@{host.address}"),
        f"mkdir -p {target} && tar -xf - -C {target}",
    ]
    subprocess.run(command, input=archive, check=True, timeout=60)


def test_containers_on_cgroup_v2_under_systemd(kernel_hosts: Callable[..., list[KernelHost]], tmp_path: Path) -> None:
    (host,) = kernel_hosts(1, memory_mb=768)
    put(host, AGENT, "/root/agent")
    put(host, busybox_root(tmp_path / "layer"), "/root/layer")
    put(host, next(unpacked("apparmor").glob("**/sbin/apparmor_parser")).parent, "/usr/sbin")
    host.run("sh", "-c", "cat > /root/driver.py", input=DRIVER.read_text())
    done = host.run("python3", "-I", "/root/driver.py", "/root/agent", "/root/layer", check=False, timeout_s=240)
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout)

    assert all(seen["features"].values()), seen["features"]
    assert seen["zygote_cgroup"].startswith("0::/moorage.slice/moorage-runtime-"), "the zygote is in a scope of its own"
    assert seen["oom_policy"] == "continue", "a container out of memory does not end the others"
    assert seen["limits"]["output"].splitlines() == ["67108864", "0", "33554432", "77", "150000 100000", "100", "0::/"]
    assert (seen["memory"]["code"], seen["memory"]["oom"]) == (137, True)
    assert "can't fork" in seen["processes"]["output"]
    assert seen["devices"]["output"] == "cat: can't open '/dev/m': Operation not permitted\nnull works\n"
    assert seen["profile"]["output"].startswith("moorage-default (enforce)\n")
    assert seen["mounts"] == {"inside": "1\n", "outside": []}
    assert seen["adoption"] == {"exec": "still here\n", "code": 6}
    assert (seen["host_pid"], seen["tasks"], seen["cgroups"]) == (0, [], [])
