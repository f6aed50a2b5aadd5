"""Ports of this host that other processes listen on: a container with the host's network would fail to bind them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from moorage_agent.protocol import Listener

_LISTENING = {"TCP": "0A", "UDP": "07"}
_TABLES = (("TCP", "tcp"), ("TCP", "tcp6"), ("UDP", "udp"), ("UDP", "udp6"))
OUR_CGROUP = "/moorage"


def foreign_listeners(proc: str = "/proc") -> tuple[Listener, ...]:
    """Every listening port whose process is not in one of our cgroups, with the process' name where it can be seen."""
    sockets = {}
    for protocol, table in _TABLES:
        for port, inode in listening(_read(f"{proc}/net/{table}"), protocol):
            sockets[inode] = (protocol, port)
    owners = _owners(proc, set(sockets)) if sockets else {}
    found = set()
    for inode, (protocol, port) in sockets.items():
        process = owners.get(inode, "")
        if process is not None:
            found.add(Listener(port, protocol, process))
    return tuple(sorted(found, key=lambda one: (one.port, one.protocol, one.process)))


def listening(table: str, protocol: str) -> Iterator[tuple[int, str]]:
    """Port and socket inode of each listening row of /proc/net/{tcp,udp}. An unconnected UDP socket counts as listening."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTENING[protocol]:
            yield int(fields[1].rpartition(":")[2], 16), fields[9]


def _owners(proc: str, inodes: set[str]) -> dict[str, str | None]:
    """The process that holds each socket, by name; None for one of ours. Stops looking once all are found."""
    found: dict[str, str | None] = {}
    for pid in filter(str.isdigit, os.listdir(proc)):
        for inode in _sockets_of(f"{proc}/{pid}/fd") & inodes:
            ours = OUR_CGROUP in _read(f"{proc}/{pid}/cgroup")
            found[inode] = None if ours else _read(f"{proc}/{pid}/comm").strip()
        if len(found) == len(inodes):
            break
    return found


def _sockets_of(directory: str) -> set[str]:
    """Processes end, and close sockets, while one looks at them."""
    links = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            with contextlib.suppress(OSError):
                link = os.readlink(f"{directory}/{name}")
                if link.startswith("socket:["):
                    links.add(link[8:-1])
    return links


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
