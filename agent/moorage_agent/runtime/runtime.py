"""What the daemon calls. Containers belong to the zygote and its shims: this object may vanish at any time and be made again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from moorage_agent.paths import Paths
from moorage_agent.protocol import Exit, Feature
from moorage_agent.runtime.launch import Launch


@dataclass(frozen=True)
class Started:
    """`pid` on the host; `started_at` in seconds since 1970."""

    pid: int
    started_at: float


@dataclass(frozen=True)
class ContainerState:
    """The newest run of a container: alive (`pid`), or ended (`exit`). A failed start is an end with code 125, 126 or 127."""

    uid: str
    run: int
    pid: int | None = None
    started_at: float | None = None
    exit: Exit | None = None


@dataclass(frozen=True)
class ExecResult:
    """`code` 124: the time was up and the process was killed. 126, 127: it could not be started, `output` says why."""

    code: int
    output: bytes


class Runtime:
    """`cgroup_root` names our directory in every cgroup hierarchy: each agent of a machine has its own."""

    def __init__(self, paths: Paths, *, cgroup_root: str = "moorage") -> None:
        self.paths = paths
        self.cgroup_root = cgroup_root

    async def ensure_zygote(self) -> None:
        """Start the zygote unless one of this agent's version answers. Raises HostLacks."""
        raise NotImplementedError

    async def start(self, launch: Launch) -> Started:
        """Start it with a fresh root. Returns once the program runs; the same run, already running, is returned as it is.

        Raises InvalidTask or HostLacks before anything happened, StartFailed after.
        """
        raise NotImplementedError

    def signal(self, uid: str, signum: int) -> bool:
        """Send a signal to the container's first process; False when it does not run."""
        raise NotImplementedError

    def kill(self, uid: str) -> bool:
        """Kill every process of the container; False when it does not run. Returns at once: its exit is heard of as any other."""
        raise NotImplementedError

    def observe(self) -> list[ContainerState]:
        """Every container there is, from files: right after a crash of anything, too."""
        raise NotImplementedError

    async def next_exit(self) -> ContainerState:
        """The next container that ends. An end while the daemon was away is not repeated here: observe() first."""
        raise NotImplementedError

    async def exec(self, uid: str, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run a command in the container, never wider in rights than the container. At most 4 KiB of output are kept."""
        raise NotImplementedError

    async def remove(self, uid: str) -> None:
        """Kill what still runs and leave nothing: processes, mounts, cgroups, files, logs. Raises Stuck when a process cannot die."""
        raise NotImplementedError

    async def remove_orphans(self, known: Iterable[str]) -> list[str]:
        """Remove the cgroups and directories of containers not in `known`; returns their uids."""
        raise NotImplementedError

    def features(self) -> tuple[Feature, ...]:
        """What this host gives to containers, and what it lacks."""
        raise NotImplementedError

    def log_dir(self, uid: str) -> str:
        """Where its output is: read it with `moorage_agent.runtime.log_reader`."""
        return f"{self.paths.task(uid)}/log"

    async def stop_zygote(self) -> None:
        """For uninstalling, when no container is left: end the zygote and remove its cgroups."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of sockets and descriptors; containers run on."""
        raise NotImplementedError
