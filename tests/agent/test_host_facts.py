from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from moorage_agent.facts import architecture, memory_total, os_name
from moorage_agent.features import Host, cgroup2_mount, cgroup_mode, features, kernel_version, missing
from moorage_agent.listeners import foreign_listeners, listening

V1 = """30 25 0:27 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
31 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
"""
NAMED = "32 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
UNIFIED = "33 25 0:30 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate\n"
V2 = "33 25 0:30 / /sys/fs/cgroup rw shared:10 - cgroup2 cgroup2 rw\n"

TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F91 0100007F:A0A0 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 20 4 30 10 -1
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000000000000000 100 0 0 10 0
"""


def host(**changes: str) -> Host:
    whole = {
        "filesystems": "nodev\tsysfs\n\text4\nnodev\toverlay\n",
        "status": "CapEff:\t000001ffffffffff\nSeccomp:\t0\n",
        "mountinfo": V2,
        "cgroups": "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t1\n",
        "controllers": "cpuset cpu io memory pids\n",
        "kernel": "6.1.0-18-amd64",
        "apparmor": "Y\n",
        "user_namespaces": "15000\n",
    }
    return Host(**{**whole, **changes})


def test_a_whole_host_lacks_nothing() -> None:
    assert [feature.name for feature in features(host()) if not feature.present] == []


@pytest.mark.parametrize(
    ("changes", "lacking", "says"),
    [
        ({"filesystems": "\text4\n"}, "overlay", "modprobe overlay"),
        ({"controllers": "cpu pids"}, "memory", "no cgroup hierarchy with memory"),
        ({"controllers": "cpu pids", "cgroups": "memory\t0\t1\t0\n"}, "memory", "cgroup_enable=memory"),
        ({"kernel": "5.4.0-generic"}, "kernel", "older than 5.8"),
        ({"status": "CapEff:\t000001fffeffffff\nSeccomp:\t0\n"}, "SYS_RESOURCE", "CAP_SYS_RESOURCE"),
        ({"apparmor": ""}, "apparmor", "AppArmor"),
        ({"user_namespaces": "0\n"}, "user-namespaces", "max_user_namespaces"),
    ],
)
def test_what_is_missing_is_named_with_its_cost(changes: dict[str, str], lacking: str, says: str) -> None:
    found = {feature.name: feature for feature in features(host(**changes))}
    assert not found[lacking].present
    assert says in found[lacking].detail


def test_only_some_features_keep_every_container_from_starting() -> None:
    assert [one.name for one in missing(features(host(filesystems="", apparmor="")))] == ["overlay"]


@pytest.mark.parametrize(("release", "lacking"), [("5.7.19", ["kernel"]), ("5.8.0-63-generic", [])])
def test_the_oldest_kernel_is_the_one_the_readme_names(release: str, lacking: list[str]) -> None:
    assert [one.name for one in missing(features(host(kernel=release)))] == lacking
    assert "\nLinux 5.8 or newer" in (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.parametrize(
    ("mountinfo", "mode"), [(V2, "v2"), (V1 + NAMED, "v1"), (V1 + NAMED + UNIFIED, "hybrid"), ("", "none"), (NAMED + UNIFIED, "v2")]
)
def test_cgroup_mode(mountinfo: str, mode: str) -> None:
    assert cgroup_mode(host(mountinfo=mountinfo)) == mode


def test_the_unified_tree_is_found_wherever_it_is() -> None:
    assert cgroup2_mount(V1 + UNIFIED) == "/sys/fs/cgroup/unified"


@pytest.mark.parametrize(
    ("release", "version"), [("6.18.5-amd64", (6, 18)), ("5.15", (5, 15)), ("6.1+rpt-rpi-v8", (6, 1)), ("odd", (0, 0))]
)
def test_kernel_versions(release: str, version: tuple[int, int]) -> None:
    assert kernel_version(release) == version


def test_listening_ports_are_read_from_proc() -> None:
    assert list(listening(TCP, "TCP")) == [(8080, "4711"), (22, "4713")]


def test_a_listener_of_this_host_is_found_with_its_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = [one for one in foreign_listeners() if one.port == port]
    with open("/proc/self/comm", encoding="ascii") as file:
        assert [one.process for one in found] == [file.read().strip()]


def test_a_listener_in_one_of_our_cgroups_is_not_foreign(tmp_path: Any) -> None:
    for pid, cgroup, inode in ((7, "0::/moorage/ct/x", 4711), (8, "0::/user.slice", 4713)):
        (tmp_path / f"{pid}/fd").mkdir(parents=True)
        (tmp_path / f"{pid}/cgroup").write_text(cgroup)
        (tmp_path / f"{pid}/comm").write_text(f"p{pid}\n")
        os.symlink(f"socket:[{inode}]", tmp_path / f"{pid}/fd/3")
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text(TCP)
    assert [(one.port, one.process) for one in foreign_listeners(str(tmp_path))] == [(22, "p8")]


def test_small_facts() -> None:
    assert architecture("x86_64") == "amd64"
    assert architecture("riscv64") == "riscv64"
    assert os_name('NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n') == "Debian GNU/Linux 12 (bookworm)"
    assert memory_total("MemTotal:       16384 kB\nMemFree: 1 kB\n") == 16 * 1024 * 1024
