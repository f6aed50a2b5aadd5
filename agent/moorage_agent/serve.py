"""Being the daemon process: one per host, a socket, signals, readiness. What the daemon does is elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import resource
import signal
import sys
import time
from typing import TextIO

# asyncio takes ssl along when it can. The daemon speaks TLS to nobody (pulls run in children): this saves 4 MiB.
sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]

import asyncio  # noqa: E402
import logging  # noqa: E402

from moorage_agent import journal, systemd  # noqa: E402
from moorage_agent.daemon import Daemon  # noqa: E402
from moorage_agent.errors import AgentError  # noqa: E402
from moorage_agent.images.pull_process import pull_apart, resolve_apart  # noqa: E402
from moorage_agent.images.store import ImageStore  # noqa: E402
from moorage_agent.paths import Paths  # noqa: E402
from moorage_agent.runtime.runtime import Runtime  # noqa: E402
from moorage_agent.session import Session  # noqa: E402
from moorage_agent.values import ValueStore, mount_secrets  # noqa: E402
from moorage_agent.version import VERSION, home  # noqa: E402

log = logging.getLogger("moorage.serve")

LOCK_WITHIN_S = 20.0


def serve(paths: Paths, *, ready_fd: int | None = None) -> int:
    """Serve until retired (0), uninstalled (0), told to end by a signal (0), or a part fails (1: whoever supervises starts it anew)."""
    journal.write_log_to_stderr()
    os.umask(0o077)
    _be_killed_last()
    _allow_many_descriptors()
    paths.make()
    lock = hold_lock(paths)
    try:
        asyncio.run(_serve(paths, ready_fd))
    except Exception:
        log.exception("the daemon ends")
        return 1
    finally:
        lock.close()
    return 0


def hold_lock(paths: Paths) -> TextIO:
    """Be the only daemon of these directories; the one before may still be leaving. Raises AgentError."""
    lock = open(paths.agent_lock, "a+", encoding="ascii")  # noqa: SIM115 -- held for as long as the process lives
    deadline = time.monotonic() + LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise AgentError("AlreadyRunning", f"another daemon holds {paths.agent_lock}") from None
            time.sleep(0.01)
    lock.truncate(0)
    lock.write(VERSION)
    lock.flush()
    return lock


def _be_killed_last() -> None:
    """When memory is short a container shall go before its keeper. Refused without CAP_SYS_RESOURCE, which is no reason not to serve."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("-900")


def _allow_many_descriptors() -> None:
    """The zygote inherits it. Each container costs one descriptor here and two there; the usual 1024 would end with some 500 of them."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(paths: Paths, ready_fd: int | None) -> None:
    mount_secrets(paths)  # before the zygote: its mount namespace is a copy of ours
    runtime, images = Runtime(paths, cgroup_root=paths.cgroup_root), ImageStore(paths)
    try:
        await runtime.ensure_zygote()
    except AgentError as lack:  # serve all the same: the operator shall hear what is missing, and each start says it again
        log.warning("no container can be started", extra={"fields": {"error": lack.message}})
    images.recover()
    values = ValueStore(paths)
    values.make()
    daemon = Daemon(paths, runtime=runtime, images=images, pull=pull_apart, resolve=resolve_apart, values=values)
    daemon.recover()
    gc.collect()
    gc.freeze()
    running = asyncio.get_running_loop().create_task(daemon.run())
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, daemon.leave)
    server = await _listen(paths, daemon)
    log.info("serving", extra={"fields": {"version": VERSION, "pid": os.getpid()}})
    _say_ready(paths, ready_fd)
    try:
        await running
    finally:
        server.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(paths.agent_socket)


async def _listen(paths: Paths, daemon: Daemon) -> asyncio.AbstractServer:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Session(reader, writer, daemon.desk).run()

    with contextlib.suppress(FileNotFoundError):
        os.unlink(paths.agent_socket)
    return await asyncio.start_unix_server(converse, paths.agent_socket, limit=1 << 20)


def _say_ready(paths: Paths, ready_fd: int | None) -> None:
    """Tell whoever waits that the socket listens: dial through its pipe, systemd through its socket, the next loader by a link."""
    if ready_fd is not None:
        os.write(ready_fd, b"1")
        os.close(ready_fd)
    systemd.notify("READY=1")
    if os.path.dirname(home()) == f"{paths.root}/agent":
        _point_to(f"{paths.root}/agent/current")


def _point_to(link: str) -> None:
    with contextlib.suppress(OSError):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link + ".new")
        os.symlink(VERSION, link + ".new")
        os.rename(link + ".new", link)
