from __future__ import annotations

import struct

import pytest
from moorage_agent.errors import InvalidTask
from moorage_agent.protocol import Device, Resources, Security, Sysctl, Ulimit
from moorage_agent.runtime import capabilities, devices, limits
from moorage_agent.runtime.request import Rule

V1 = dict.fromkeys(("memory", "cpu", "cpuacct", "pids", "devices"), 1)
V2 = dict.fromkeys(("memory", "cpu", "pids"), 2)
EVERYTHING = Resources(
    cpu_limit=1500, cpu_reservation=250, memory_limit=1 << 20, memory_reservation=1 << 19, swap_limit=1 << 18, pids_limit=9
)


def test_writes_of_version_1() -> None:
    assert limits.cgroup_writes(EVERYTHING, V1) == [
        ("pids", "pids.max", b"9", False),
        ("memory", "memory.limit_in_bytes", b"1048576", False),
        ("memory", "memory.memsw.limit_in_bytes", b"1310720", True),
        ("memory", "memory.soft_limit_in_bytes", b"524288", False),
        ("cpu", "cpu.shares", b"256", False),
        ("cpu", "cpu.cfs_period_us", b"100000", False),
        ("cpu", "cpu.cfs_quota_us", b"150000", False),
    ]


def test_writes_of_version_2() -> None:
    assert limits.cgroup_writes(EVERYTHING, V2) == [
        ("pids", "pids.max", b"9", False),
        ("memory", "memory.max", b"1048576", False),
        ("memory", "memory.swap.max", b"262144", True),
        ("memory", "memory.low", b"524288", False),
        ("cpu", "cpu.weight", b"35", False),
        ("cpu", "cpu.max", b"150000 100000", False),
    ]


def test_without_wishes_only_processes_are_limited() -> None:
    assert limits.cgroup_writes(Resources(), V2) == [("pids", "pids.max", b"4096", False)]
    assert limits.cgroup_writes(Resources(), {}) == []


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 100), (262144, 10000), (0, 1), (1 << 30, 10000)])
def test_weights_at_their_ends(shares: int, weight: int) -> None:
    assert limits.weight(shares) == weight


def test_weights_grow_with_shares() -> None:
    weights = [limits.weight(shares) for shares in range(2, 262144, 97)]
    assert weights == sorted(weights)


@pytest.mark.parametrize(("millis", "shares", "quota"), [(1, 2, 1000), (1000, 1024, 100000), (250, 256, 25000), (10**9, 262144, 10**11)])
def test_cpu(millis: int, shares: int, quota: int) -> None:
    assert (limits.shares(millis), limits.quota_us(millis)) == (shares, quota)


def test_ulimits() -> None:
    assert limits.rlimits([Ulimit("nofile", 1, 2), Ulimit("RLIMIT_CORE", -1, -1)]) == [(7, 1, 2), (4, -1, -1)]
    for wrong in (Ulimit("files", 1, 2), Ulimit("nofile", 3, 2), Ulimit("nofile", -1, 2)):
        with pytest.raises(InvalidTask):
            limits.rlimits([wrong])


@pytest.mark.parametrize(
    ("name", "isolated", "private", "allowed"),
    [
        ("net.core.somaxconn", True, True, True),
        ("net/core/somaxconn", True, True, True),
        ("net.core.somaxconn", False, True, False),
        ("kernel.shmmax", True, True, True),
        ("kernel.shmmax", True, False, False),
        ("fs.mqueue.msg_max", True, True, True),
        ("kernel.sem", True, True, True),
        ("kernel.semaphore", True, True, False),
        ("kernel.core_pattern", True, True, False),
        ("net..x", True, True, False),
        ("net.$(x)", True, True, False),
        ("", True, True, False),
    ],
)
def test_sysctls(name: str, isolated: bool, private: bool, allowed: bool) -> None:
    def ask() -> list[tuple[bytes, bytes]]:
        return limits.sysctl_writes([Sysctl(name, "1")], isolated_network=isolated, private_ipc=private)

    if allowed:
        assert ask()[-1] == (name.replace(".", "/").encode(), b"1")
    else:
        with pytest.raises(InvalidTask):
            ask()


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], capabilities.DEFAULT),
        (["NET_RAW"], ["CHOWN"], [*(set(capabilities.DEFAULT) - {"CHOWN"}), "NET_RAW"]),
        (["cap_net_raw"], ["ALL"], ["NET_RAW"]),
        (["ALL"], ["SYS_ADMIN"], [name for name in capabilities.NAMES if name != "SYS_ADMIN"]),
        ([], ["ALL"], []),
    ],
)
def test_capabilities(add: list[str], drop: list[str], expected: list[str]) -> None:
    assert set(capabilities.names(capabilities.mask(add, drop))) == set(expected)


