"""What this host can do and what it lacks. Parsers are pure over text; `look` reads the host."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from moorage_agent.protocol import Feature

CAP_SYS_ADMIN, CAP_SYS_RESOURCE, CAP_NET_ADMIN = 21, 24, 12
NEEDED = ("overlay", "seccomp", "pids", "memory", "cpu", "SYS_ADMIN", "kernel")


@dataclass(frozen=True)
class Host:
    """The texts that decide, as the kernel writes them. `controllers`: of the cgroup2 root; `kernel`: uname's release."""

    filesystems: str
    status: str
    mountinfo: str
    cgroups: str
    controllers: str
    kernel: str
    apparmor: str
    user_namespaces: str


def look() -> Host:
    mountinfo = _read("/proc/self/mountinfo")
    unified = cgroup2_mount(mountinfo)
    return Host(
        filesystems=_read("/proc/filesystems"),
        status=_read("/proc/self/status"),
        mountinfo=mountinfo,
        cgroups=_read("/proc/cgroups"),
        controllers=_read(f"{unified}/cgroup.controllers") if unified else "",
        kernel=os.uname().release,
        apparmor=_read("/sys/module/apparmor/parameters/enabled"),
        user_namespaces=_read("/proc/sys/user/max_user_namespaces"),
    )


def features(host: Host) -> tuple[Feature, ...]:
    """Every feature tasks or the agent may need; an absent one says what is missing and what it costs."""
    return (
        _overlay(host),
        _feature("seccomp", "Seccomp:" in host.status, "the kernel has no CONFIG_SECCOMP: system calls of containers cannot be filtered"),
        *(_controller(host, name) for name in ("memory", "cpu", "pids", "cpuset", "devices")),
        _kernel(host, "kernel", (5, 8), "no container can be started in its cgroup (5.7), and no command in a container"),
        _kernel(host, "idmapped-mounts", (5, 12), "user namespaces cannot share layers and volumes"),
        _feature("user-namespaces", host.user_namespaces.strip() not in ("", "0"), "user.max_user_namespaces is 0 or absent"),
        _feature("apparmor", host.apparmor.startswith("Y"), "the kernel runs no AppArmor: the profile of containers is not enforced"),
        _capability(host, "SYS_ADMIN", CAP_SYS_ADMIN, "no container can be started; run the agent as full root"),
        _capability(host, "SYS_RESOURCE", CAP_SYS_RESOURCE, "limits above the host's and negative oomScoreAdj are refused"),
        _capability(host, "NET_ADMIN", CAP_NET_ADMIN, "networks of containers cannot be configured"),
    )


def cgroup_mode(host: Host) -> str:
    """v2, v1, hybrid (v1 controllers beside a cgroup2 tree) or none."""
    has_v2 = cgroup2_mount(host.mountinfo) is not None
    has_v1 = any(_fstype(line) == "cgroup" and "name=" not in line.split(" - ")[1] for line in host.mountinfo.splitlines())
    if has_v1:
        return "hybrid" if has_v2 else "v1"
    return "v2" if has_v2 else "none"


def cgroup2_mount(mountinfo: str) -> str | None:
    for line in mountinfo.splitlines():
        if _fstype(line) == "cgroup2":
            return line.split(" ")[4]
    return None


def missing(found: tuple[Feature, ...]) -> tuple[Feature, ...]:
    """The absent features without which no container is started."""
    return tuple(feature for feature in found if feature.name in NEEDED and not feature.present)


def _overlay(host: Host) -> Feature:
    names = [line.split("\t")[-1] for line in host.filesystems.splitlines()]
    return _feature("overlay", "overlay" in names, "the kernel has no overlayfs: load the module (modprobe overlay)")


def _controller(host: Host, name: str) -> Feature:
    v2 = name in host.controllers.split() or (name == "devices" and cgroup_mode(host) == "v2")  # v2 filters devices by eBPF
    v1 = any(_fstype(line) == "cgroup" and name in line.split(" - ")[1].split(" ")[-1].split(",") for line in host.mountinfo.splitlines())
    disabled = any(line.split("\t")[:1] == [name] and line.endswith("\t0") for line in host.cgroups.splitlines())
    hint = f"cgroup_disable={name} is on the kernel's command line" if disabled else f"no cgroup hierarchy with {name} is mounted"
    if disabled and name == "memory":
        hint += " or cgroup_enable=memory is missing from it"
    return _feature(name, v1 or v2, f"{hint}: limits of {name} cannot be kept")


def _kernel(host: Host, name: str, since: tuple[int, int], cost: str) -> Feature:
    return _feature(name, kernel_version(host.kernel) >= since, f"kernel {host.kernel} is older than {since[0]}.{since[1]}: {cost}")


def kernel_version(release: str) -> tuple[int, int]:
    """(6, 18) of "6.18.5-amd64"; (0, 0) of what is no release."""
    with contextlib.suppress(ValueError):
        major, minor = release.split("-")[0].split("+")[0].split(".")[:2]
        return int(major), int(minor)
    return 0, 0


def _capability(host: Host, name: str, number: int, cost: str) -> Feature:
    effective = next((line.split()[1] for line in host.status.splitlines() if line.startswith("CapEff:")), "0")
    return _feature(name, bool(int(effective, 16) >> number & 1), f"the agent has no CAP_{name}: {cost}")


def _feature(name: str, present: bool, otherwise: str) -> Feature:
    return Feature(name, present, "" if present else otherwise)


def _fstype(line: str) -> str:
    return line.partition(" - ")[2].split(" ")[0]


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""
