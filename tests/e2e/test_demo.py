"""The demo as a newcomer runs it: it works, and the machine is afterwards as it was before."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kube import binary
from tests.machine import cache_dir

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

Make = Callable[..., str]
CHECKOUT = Path(__file__).parents[2]
LISTENS = "0A"
"""State TCP_LISTEN in /proc/net/tcp, include/net/tcp_states.h."""


def machine() -> dict[str, object]:
    """What a demo could leave behind: listeners, packages, mounts, cgroups, interfaces, files where programs put their things."""
    folders = [Path(name) for name in ("/tmp", "/var/tmp", "/run", "/var/lib", "/etc", "/etc/systemd/system", Path.home(), cache_dir())]
    return {
        "listeners": {kind: listeners(kind) for kind in ("tcp", "tcp6", "udp", "udp6")},
        "packages": hashlib.sha256(Path("/var/lib/dpkg/status").read_bytes()).hexdigest(),
        "mounts": sorted(line.split(" ", 3)[3] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "cgroups": sorted(folder for folder, _, _ in os.walk("/sys/fs/cgroup")),
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "files": {str(folder): sorted(os.listdir(folder)) for folder in folders},
    }


def listeners(kind: str) -> list[str]:
    rows = [line.split() for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    return sorted(row[1] for row in rows if row[3] == LISTENS or kind.startswith("udp"))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make` as a person types it. Its cache has what this run's has, and may be removed."""
    for kept in cache_dir().iterdir():
        if kept.is_dir():
            (tmp_path / kept.name).symlink_to(kept)
    environment = {**os.environ, "MOORAGE_CACHE": str(tmp_path)}

    def made(*targets: str) -> str:
        # Through one pipe, as into a pager: a kept demo must not hold it.
        done = subprocess.run(
            ["make", *targets], cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return made


def test_the_demo_runs_and_leaves_the_machine_as_it_was(make: Make) -> None:
    before = machine()
    story = make("demo")
    assert "everything the demo started has ended" in story
    make("demo-clean")
    assert machine() == before


def test_a_kept_demo_can_be_used_until_it_is_cleaned_away(make: Make) -> None:
    before = machine()
    story = make("demo", "KEEP=1")
    kubeconfig = re.search(r"export KUBECONFIG=(\S+)", story)
    assert kubeconfig, story
    seen = subprocess.run([binary("kubectl"), "get", "ssvc", "-A"], env={"KUBECONFIG": kubeconfig[1]}, capture_output=True, text=True)
    assert "shop-web" in seen.stdout, seen.stderr
    make("demo-clean")
    assert machine() == before
