"""A bare host is a machine of its own to whoever logs in, can be put through what befalls machines, and leaves nothing."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import asyncssh
import pytest

from tests.fleet import BareHost, Bridge, HostSpec, links
from tests.kube import Registry, busybox_image
from tests.machine.waiting import eventually

pytestmark = pytest.mark.root

PLAIN_TOP = "bin boot dev etc home lib lib64 media mnt opt proc root run sbin srv sys tmp usr var"

Hosts = Callable[..., list[BareHost]]


@pytest.fixture
def host(hosts: Hosts) -> BareHost:
    (one,) = hosts(1)
    return one


def known_hosts(host: BareHost) -> asyncssh.SSHKnownHosts:
    return asyncssh.import_known_hosts(host.known_hosts_line + "\n")


@asynccontextmanager
async def login(host: BareHost) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """As a careful client does it: by key, and only if the host shows the key it should."""
    async with asyncssh.connect(
        host.address, username=host.user, client_keys=[str(host.key_file)], known_hosts=known_hosts(host), config=None, connect_timeout=5
    ) as connection:
        yield connection


async def said(host: BareHost, command: str) -> str:
    async with login(host) as connection:
        return str((await connection.run(command, check=True)).stdout).strip()


# --- what it is


async def test_root_logs_in_by_key_and_finds_a_machine_of_its_own(hosts: Hosts) -> None:
    one, two = hosts(2)
    question = "hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id; cat /proc/1/ns/pid 2>/dev/null; readlink /proc/1/ns/net"
    answers = [(await said(host, question)).split() for host in (one, two)]
    assert answers[0][:3] == [one.name, one.machine_id, one.boot_id]
    assert not set(answers[0]) & set(answers[1])


async def test_python3_is_the_distributions(host: BareHost) -> None:
    assert await said(host, "command -v python3") == "/usr/bin/python3"
    assert (await said(host, "echo $PATH")).split(":")[-2:] == ["/sbin", "/bin"]


def test_python3_can_be_another_one(hosts: Hosts) -> None:
    own = Path(sys.executable).resolve()
    (host,) = hosts(1, HostSpec(python=own))
    answer = host.run("python3", "-I", "-c", "import sys, ssl, ctypes; print(sys.executable, *sys.version_info[:3])").stdout.split()
    assert answer == ["/usr/local/bin/python3", *map(str, sys.version_info[:3])]


def test_a_program_can_be_hidden(hosts: Hosts) -> None:
    (host,) = hosts(1, HostSpec(hidden=("/usr/bin/python3",)))
    assert host.run("sh", "-c", "command -v python3", check=False).returncode != 0


def test_nothing_of_the_developers_is_seen(host: BareHost) -> None:
    assert host.run("ls", "/root", "/home", "/opt", "/usr/local/bin").stdout.split() == ["/home:", "/opt:", "/root:", "/usr/local/bin:"]
    assert set(host.run("ls", "/").stdout.split()) <= set(PLAIN_TOP.split())


@pytest.mark.parametrize("become", ["sudo", "doas"])
async def test_another_user_becomes_root_without_a_password(hosts: Hosts, become: str) -> None:
    (host,) = hosts(1, HostSpec(user="ops", become=become))
    assert await said(host, "id -un") == "ops"
    assert await said(host, f"{become} -n id -un") == "root"


async def test_options_of_sshd_are_obeyed(hosts: Hosts) -> None:
    (host,) = hosts(1, HostSpec(sshd={"MaxSessions": "1", "AllowTcpForwarding": "no"}))
    async with login(host) as connection, connection.create_process("cat"):
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.run("true")


def test_commands_run_at_its_own_root(host: BareHost) -> None:
    assert host.run("sh", "-c", "pwd; ls -di . /").stderr == ""
    assert len({line.split()[0] for line in host.run("ls", "-di", ".", "/").stdout.splitlines()}) == 1


def test_its_control_groups_begin_at_its_own(host: BareHost) -> None:
    lines = host.run("cat", "/proc/self/cgroup").stdout.splitlines()
    assert {line.split(":", 2)[2] for line in lines} <= {"/", "/init.scope"}
    for hierarchy in host.run("findmnt", "-rno", "TARGET", "-t", "cgroup,cgroup2").stdout.split():
        procs = host.run("cat", f"{hierarchy}/cgroup.procs").stdout.split()
        assert len(procs) < 10, "the processes of the whole machine"
        host.run("mkdir", f"{hierarchy}/probe")
        host.run("rmdir", f"{hierarchy}/probe")


def test_overlays_can_be_mounted_on_its_disk(host: BareHost) -> None:
    mount = "mkdir l u w m; mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m; touch m/x; umount m; test -e u/x"
    host.run("sh", "-ec", f"cd /var/lib/moorage; {mount}")


def test_hosts_reach_each_other_and_the_bench(hosts: Hosts, bridge: Bridge) -> None:
    one, two = hosts(2)
    with socket.create_server((bridge.address, 0)) as listener:
        for address, port in ((two.address, 22), (bridge.address, listener.getsockname()[1])):
            one.run("python3", "-c", f"import socket; socket.create_connection(({address!r}, {port}), 2)")


def test_hosts_reach_the_registry(host: BareHost, registry: Registry) -> None:
    busybox_image(registry, "probe:1")
    ask = f"import urllib.request; print(urllib.request.urlopen('{registry.url}/v2/probe/tags/list').read().decode())"
    assert json.loads(host.run("python3", "-c", ask).stdout)["tags"] == ["1"]


# --- what befalls it


def test_a_reboot_keeps_the_disk_and_nothing_else(host: BareHost) -> None:
    before = host.boot_id
    host.run("sh", "-c", "touch /var/lib/moorage/kept /etc/kept /run/lost; sleep 1000 > /dev/null 2>&1 &")
    host.reboot()
    assert host.run("ls", "/var/lib/moorage/kept", "/etc/kept").returncode == 0
    assert not host.path("/run/lost").exists()
    assert "sleep 1000" not in host.traces().processes
    assert host.run("cat", "/proc/sys/kernel/random/boot_id").stdout.strip() == host.boot_id != before


def test_a_killed_host_has_no_process_left(host: BareHost) -> None:
    host.run("sh", "-c", "setsid sleep 1000 > /dev/null 2>&1 &")
    pids = [process.pid for process in host.processes()]
    assert len(pids) >= 3
    host.kill()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    host.boot()


async def test_a_cut_cable_is_silence_and_a_healed_one_works(host: BareHost) -> None:
    host.cut()
    with pytest.raises(TimeoutError):
        await asyncssh.connect(host.address, known_hosts=None, config=None, connect_timeout=0.5)
    host.heal()
    assert await said(host, "echo here") == "here"


@pytest.mark.parametrize("mute", [True, False])
def test_a_one_way_cable_carries_one_way(host: BareHost, bridge: Bridge, mute: bool) -> None:
    host.one_way(mute=mute)
    before = frames_heard_by(host)
    with suppress(TimeoutError):
        connect_time(host)
    assert (frames_heard_by(host) > before) == mute
    assert hears(bridge, host) == (not mute)
    host.heal()
    assert connect_time(host) < 1


def hears(bridge: Bridge, host: BareHost) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((bridge.address, 0))
        listener.settimeout(0.3)
        host.run("python3", "-c", f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', {listener.getsockname()})")
        try:
            listener.recv(1)
        except TimeoutError:
            return False
        return True


def frames_heard_by(host: BareHost) -> int:
    return int(host.path("/sys/class/net/eth0/statistics/rx_packets").read_text())


def test_a_slow_cable_delays_both_ways(host: BareHost) -> None:
    host.slow(40)
    assert 0.08 <= min(connect_time(host, timeout_s=3) for _ in range(3)) < 0.8
    host.heal()
    assert min(connect_time(host) for _ in range(3)) < 0.08


def connect_time(host: BareHost, *, timeout_s: float = 0.5) -> float:
    """Seconds for one way there and one back. The answer is the kernel's: no process takes part."""
    started = time.perf_counter()
    with socket.create_connection((host.address, 22), timeout_s):
        return time.perf_counter() - started


