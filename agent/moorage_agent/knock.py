"""TCP and HTTP probes from inside a container's network: the socket is made there, and used from here.

A socket belongs to the network namespace its maker was in. So the loop's thread enters the namespace for the one call of socket(2) and
comes back: microseconds, no process, and the container needs no tool of its own.
"""

from __future__ import annotations

import asyncio
import os
import socket

from moorage_agent.health import KEPT_OUTPUT, Probe
from moorage_agent.runtime import linux

_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


async def knock_tcp(pid: int | None, port: int) -> Probe:
    """Whether something accepts connections on the port. pid None: of the host's own network."""
    connection, why = await _connected(pid, port)
    if connection is None:
        return Probe(False, why)
    connection.close()
    return Probe(True)


async def knock_http(pid: int | None, port: int, path: str) -> Probe:
    """Whether GET answers with 200 to 399."""
    connection, why = await _connected(pid, port)
    if connection is None:
        return Probe(False, why)
    reader, writer = await asyncio.open_connection(sock=connection)
    try:
        request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: moorage\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        answer = await _first(reader)
    finally:
        writer.close()
    status = answer.split(b" ", 2)[1:2]
    ok = answer.startswith(b"HTTP/1.") and bool(status) and status[0].isdigit() and 200 <= int(status[0]) < 400
    return Probe(ok, answer.decode(errors="replace"))


async def _first(reader: asyncio.StreamReader) -> bytes:
    """The beginning of an answer; its end does not matter and may never come."""
    answer = b""
    while len(answer) < KEPT_OUTPUT and b"\r\n" not in answer:
        chunk = await reader.read(KEPT_OUTPUT)
        if not chunk:
            break
        answer += chunk
    return answer[:KEPT_OUTPUT]


async def _connected(pid: int | None, port: int) -> tuple[socket.socket | None, str]:
    why = ""
    for family, address in _LOOPBACKS:
        connection = _socket_of(pid, family)
        try:
            await asyncio.get_running_loop().sock_connect(connection, (address, port))
        except OSError as error:
            connection.close()
            why = why or f"{address}:{port}: {error.strerror or error}"
            continue
        except BaseException:
            connection.close()
            raise
        return connection, ""
    return None, why


def _socket_of(pid: int | None, family: int) -> socket.socket:
    """A non-blocking socket in the network namespace of process `pid`."""
    made = socket.socket(family, socket.SOCK_STREAM) if pid is None else _made_inside(pid, family)
    made.setblocking(False)
    return made


def _made_inside(pid: int, family: int) -> socket.socket:
    theirs = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        linux.setns(theirs, linux.CLONE_NEWNET)
        try:
            return socket.socket(family, socket.SOCK_STREAM)
        finally:
            linux.setns(ours, linux.CLONE_NEWNET)
    finally:
        os.close(theirs)
        os.close(ours)
