"""Ports and addresses nobody else uses."""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack


def own_loopback() -> str:
    """An address of 127/8 of this run's own: two runs on one machine may then pick the same port."""
    return f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}.{secrets.randbelow(254) + 1}"


def free_port(address: str) -> int:
    return free_ports(address, 1)[0]


def free_ports(address: str, count: int) -> list[int]:
    """Different ones: a port that was looked at and let go may be found again."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((address, 0))
        return [probe.getsockname()[1] for probe in probes]