async def test_a_losing_cable_carries_everything_in_the_end(host: BareHost) -> None:
    host.slow(1, loss=0.02)
    sent = os.urandom(2_000_000)
    async with login(host) as connection:
        result = await connection.run("sha256sum; wc -c < /dev/null", input=sent, encoding=None, check=True)
    assert isinstance(result.stdout, bytes)
    assert result.stdout.split()[0].decode() == hashlib.sha256(sent).hexdigest()


async def test_a_narrow_cable_carries_no_more_than_its_rate(host: BareHost) -> None:
    host.slow(1, rate=1_000_000)
    async with login(host) as connection:
        started = time.monotonic()
        result = await connection.run("wc -c", input=bytes(1_500_000), encoding=None, check=True)
    assert result.stdout == b"1500000\n"
    assert time.monotonic() - started > 1.4


def test_a_frozen_host_accepts_connections_and_says_nothing(host: BareHost) -> None:
    host.freeze()
    connect_time(host)
    assert not host.listens()
    host.thaw()
    host.wait_for_sshd()


def test_a_frozen_host_can_be_killed(host: BareHost) -> None:
    host.freeze()
    host.kill()
    host.boot()


async def test_without_sshd_connections_are_refused(host: BareHost) -> None:
    async with login(host) as connection:
        host.stop_sshd(sessions=False)
        assert (await connection.run("echo still")).stdout == "still\n"
        with pytest.raises(ConnectionRefusedError):
            await asyncssh.connect(host.address, known_hosts=None, config=None)
    host.start_sshd()
    assert await said(host, "echo again") == "again"


