"""From a Launch to what the zygote is sent: names become numbers, policy becomes lists. The daemon's side."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence

from moorage_agent.errors import HostLacks, InvalidTask
from moorage_agent.runtime import capabilities, limits, linux, seccomp
from moorage_agent.runtime.binds import HOST_SHM, OpenBind
from moorage_agent.runtime.launch import DEFAULT_SHM_BYTES, Bind, Launch, Tmpfs
from moorage_agent.runtime.request import Confinement, StartRequest

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_NOFILE = (limits.RLIMITS["nofile"], 1024, 524288)  # systemd's: programs that close every possible descriptor stay quick

# Docker's lists: what the kernel shows of the host there is no container's business.
MASKED = (
    "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi /proc/timer_list "
    "/proc/timer_stats /sys/devices/virtual/powercap /sys/firmware"
).split()
READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger".split()


def start_request(launch: Launch, binds: Sequence[OpenBind], versions: Mapping[str, int], *, app_armor: str) -> StartRequest:
    """`versions`: which cgroup version holds each controller. `app_armor`: the profile loaded on this host, "" without one."""
    security = launch.security
    nodes = limits.device_nodes(security.devices)
    host_pid, host_ipc = security.pid == "Host", security.ipc == "Host"
    isolated = launch.network == "Isolated"
    return {
        "uid": launch.uid,
        "run": launch.run,
        "layers": [layer.encode() for layer in launch.layers],
        "argv": [os.fsencode(argument) for argument in launch.argv],
        "hostname": _hostname(launch).encode(),
        "tty": launch.tty,
        "init": launch.init,
        "read_only": launch.read_only,
        "privileged": security.privileged,
        "isolated_network": isolated,
        "private_pid": not host_pid,
        "private_ipc": not host_ipc,
        "mounts": _mounts(launch, binds),
        "files": _files(launch),
        "devices": nodes,
        "device_rules": limits.device_rules(security, nodes),
        "limits": limits.cgroup_writes(launch.resources, versions),
        "sysctls": limits.sysctl_writes(security.sysctls, isolated_network=isolated, private_ipc=not host_ipc),
        "shm_size": security.shm_size or DEFAULT_SHM_BYTES,
        "masked": [] if security.privileged else [path.encode() for path in (*MASKED, *_thermal_throttles())],
        "read_only_paths": [] if security.privileged else [path.encode() for path in READ_ONLY],
        "nodev": not security.privileged,
        "log_size": launch.logs.max_size,
        "log_files": launch.logs.max_files,
        "confinement": _confinement(launch, app_armor),
    }


def _confinement(launch: Launch, app_armor: str) -> Confinement:
    security = launch.security
    mask = _capabilities(launch)
    filtered = security.seccomp == "RuntimeDefault" and not security.privileged
    profile = app_armor if security.app_armor == "RuntimeDefault" and not security.privileged else ""
    own_limits = limits.rlimits(security.ulimits)
    if not any(resource == DEFAULT_NOFILE[0] for resource, _, _ in own_limits):
        own_limits.append(_nofile())
    return {
        "user": launch.user.encode(),
        "groups": [group.encode() for group in launch.groups],
        "capabilities": mask,
        "no_new_privs": security.no_new_privs and not security.privileged,
        "seccomp": _filter(mask) if filtered else b"",
        "app_armor": profile.encode(),
        "rlimits": own_limits,
        "oom_score_adj": _oom_score(security.oom_score_adj),
        "cwd": os.fsencode(launch.cwd),
        "env": [os.fsencode(variable) for variable in _env(launch)],
    }


def _capabilities(launch: Launch) -> int:
    """All that is asked for, as far as this host gives it to us: "all" means that, a name means that one."""
    security, given = launch.security, linux.bounding_set()
    mask = capabilities.mask(security.cap_add, security.cap_drop, privileged=security.privileged)
    named = capabilities.mask([name for name in security.cap_add if name.upper() not in ("ALL", "CAP_ALL")], ["ALL"])
    lacking = capabilities.names(named & mask & ~given)
    if lacking:
        remedy = "leave it out of security.capAdd, or place the task on another host"
        raise HostLacks("NoCapability", f"the agent on this host has no {', '.join(lacking)} to give: {remedy}")
    return mask & given


def _filter(mask: int) -> bytes:
    if linux.MACHINE not in seccomp.AUDIT_ARCH:
        raise HostLacks(
            "NoSeccomp", f"there is no seccomp profile for {linux.MACHINE}; set security.seccomp to Unconfined to run without one"
        )
    return seccomp.default_filter(mask, linux.MACHINE)


def _nofile() -> tuple[int, int, int]:
    """The usual limits, as far as this process could give them itself: more needs CAP_SYS_RESOURCE."""
    resource, soft, hard = DEFAULT_NOFILE
    allowed = linux.getrlimit(resource)[1]
    return resource, min(soft, allowed), min(hard, allowed)


def _oom_score(wanted: int | None) -> int:
    score = wanted or 0
    if not -1000 <= score <= 1000:
        raise InvalidTask("InvalidOomScore", f"oomScoreAdj {score} is not between -1000 and 1000")
    return score


def _env(launch: Launch) -> list[str]:
    """Docker's defaults first: of two of one name, the later counts."""
    terminal = ["TERM=xterm"] if launch.tty else []
    return [DEFAULT_PATH, f"HOSTNAME={_hostname(launch)}", *terminal, *launch.env]


def _hostname(launch: Launch) -> str:
    return launch.hostname or launch.uid[:13].rstrip("-")


def _mounts(launch: Launch, binds: Sequence[OpenBind]) -> list[tuple[object, ...]]:
    """Binds are named by the place of their descriptor, see binds.py."""
    found: list[tuple[object, ...]] = []
    place = 0
    if launch.security.ipc == "Host":
        found.append(("bind", HOST_SHM.encode(), place, False, True))
        place += 1
    for mount in launch.mounts:
        if isinstance(mount, Bind):
            found.append(("bind", mount.target.encode(), place, mount.read_only, binds[place].directory))
            place += 1
        else:
            found.append(("tmpfs", mount.target.encode(), _tmpfs_size(mount, launch.resources.memory_limit), mount.mode, mount.read_only))
    return found


def _tmpfs_size(tmpfs: Tmpfs, memory_limit: int | None) -> int | None:
    """None: the kernel's own default, half of the host's memory. Never 0, which the kernel takes for no limit at all."""
    size = memory_limit // 2 if tmpfs.size is None and memory_limit is not None else tmpfs.size
    return None if size is None else max(size, 1)


def _files(launch: Launch) -> list[tuple[bytes, bytes, bytes]]:
    """What every container finds in /etc: written into its own root, so that programs may change or replace them."""
    name = _hostname(launch)
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback", f"127.0.1.1\t{name}"]
    lines += [f"{address}\t{host}" for address, host in launch.hosts]
    hosts = "\n".join(lines) + "\n"
    return [(b"etc", b"hostname", f"{name}\n".encode()), (b"etc", b"hosts", hosts.encode()), (b"etc", b"resolv.conf", _resolv_conf(launch))]


def _resolv_conf(launch: Launch) -> bytes:
    if launch.resolv_conf is not None:
        return launch.resolv_conf.encode()
    if launch.network != "Host":
        return b"# this container has no network but its own loopback\n"
    try:
        with open("/etc/resolv.conf", "rb") as file:
            return file.read(65536)
    except OSError:
        return b""


def _thermal_throttles() -> list[str]:
    return glob.glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
