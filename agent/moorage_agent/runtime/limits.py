"""What a task's resources, sysctls, ulimits and devices become in the kernel's words. Pure; raises InvalidTask for what it has no words
for."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable, Mapping

from moorage_agent.errors import InvalidTask
from moorage_agent.protocol import Device, Resources, Security, Sysctl, Ulimit
from moorage_agent.runtime.devices import STANDARD
from moorage_agent.runtime.request import Rule

PERIOD_US = 100_000
DEFAULT_PIDS = 4096
Write = tuple[str, str, bytes, bool]

# RLIMIT_* of <asm-generic/resource.h>; every architecture we run on has these.
RLIMITS = {
    name: number
    for number, name in enumerate(
        "cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime".split()
    )
}


def cgroup_writes(resources: Resources, versions: Mapping[str, int]) -> list[Write]:
    """(controller, file, value, may be missing), in the order the kernel wants, by the version that holds each controller here."""
    writes = [("pids", "pids.max", _number(resources.pids_limit or DEFAULT_PIDS), False)]
    writes += _memory_v1(resources) if versions.get("memory") == 1 else _memory_v2(resources)
    writes += _cpu_v1(resources) if versions.get("cpu") == 1 else _cpu_v2(resources)
    return [write for write in writes if write[0] in versions]


def _memory_v1(resources: Resources) -> list[Write]:
    writes: list[Write] = []
    if resources.memory_limit is not None:
        writes.append(("memory", "memory.limit_in_bytes", _number(resources.memory_limit), False))
        # memory and swap together; without swap accounting in the kernel the file is missing
        swap = resources.swap_limit or 0
        writes.append(("memory", "memory.memsw.limit_in_bytes", _number(resources.memory_limit + swap), True))
    if resources.memory_reservation is not None:
        writes.append(("memory", "memory.soft_limit_in_bytes", _number(resources.memory_reservation), False))
    return writes


def _memory_v2(resources: Resources) -> list[Write]:
    writes: list[Write] = []
    if resources.memory_limit is not None:
        writes.append(("memory", "memory.max", _number(resources.memory_limit), False))
        writes.append(("memory", "memory.swap.max", _number(resources.swap_limit or 0), True))
    if resources.memory_reservation is not None:
        writes.append(("memory", "memory.low", _number(resources.memory_reservation), False))
    return writes


def _cpu_v1(resources: Resources) -> list[Write]:
    writes: list[Write] = []
    if resources.cpu_reservation is not None:
        writes.append(("cpu", "cpu.shares", _number(shares(resources.cpu_reservation)), False))
    if resources.cpu_limit is not None:
        writes.append(("cpu", "cpu.cfs_period_us", _number(PERIOD_US), False))
        writes.append(("cpu", "cpu.cfs_quota_us", _number(quota_us(resources.cpu_limit)), False))
    return writes


def _cpu_v2(resources: Resources) -> list[Write]:
    writes: list[Write] = []
    if resources.cpu_reservation is not None:
        writes.append(("cpu", "cpu.weight", _number(weight(shares(resources.cpu_reservation))), False))
    if resources.cpu_limit is not None:
        writes.append(("cpu", "cpu.max", b"%d %d" % (quota_us(resources.cpu_limit), PERIOD_US), False))
    return writes


def _number(value: int) -> bytes:
    return b"%d" % value


def shares(millis: int) -> int:
    """cpu.shares for thousandths of a core: 1024 for one, within what the kernel takes."""
    return min(max(millis * 1024 // 1000, 2), 262144)


def weight(shares: int) -> int:
    """cpu.weight that gives the same part as these shares, 100 for 1024: the formula opencontainers/cgroups uses since 2025."""
    log2 = math.log2(min(max(shares, 2), 262144))
    return math.ceil(10 ** ((log2 * log2 + 125 * log2) / 612 - 7 / 34))


def quota_us(millis: int) -> int:
    """Of each PERIOD_US; the kernel takes no less than 1 ms."""
    return max(millis * PERIOD_US // 1000, 1000)


def rlimits(ulimits: Iterable[Ulimit]) -> list[tuple[int, int, int]]:
    """(resource, soft, hard)."""
    found = []
    for limit in ulimits:
        name = limit.name.lower().removeprefix("rlimit_")
        if name not in RLIMITS:
            raise InvalidTask("UnknownUlimit", f"there is no ulimit {limit.name!r}; there are {', '.join(RLIMITS)}")
        if 0 <= limit.hard < limit.soft or (limit.soft < 0 <= limit.hard):
            raise InvalidTask("InvalidUlimit", f"ulimit {name}: soft {limit.soft} is above hard {limit.hard}")
        found.append((RLIMITS[name], limit.soft, limit.hard))
    return found


_IPC_SYSCTLS = frozenset(("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem"))
_SYSCTL_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./")


def sysctl_writes(sysctls: Iterable[Sysctl], *, isolated_network: bool, private_ipc: bool) -> list[tuple[bytes, bytes]]:
    """(path below /proc/sys, value). Only what belongs to a namespace of the container's own; everything else is the host's."""
    found: list[tuple[bytes, bytes]] = []
    if isolated_network:  # opened to everybody, as Docker does: neither needs a capability then
        found = [(b"net/ipv4/ip_unprivileged_port_start", b"0"), (b"net/ipv4/ping_group_range", b"0 2147483647")]
    for sysctl in sysctls:
        name = sysctl.name.replace("/", ".")
        parts = name.split(".")
        if not all(parts) or not set(name) <= _SYSCTL_LETTERS:
            raise InvalidTask("InvalidSysctl", f"sysctl {sysctl.name!r} is not a name such as net.core.somaxconn")
        of_ipc = name in _IPC_SYSCTLS or name.startswith(("kernel.shm", "fs.mqueue."))
        if not (name.startswith("net.") and isolated_network) and not (of_ipc and private_ipc):
            raise InvalidTask(
                "ForbiddenSysctl", f"sysctl {name} belongs to the host: a container may set net.* of its own network and the IPC ones"
            )
        found.append(("/".join(parts).encode(), sysctl.value.encode()))
    return found


def device_nodes(devices: Iterable[Device]) -> list[tuple[bytes, str, int, int, int]]:
    """(path in the container, "c" or "b", major, minor, mode). Reads the host's nodes; raises InvalidTask when one is none."""
    found, remedy = [], "correct the path, or place the task where it is"
    for device in devices:
        target = device.target or device.path
        if os.path.normpath(target) != target or not target.startswith("/dev/"):
            raise InvalidTask("InvalidDevice", f"device target {target!r} is not a path below /dev/")
        try:
            node = os.stat(device.path)
        except OSError as error:
            raise InvalidTask("NoSuchDevice", f"device {device.path}: {error.strerror} on this host; {remedy}") from error
        if not (stat.S_ISCHR(node.st_mode) or stat.S_ISBLK(node.st_mode)):
            raise InvalidTask("NoSuchDevice", f"{device.path} is not a device on this host; {remedy}")
        kind = "b" if stat.S_ISBLK(node.st_mode) else "c"
        found.append((target.encode(), kind, os.major(node.st_rdev), os.minor(node.st_rdev), stat.S_IMODE(node.st_mode)))
    return found


def device_rules(security: Security, nodes: Iterable[tuple[bytes, str, int, int, int]]) -> list[Rule] | None:
    """None: the standard rules, inherited from the group."""
    if not security.devices and not security.privileged:
        return None
    own: list[Rule] = []
    for device, (_, kind, major, minor, _) in zip(security.devices, nodes):
        if not device.permissions or set(device.permissions) - set("rwm"):
            raise InvalidTask("InvalidDevice", f"device {device.path}: permissions {device.permissions!r} are not of r, w and m")
        own.append((kind, major, minor, device.permissions))
    return [*STANDARD, *own]
