"""What is mounted into containers: what of it the host sees, and what it may become."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from moorage_agent.errors import AgentError, InvalidTask
from moorage_agent.protocol import Resources, Security
from moorage_agent.runtime import linux
from moorage_agent.runtime.launch import Bind, Tmpfs

from tests.root.dead_mount import DeadMount
from tests.root.runtime.conftest import Make, Run
from tests.root.runtime.host import Host

DRIVER = Path(__file__).with_name("shared_mount_driver.py")
MS_SHARED = 1 << 20
READ_ONLY = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID


def mounted_below(folder: Path) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{folder}/")]


@pytest.fixture
def shared(host: Host) -> Iterator[Path]:
    """A file system that its host shares with whoever copies it, as systemd makes all of them."""
    folder = host.folder / "shared"
    folder.mkdir()
    linux.mount("tmpfs", str(folder), "tmpfs")
    linux.mount(None, str(folder), None, MS_SHARED)
    yield folder
    while str(folder) in Path("/proc/self/mountinfo").read_text():
        linux.umount2(str(folder), linux.MNT_DETACH)
    folder.rmdir()


@pytest.mark.parametrize("privileged", [False, True])
async def test_what_a_container_mounts_in_a_volume_is_seen_by_it_alone(make: Make, shared: Path, privileged: bool) -> None:
    secret = shared / "secret"
    secret.write_text("s3cret")
    (shared / "data/keys").mkdir(parents=True)
    volume, security = Bind(str(shared / "data"), "/data"), Security(privileged=privileged)
    other = make("/bin/sleep", "100", mounts=(volume,))
    await other.start()
    inner = (Tmpfs("/data/scratch"), Bind(str(secret), "/data/keys/one", read_only=True))
    first = make("/bin/sh", "-c", "cat /data/keys/one; echo; sleep 100", mounts=(volume, *inner), security=security)
    await first.start()
    await first.until_output("s3cret")
    assert mounted_below(shared) == []
    seen = await other.runtime.exec(other.uid, ["sh", "-c", "cat /data/keys/one; grep -c ' /data/' /proc/self/mountinfo"], timeout_s=10)
    assert seen.output == b"0\n"
    await first.runtime.remove(first.uid)
    await other.runtime.remove(other.uid)


@pytest.mark.parametrize("attributes", [0, READ_ONLY])
@pytest.mark.parametrize("kernel", [(), ("old",)])
def test_a_bind_of_a_shared_mount_is_private_on_any_kernel(tmp_path: Path, attributes: int, kernel: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, DRIVER, tmp_path, str(attributes), *kernel], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    options = "ro,nosuid,relatime" if attributes else "rw,relatime"
    assert done.stdout.splitlines() == ["/source rw,relatime", f"/target {options}", f"/other {options}", "/target/secret rw,relatime"]


HALF_OF_HOST_KB = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 // 1024


@pytest.mark.parametrize(
    ("size", "memory_limit", "kib"), [(1 << 20, 16 << 20, 1024), (None, 16 << 20, 8192), (None, None, HALF_OF_HOST_KB), (0, None, 4)]
)
async def test_a_tmpfs_has_a_size_whether_told_or_not(run: Run, size: int | None, memory_limit: int | None, kib: int) -> None:
    resources = Resources(memory_limit=memory_limit)
    container = await run("df -k /scratch | tail -1 | tr -s ' ' | cut -d' ' -f2", mounts=(Tmpfs("/scratch", size),), resources=resources)
    assert int(container.output()) == pytest.approx(kib, rel=0.001)


async def test_a_read_only_tmpfs_is_empty_but_for_what_is_mounted_in_it(run: Run, host: Host) -> None:
    source = host.folder / "inside-a-tmpfs"
    source.write_text("inside")
    mounts = (Tmpfs("/conf", read_only=True), Bind(str(source), "/conf/d/one", read_only=True), Tmpfs("/conf/run"))
    container = await run("exec 2>&1; touch /conf/x; touch /conf/run/x; find /conf | sort; cat /conf/d/one", mounts=mounts)
    assert container.output().splitlines() == [
        "touch: /conf/x: Read-only file system",
        *("/conf", "/conf/d", "/conf/d/one", "/conf/run", "/conf/run/x", "inside"),
    ]


async def test_a_bind_source_that_went_in_the_last_moment_is_named_with_what_to_do(make: Make, host: Host) -> None:
    with pytest.raises(InvalidTask, match=f"cannot bind {host.folder}/gone on /data: .* on this host; create it, or use a volume"):
        await make("/bin/true", mounts=(Bind(f"{host.folder}/gone", "/data"),)).start()


async def test_a_bind_that_does_not_answer_keeps_no_other_container_waiting(make: Make, run: Run, host: Host) -> None:
    dead = DeadMount(host.folder / "dead")
    try:
        waiting = asyncio.create_task(make("/bin/true", mounts=(Bind(f"{dead.folder}/data", "/data"),)).start())
        assert (await run("echo on and on")).output() == "on and on\n"
        assert not waiting.done()
        dead.give_up()
        with pytest.raises(AgentError, match=f"cannot bind {dead.folder}/data on /data"):
            await waiting
    finally:
        dead.unmount()
