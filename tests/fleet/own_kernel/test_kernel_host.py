"""A host with a kernel of its own shows what namespaces cannot: systemd, cgroup v2, real reboots and power cuts."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.fleet import Bridge, KernelHost, cgroups
from tests.fleet.traces import process_of

pytestmark = pytest.mark.uml

KernelHosts = Callable[..., list[KernelHost]]


@pytest.fixture
def host(kernel_hosts: KernelHosts) -> KernelHost:
    (one,) = kernel_hosts(1)
    return one


def test_systemd_runs_and_cgroup_v2_has_every_controller(host: KernelHost) -> None:
    assert host.run("cat", "/proc/1/comm").stdout == "systemd\n"
    assert host.run("systemctl", "is-system-running", "--wait", check=False).stdout == "running\n"
    controllers = host.run("cat", "/sys/fs/cgroup/cgroup.controllers").stdout.split()
    assert {"cpuset", "cpu", "io", "memory", "pids"} <= set(controllers)


def test_its_kernel_ends_what_takes_too_much_memory(host: KernelHost) -> None:
    greedy = "bytearray(200 << 20)"
    done = host.run("systemd-run", "--wait", "--pipe", "-pMemoryMax=50M", "-pMemorySwapMax=0", "python3", "-c", greedy, check=False)
    assert done.returncode != 0
    assert "oom-kill" in host.run("journalctl", "--no-pager", "-k", "-o", "cat").stdout


def test_two_hosts_are_two_machines_that_reach_each_other(kernel_hosts: KernelHosts) -> None:
    one, two = kernel_hosts(2)
    assert (one.machine_id, one.boot_id) != (two.machine_id, two.boot_id)
    assert one.run("uname", "-n").stdout.strip() == one.name
    one.run("python3", "-c", f"import socket; socket.create_connection(({two.address!r}, 22), 5)")


def test_a_reboot_keeps_the_disk_and_nothing_else(host: KernelHost) -> None:
    before = host.boot_id
    host.run("touch", "/root/kept", "/run/lost")
    host.reboot()
    assert host.boot_id != before
    host.run("test", "-e", "/root/kept")
    assert host.run("test", "-e", "/run/lost", check=False).returncode == 1


def test_a_power_cut_keeps_what_was_synced(host: KernelHost) -> None:
    host.run("sh", "-c", "echo important > /root/kept; sync /root/kept")
    host.kill()
    host.boot()
    assert host.run("cat", "/root/kept").stdout == "important\n"


def test_an_orderly_end_ends_its_process(host: KernelHost) -> None:
    host.shut_down()
    assert not host.running
    host.boot()


def test_a_frozen_host_answers_nothing_and_goes_on_when_thawed(host: KernelHost) -> None:
    host.freeze()
    assert not host.listens()
    host.thaw()
    host.wait_for_sshd()


def test_a_cut_cable_is_silence_and_a_healed_one_works(host: KernelHost) -> None:
    host.cut()
    assert not host.listens()
    host.heal()
    host.wait_for_sshd()
    host.slow(20)
    assert host.run("echo", "slowly").stdout == "slowly\n"
    host.heal()


def test_much_data_comes_through(host: KernelHost) -> None:
    done = host.run("sh", "-c", "head -c 20000000 /dev/zero | sha256sum; wc -c", input="x" * 10_000_000)
    assert done.stdout.split()[-1] == "10000000"


def test_a_container_hosts_kernel_is_complete(host: KernelHost) -> None:
    """What the configuration is for; each line fails where a part is missing."""
    for command in (
        "mkdir -p /t/l /t/u /t/w /t/m && mount -t overlay o -o lowerdir=/t/l,upperdir=/t/u,workdir=/t/w /t/m",
        "unshare --user --map-root-user --pid --fork --mount-proc true",
        "nft 'add table inet t; add chain inet t c { type nat hook postrouting priority 0; }; add rule inet t c masquerade'",
        "ip link add v0 type veth peer name v1 && ip link add br9 type bridge && ip link add x0 type vxlan id 1 dstport 4789",
        "ip link add wg0 type wireguard",
        "systemd-run --scope -pDelegate=yes true",
        "grep -q Seccomp_filters /proc/self/status",
        "cat /proc/pressure/memory /sys/kernel/security/lsm | grep -q apparmor",
    ):
        done = host.run("sh", "-c", command, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_commands_that_hang_are_given_up(host: KernelHost) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        host.run("sleep", "100", timeout_s=1)


def test_a_closed_bridge_leaves_no_kernel_running() -> None:
    with Bridge() as bridge:
        host = bridge.kernel_host()
        pids = cgroups.processes(host.group)
        assert len(pids) >= 2
    assert not [pid for pid in pids if process_of(pid)]
    assert not cgroups.folders(bridge.group)
    assert not bridge.folder.exists()
