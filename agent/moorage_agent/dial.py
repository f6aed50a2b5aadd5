"""What SSH runs: joins its stdin and stdout to the daemon's socket, and sees to it that a daemon of its own version listens there.

It runs once per connection and lives as long, so it imports next to nothing and copies bytes without reading them. It ends when its stdin
ends. The daemon speaks first (its hello), which is also how dial knows that one is alive.
"""

from __future__ import annotations

import _socket
import _thread
import fcntl
import os
import select
import signal
import struct
import sys

from moorage_agent.errors import AgentError
from moorage_agent.paths import Paths
from moorage_agent.version import VERSION, home

HELLO_WITHIN_S = 4.0  # a living daemon takes milliseconds; a dead one is replaced, which costs no container
LEAVE_WITHIN_S = 10.0
START_WITHIN_S = 30.0
CHUNK = 65536


def dial(paths: Paths) -> int:
    """Carry bytes between stdin/stdout and the daemon until one of them ends. Returns an exit code; says on stderr what went wrong."""
    try:
        connection, first = reach(paths)
    except (AgentError, OSError) as error:
        sys.stderr.write(f"moorage-agent dial: {error}\n")
        return 69
    _write(1, first)
    _thread.start_new_thread(_copy_and_exit, (0, connection.fileno()))
    _copy_and_exit(connection.fileno(), 1)
    return 0


def reach(paths: Paths) -> tuple[_socket.socket, bytes]:
    """A connection to a living daemon of this version, and the first bytes it said. Raises AgentError when none can be had."""
    connection, first = _greet(paths)
    if connection is None or not first or listening_version(paths) != VERSION:
        os.makedirs(paths.run, mode=0o700, exist_ok=True)
        with open(paths.dial_lock, "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _reach_alone(paths)
    return connection, first


def _reach_alone(paths: Paths) -> tuple[_socket.socket, bytes]:
    """Whoever listens and should not goes, a daemon of this version comes. Containers do not notice."""
    connection, first = _greet(paths)
    if connection is not None and first and listening_version(paths) == VERSION:
        return connection, first
    if connection is not None:
        _send_away(connection, alive=bool(first))
    _start(paths)
    connection, first = _greet(paths)
    if connection is None or not first:
        raise AgentError("AgentSilent", f"the daemon started but does not answer on {paths.agent_socket}; its log is {paths.agent_log}")
    return connection, first


def _greet(paths: Paths) -> tuple[_socket.socket | None, bytes]:
    """Who listens, and what it says first: nothing when it hangs."""
    connection = _connect(paths)
    return connection, b"" if connection is None else _hear(connection)


def listening_version(paths: Paths) -> str:
    """The version of the daemon that holds the lock, or held it last; empty when there was none."""
    try:
        with open(paths.agent_lock, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _connect(paths: Paths) -> _socket.socket | None:
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.connect(paths.agent_socket)
    except OSError:
        connection.close()
        return None
    return connection


def _hear(connection: _socket.socket) -> bytes:
    """The daemon's first bytes; empty when it closed or said nothing in time."""
    ready, _, _ = select.select([connection.fileno()], [], [], HELLO_WITHIN_S)
    return connection.recv(CHUNK) if ready else b""


def _send_away(connection: _socket.socket, *, alive: bool) -> None:
    """Ask the listening daemon to go; kill it when it does not. It owns no container, so even the kill costs nothing.

    Raises AgentError while it uninstalls, which the next one would not go on with.
    """
    peer = struct.unpack("3i", connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, struct.calcsize("3i")))[0]
    if not alive or not _leaves(connection):
        _kill(peer)
    connection.close()


def _kill(pid: int) -> None:
    try:  # noqa: SIM105 -- contextlib would be one more import of a program that must be quick
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _leaves(connection: _socket.socket) -> bool:
    body = b'{"type":"retire"}'
    said = b""
    connection.settimeout(LEAVE_WITHIN_S)
    try:
        connection.sendall(struct.pack(">II", len(body), 0) + body)
        while data := connection.recv(CHUNK):
            said += data
    except _socket.timeout:  # TimeoutError itself from Python 3.10 on
        return False
    except OSError:
        pass  # it closed in its own way
    if b'"code":"Uninstalling"' in said:
        raise AgentError("Uninstalling", "the agent is being uninstalled from this host: wait until it is gone")
    return True


def _start(paths: Paths) -> None:
    if paths.under_systemd:
        from moorage_agent import systemd  # only on hosts that have it: dial stays small elsewhere

        systemd.start(home(), log=paths.agent_log)
    else:
        _start_detached(paths)


def _start_detached(paths: Paths) -> None:
    """A daemon in a session of its own: it outlives this one's SSH connection and keeps none of its descriptors."""
    ready, said = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _become_daemon(paths, said)
        os._exit(0)
    os.close(said)
    os.wait()
    _await_ready(paths, ready)


def _become_daemon(paths: Paths, said: int) -> None:
    try:
        os.makedirs(paths.state, mode=0o700, exist_ok=True)
        log = os.open(paths.agent_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.set_inheritable(said, True)
        where = ["--root", paths.root, "--run", paths.run, "--boot-id-file", paths.boot_id_file]
        arguments = [sys.executable, "-I", "-S", "-E", home(), "serve", *where, "--ready-fd", str(said)]
        os.execv(sys.executable, arguments)  # noqa: S606
    finally:
        os._exit(71)


def _await_ready(paths: Paths, ready: int) -> None:
    """Wait for the byte the daemon writes once it listens; an end without it means it died."""
    able, _, _ = select.select([ready], [], [], START_WITHIN_S)
    said = os.read(ready, 1) if able else b""
    os.close(ready)
    if not said:
        why = _tail(paths.agent_log)
        raise AgentError("AgentStartFailed", f"the daemon did not start; the end of {paths.agent_log} says:\n{why}")


def _tail(path: str, size: int = 1500) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - size))
            return file.read().decode(errors="replace")
    except OSError as error:
        return str(error)


def _copy_and_exit(source: int, target: int) -> None:
    """Copy until either side ends, then end the process: there is nothing to do without both."""
    try:
        while True:
            data = os.read(source, CHUNK)
            if not data:
                break
            _write(target, data)
    except OSError:
        pass
    os._exit(0)


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