async def test_a_changed_host_key_is_noticed(host: BareHost) -> None:
    expected = known_hosts(host)
    host.change_host_key()
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        await asyncssh.connect(host.address, known_hosts=expected, config=None)
    assert await said(host, "echo trusted anew") == "trusted anew"


def test_a_full_disk_takes_nothing_until_freed(hosts: Hosts) -> None:
    (host,) = hosts(1, HostSpec(disk_mb=64))
    write = ("sh", "-c", "head -c 4000000 /dev/zero > /var/lib/moorage/file")
    host.fill_disk()
    refused = host.run(*write, check=False)
    assert "No space left" in refused.stderr
    host.free_disk()
    host.run(*write)
    host.reboot()
    assert host.path("/var/lib/moorage/file").stat().st_size == 4_000_000


# --- what it leaves


def test_traces_name_what_was_left_behind(host: BareHost) -> None:
    before = host.traces()
    host.run("sh", "-c", "mkdir /run/m; mount -t tmpfs t /run/m; ip link add left type veth peer name right; sleep 999 > /dev/null 2>&1 &")
    left = ["processes: sleep 999", "mounts: /run/m", "links: left", "links: right"]
    eventually("the shell's child has become sleep", lambda: "sleep 999" in host.traces().processes)
    assert host.traces().since(before) == left


class Run(NamedTuple):
    """By what the traces of a bridge on this machine are known."""

    id: str
    folder: str
    group: str

    def traces(self) -> set[str]:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        loops = subprocess.run(["losetup", "--noheadings", "--output", "BACK-FILE"], capture_output=True, text=True, check=True).stdout
        return {
            *(f"link {link['ifname']}" for link in links.show("link") if self.id in link["ifname"]),
            *(f"mount {line}" for line in mounts if self.folder in line),
            # os.walk passes over what vanishes under its feet, as these do here; Path.glob raises.
            *(f"control group {path}" for path, _, _ in os.walk("/sys/fs/cgroup") if path.endswith(f"/{self.group}")),
            *(f"loop device of {line}" for line in loops.splitlines() if self.folder in line),
            *(f"process {path}" for path in Path("/proc").glob("[0-9]*/cmdline") if self.folder.encode() in quietly_read(path)),
            *(f"folder {path}" for path in [self.folder] if Path(path).exists()),
        }


def quietly_read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


BUSY = "for h in /sys/fs/cgroup/*/cgroup.procs; do mkdir -p ${h%/*}/a/b; done; setsid sleep 1000 > /dev/null 2>&1 &"


def test_a_closed_bridge_leaves_nothing() -> None:
    with Bridge() as bridge:
        run = Run(bridge.id, str(bridge.folder), bridge.group)
        bridge.host(spec=HostSpec(disk_mb=64)).run("sh", "-c", BUSY)
        assert {trace.split()[0] for trace in run.traces()} == {"link", "control", "loop", "process", "folder"}
    assert run.traces() == set()


def test_a_killed_run_leaves_nothing_either() -> None:
    script = (
        "from tests.fleet import Bridge, HostSpec; import os, signal\n"
        "bridge = Bridge(); one = bridge.host(spec=HostSpec(disk_mb=64)); two = bridge.host(); two.freeze()\n"
        "print(bridge.id, bridge.folder, bridge.group, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60)
    assert done.stdout, done.stderr
    run = Run(*done.stdout.split())
    eventually("everything of the killed run is gone", lambda: not run.traces())
