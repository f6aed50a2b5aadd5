"""Containers as a host's own process table shows them, whatever anybody believes of them."""

from __future__ import annotations

from pathlib import Path

from tests.fleet import BareHost, KernelHost

Containers = frozenset[tuple[int, int]]
"""Process id and start time in clock ticks: no two processes share both, so equal sets mean that nothing restarted."""


def containers(host: BareHost, marker: str) -> Containers:
    """Processes of a host whose command line holds the marker."""
    found = [process.pid for process in host.processes() if marker in process.command and "moorage_agent" not in process.command]
    return frozenset((pid, started) for pid in found if (started := start_time(pid)) is not None)


def everywhere(hosts: list[BareHost], marker: str) -> dict[str, Containers]:
    """By name of the running hosts."""
    return {host.name: containers(host, marker) for host in hosts if host.running}


def start_time(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def agent(host: BareHost | KernelHost, *arguments: str, check: bool = True) -> str:
    """What moorage-agent says on the host, as a person there would ask it."""
    return host.run("/var/lib/moorage/agent/current/moorage-agent", *arguments, check=check).stdout
