"""What this host gives the containers of the runtime, and what it lacks, in words for people. `features` is pure over what `look` read."""

from __future__ import annotations

import os
from dataclasses import dataclass

from moorage_agent.protocol import Feature
from moorage_agent.runtime import apparmor, cgroup, linux, seccomp


@dataclass(frozen=True)
class Abilities:
    machine: str
    kernel: tuple[int, int]
    cgroup_versions: dict[str, int]
    has_cgroup2: bool
    app_armor: bool
    profile_loaded: bool
    selinux: bool


def look() -> Abilities:
    found = cgroup.mounted()
    return Abilities(
        machine=linux.MACHINE,
        kernel=_kernel(os.uname().release),
        cgroup_versions={name: hierarchy.version for hierarchy in found for name in hierarchy.controllers},
        has_cgroup2=any(hierarchy.version == 2 for hierarchy in found),
        app_armor=apparmor.runs(),
        profile_loaded=apparmor.loaded(),
        selinux=os.path.exists("/sys/fs/selinux/enforce"),
    )


def features(host: Abilities) -> tuple[Feature, ...]:
    return (
        _feature(
            "seccomp-profile",
            host.machine in seccomp.AUDIT_ARCH,
            f"no system call table for {host.machine}: only tasks with seccomp Unconfined start here",
        ),
        _feature(
            "device-rules",
            host.cgroup_versions.get("devices") == 1 or host.has_cgroup2,
            "neither the devices controller nor cgroup2 is mounted: device nodes are held off by nodev mounts alone",
        ),
        _feature("kill-at-once", host.has_cgroup2 and host.kernel >= (5, 14), "no cgroup.kill: tasks with pid Host are killed one by one"),
        _feature("exit-witness", host.kernel >= (6, 15), "an exit code is lost when zygote and shim are both killed (Linux 6.15 keeps it)"),
        _feature(
            "apparmor-profile",
            host.profile_loaded or not host.app_armor,
            "AppArmor runs, and the containers' profile is not loaded: install the package apparmor (apparmor_parser)",
        ),
        _feature(
            "selinux-label",
            not host.selinux,
            "SELinux runs, and containers are given no label of their own: they run as the agent's type allows",
        ),
    )


def _feature(name: str, present: bool, otherwise: str) -> Feature:
    return Feature(name, present, "" if present else otherwise)


def _kernel(release: str) -> tuple[int, int]:
    numbers = [part for part in release.replace("-", ".").replace("+", ".").split(".")[:2] if part.isdigit()]
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else (0, 0)
