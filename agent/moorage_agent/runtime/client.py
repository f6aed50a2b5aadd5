"""The daemon's line to the zygote: starts it, asks it, retires one of an older agent."""

from __future__ import annotations

import asyncio
import hashlib
import marshal
import os
import socket
import subprocess
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moorage_agent.errors import AgentError, HostLacks
from moorage_agent.paths import Paths
from moorage_agent.runtime import cgroup
from moorage_agent.runtime.entry import BOOTSTRAP
from moorage_agent.version import DEV, VERSION

START_TIMEOUT_S = 60
SCOPE, DAEMON_UNIT = "moorage-runtime", "moorage-agent.service"
SCOPE_STOP_S = 10  # of a container that nobody could ask, for want of a daemon


class ZygoteGone(Exception):
    """Nobody listens, or the fork that should have answered died."""


@dataclass(frozen=True)
class Facts:
    """What a zygote says of itself. `controllers`: which cgroup version holds each."""

    pid: int
    version: str
    controllers: Mapping[str, int]


class ZygoteClient:
    def __init__(self, paths: Paths, *, cgroup_root: str, python: str) -> None:
        self._paths, self._cgroup_root, self._python = paths, cgroup_root, python
        self._version = VERSION if VERSION != DEV else _version_of_checkout()
        self._facts: Facts | None = None
        self._starting: asyncio.Lock | None = None

    async def ensure(self) -> Facts:
        """A zygote of this agent's version serves. Raises HostLacks when none can, AgentError when none came this time."""
        self._starting = self._starting or asyncio.Lock()
        async with self._starting:
            try:
                facts = await self._hello()
            except ZygoteGone:
                pass
            else:
                if facts.version == self._version:
                    return facts
                await self.retire()
            await asyncio.to_thread(self._spawn)
            try:
                return await self._hello()
            except ZygoteGone as error:
                raise AgentError("NoZygote", f"the runtime's zygote ended as soon as it served, which may pass: {error}") from error

    async def facts(self) -> Facts:
        """As last heard; asks only the first time."""
        return self._facts or await self.ensure()

    async def ask(self, verb: str, request: Mapping[str, object], fds: Sequence[int] = ()) -> dict[str, object]:
        """Send a request with descriptors and wait for its answer. Starts a zygote if there is none. Raises ZygoteGone when it dies over
        it."""
        memory = os.memfd_create("moorage-request", os.MFD_CLOEXEC)  # no bound on its size, and it stays in memory: it may hold secrets
        try:
            os.write(memory, marshal.dumps(request, 2))  # type: ignore[arg-type]
            try:
                return await self._exchange(verb, [memory, *fds])
            except ConnectionRefusedError:
                await self.ensure()
                return await self._exchange(verb, [memory, *fds])
        finally:
            os.close(memory)

    async def adopt(self) -> None:
        """Have it look for containers without a supervisor. Raises ZygoteGone, ConnectionRefusedError."""
        await self._exchange("adopt", [])

    async def ended(self) -> None:
        """Returns when the zygote last heard of has ended."""
        if self._facts is None:
            return
        try:
            pidfd = os.pidfd_open(self._facts.pid)
        except ProcessLookupError:
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)

    async def retire(self) -> None:
        """It serves nobody any more and ends with its last container. Without a zygote nothing happens."""
        self._facts = None
        try:
            await self._exchange("retire", [], answered=False)
        except (ConnectionRefusedError, ZygoteGone):
            pass

    def tops(self) -> list[str]:
        """Our directory in each cgroup hierarchy, with or without a zygote."""
        found, bases = cgroup.mounted(), cgroup.read(f"{self._paths.run}/cgroup-bases").splitlines() or [""]
        tops = [top for base in bases for top in cgroup.Cgroups(found, self._cgroup_root, v2_base=base).tops()]
        return list(dict.fromkeys(tops))

    async def _hello(self) -> Facts:
        try:
            answer = await self._exchange("hello", [])
        except ConnectionRefusedError:
            raise ZygoteGone("no zygote listens") from None
        self._facts = Facts(int(str(answer["pid"])), str(answer["version"]), dict(answer["controllers"]))  # type: ignore[call-overload]
        return self._facts

    async def _exchange(self, verb: str, fds: list[int], *, answered: bool = True) -> dict[str, object]:
        """Raises ConnectionRefusedError when nobody listens, ZygoteGone when no answer comes."""
        loop = asyncio.get_running_loop()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            try:
                await loop.sock_connect(connection, self._paths.zygote_socket)
            except FileNotFoundError:
                raise ConnectionRefusedError(f"{self._paths.zygote_socket} is not there") from None
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
            connection.sendmsg([verb.encode()], rights)
            answer = await loop.sock_recv(connection, 65536) if answered else b""
        except (ConnectionResetError, BrokenPipeError) as error:
            raise ZygoteGone(f"the zygote ended before it answered {verb.split(' ')[0]}") from error
        finally:
            connection.close()
        if answered and not answer:
            raise ZygoteGone(f"the zygote did not answer {verb.split(' ')[0]}")
        return dict(marshal.loads(answer)) if answered else {}

    def _spawn(self) -> None:
        scoped = self._paths.under_systemd
        where = "scope" if scoped else ""
        arguments = [self._paths.root, self._paths.run, self._paths.boot_id(), self._version, self._cgroup_root, where]
        argv = [self._python, "-I", "-S", "-E", "-c", BOOTSTRAP, *arguments]
        try:
            os.makedirs(f"{self._paths.run}/tasks", mode=0o700, exist_ok=True)
            done = subprocess.run(
                [*(_scope() if scoped else []), *argv],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=START_TIMEOUT_S,
                check=False,
                start_new_session=True,
                env={"LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath)},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AgentError("NoZygote", f"the runtime's zygote could not be started, which may pass: {error}") from error
        if done.returncode == os.EX_UNAVAILABLE:
            raise HostLacks("NoZygote", f"the runtime's zygote cannot be started: {done.stderr.strip()[-2000:]}")
        if done.returncode != 0:
            why = f"killed by signal {-done.returncode}" if done.returncode < 0 else done.stderr.strip()[-2000:]
            raise AgentError("NoZygote", f"the runtime's zygote did not start, which may pass: {why}")


def _version_of_checkout() -> str:
    """So that a zygote of an older checkout is not taken for one of this."""
    directory = os.path.dirname(os.path.abspath(__file__))
    digest = hashlib.sha256()
    for name in sorted(os.listdir(directory)):
        if name.endswith(".py"):
            with open(f"{directory}/{name}", "rb") as file:
                digest.update(file.read())
    return f"{DEV}-{digest.hexdigest()[:16]}"


def _scope() -> list[str]:
    """Out of the daemon's unit, into a delegated scope: systemd then neither stops containers with the daemon nor touches their cgroups.

    Before the daemon's unit in order, which is after it when the host goes down: the daemon asks containers to end, as only it knows how
    to. Nothing is said of OOMPolicy: before systemd 253 a scope may know none, and a delegated one takes it to be "continue".
    """
    properties = ("Delegate=yes", "TasksMax=infinity", f"Before={DAEMON_UNIT}", f"TimeoutStopSec={SCOPE_STOP_S}")
    options = [text for value in properties for text in ("-p", value)]
    return [
        "systemd-run",
        "--quiet",
        "--scope",
        "--collect",
        f"--unit={SCOPE}-{os.urandom(4).hex()}",
        "--slice=moorage.slice",
        "--description=Moorage runtime: containers and their supervisors",
        *options,
        "--",
    ]
