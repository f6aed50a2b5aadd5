"""Ports and addresses nobody else uses."""

from __future__ import annotations

import secrets
import socket


def own_loopback() -> str:
    """An address of 127/8 of this run's own: two runs on one machine may then pick the same port."""
    return f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}.{secrets.randbelow(254) + 1}"


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