def test_unknown_capability_is_refused() -> None:
    with pytest.raises(InvalidTask, match="NET_ADMINS"):
        capabilities.mask(["NET_ADMINS"])


def test_default_is_never_more_than_dockers() -> None:
    assert capabilities.mask() & ~0xA80425FB == 0


# --- device programs


def allows(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """Run the eBPF program as the kernel would."""
    context = (sum({"m": 1, "r": 2, "w": 4}[letter] for letter in access) << 16 | {"b": 1, "c": 2}[kind], major, minor)
    registers = [0] * 11
    at = 0
    while True:
        code, both, jump, constant = struct.unpack_from("=BBhi", program, at * 8)
        target, source = both & 15, both >> 4
        at += 1
        if code == 0x61:
            registers[target] = context[jump // 4]
        elif code == 0xBF:
            registers[target] = registers[source]
        elif code == 0xB7:
            registers[target] = constant
        elif code == 0x57:
            registers[target] &= constant
        elif code == 0x77:
            registers[target] >>= constant
        elif code == 0x55:
            at += jump if registers[target] != constant else 0
        else:
            assert code == 0x95
            return bool(registers[0])


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "expected"),
    [
        ("c", 1, 3, "rw", True),
        ("c", 1, 3, "rwm", True),
        ("c", 1, 1, "r", False),
        ("c", 1, 1, "m", True),
        ("c", 1, 1, "rm", False),
        ("b", 8, 0, "r", False),
        ("b", 8, 0, "m", True),
        ("c", 136, 77, "rw", True),
        ("c", 10, 229, "rw", False),
        ("b", 7, 1, "r", True),
        ("b", 7, 1, "w", False),
        ("b", 7, 2, "r", False),
    ],
)
def test_device_program(kind: str, major: int, minor: int, access: str, expected: bool) -> None:
    rules: list[Rule] = [*devices.STANDARD, ("b", 7, 1, "r")]
    assert allows(devices.bpf_program(rules), kind, major, minor, access) is expected


def test_device_lines_of_version_1() -> None:
    assert devices.v1_lines([("c", None, None, "m"), ("c", 136, None, "rwm"), ("b", 7, 1, "r")]) == [b"c *:* m", b"c 136:* rwm", b"b 7:1 r"]


def test_devices_are_the_hosts_and_below_dev() -> None:
    (node,) = limits.device_nodes([Device("/dev/null", "/dev/nothing")])
    assert node[:4] == (b"/dev/nothing", "c", 1, 3)
    for wrong, says in (
        (Device("/dev/no-such-device"), "No such file or directory on this host; correct the path, or place the task where it is"),
        (Device("/etc/passwd", "/dev/x"), "is not a device on this host; correct the path, or place the task where it is"),
        (Device("/dev/null", "/dev/../x"), "not a path below /dev/"),
        (Device("/dev/null", "/x"), "not a path below /dev/"),
    ):
        with pytest.raises(InvalidTask, match=says):
            limits.device_nodes([wrong])


def test_standard_rules_are_inherited_and_own_ones_added() -> None:
    assert limits.device_rules(Security(), []) is None
    security = Security(devices=(Device("/dev/null", permissions="r"),))
    rules = limits.device_rules(security, limits.device_nodes(security.devices))
    assert rules == [*devices.STANDARD, ("c", 1, 3, "r")]
