"""What this host is: facts for the operator's Node.status and placement."""

from __future__ import annotations

import os
import sys

from moorage_agent.features import cgroup_mode, features, look
from moorage_agent.listeners import foreign_listeners
from moorage_agent.paths import Paths
from moorage_agent.protocol import RELEASE, Feature, HostFacts
from moorage_agent.version import VERSION
from moorage_agent.volumes import volume_keys

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "ppc64le": "ppc64le", "s390x": "s390x"}


def host_facts(paths: Paths, host_id: str, of_runtime: tuple[Feature, ...] = ()) -> HostFacts:
    """Read the host; what the runtime says of a feature counts. Takes milliseconds, more where thousands of processes run."""
    host = look()
    return HostFacts(
        host_id=host_id,
        hostname=os.uname().nodename,
        os=os_name(_read("/etc/os-release") or _read("/usr/lib/os-release")),
        kernel=host.kernel,
        arch=architecture(os.uname().machine),
        boot_id=paths.boot_id(),
        python=sys.version.split()[0],
        agent_version=VERSION,
        agent_release=RELEASE,
        cpu_millis=len(os.sched_getaffinity(0)) * 1000,
        memory_bytes=memory_total(_read("/proc/meminfo")),
        cgroup=cgroup_mode(host),
        features=tuple({one.name: one for one in (*features(host), *of_runtime)}.values()),
        listeners=foreign_listeners(),
        volumes=volume_keys(paths),
    )


def architecture(machine: str) -> str:
    """The name images use (GOARCH) for a uname machine."""
    return _ARCHITECTURES.get(machine, machine)


def os_name(os_release: str) -> str:
    """PRETTY_NAME of os-release(5)."""
    for line in os_release.splitlines():
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip().strip("\"'")
    return "Linux"


def memory_total(meminfo: str) -> int:
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
