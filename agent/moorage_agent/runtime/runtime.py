"""What the daemon calls. Containers belong to the zygote and its shims: this object may vanish at any time and be made again."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from moorage_agent.errors import AgentError, Interrupted, StartFailed
from moorage_agent.images.tree import remove_at
from moorage_agent.paths import Paths
from moorage_agent.protocol import Feature
from moorage_agent.runtime import apparmor, cgroup, observed, record, supervisor
from moorage_agent.runtime.abilities import features, look
from moorage_agent.runtime.binds import close_binds, open_binds
from moorage_agent.runtime.client import ZygoteClient, ZygoteGone
from moorage_agent.runtime.launch import Launch
from moorage_agent.runtime.observed import ContainerState
from moorage_agent.runtime.output import Output
from moorage_agent.runtime.request import StartRequest
from moorage_agent.runtime.wish import start_request
from moorage_agent.runtime.witness import Witness

__all__ = ["ContainerState", "ExecResult", "Runtime", "Started", "Stuck"]

STUCK_AFTER_S = 10.0
EXEC_OUTPUT = 4096
PAUSE_S = 0.2  # before a zygote that died is started anew


class Stuck(AgentError):
    """A process does not die of SIGKILL: it waits in the kernel, usually for a disk or a network file system. Its cgroup is not used
    again."""


@dataclass(frozen=True)
class Started:
    """`pid` on the host; `started_at` in seconds since 1970."""

    pid: int
    started_at: float


@dataclass(frozen=True)
class ExecResult:
    """`code` 124: the time was up and the process was killed. 126, 127: it could not be started, `output` says why."""

    code: int
    output: bytes


class Runtime:
    """`cgroup_root` names our directory in every cgroup hierarchy; by default each agent of a machine has one of its own.

    `python`: the interpreter zygote and shims run in.
    """

    def __init__(self, paths: Paths, *, cgroup_root: str | None = None, python: str = sys.executable) -> None:
        self.paths = paths
        self.cgroup_root = cgroup_root or _cgroup_root(paths)
        self._client = ZygoteClient(paths, cgroup_root=self.cgroup_root, python=python)
        self._boot_id = paths.boot_id()
        self._app_armor: str | None = None
        self._stopped = False
        self._witness = Witness(paths, self._boot_id)

    async def ensure_zygote(self) -> None:
        """Start the zygote unless one of this agent's version answers. Raises HostLacks, or AgentError for what may pass."""
        await self._client.ensure()
        self._witness.listen()
        if self._app_armor is None:
            refusal = await asyncio.to_thread(apparmor.load)
            self._app_armor = apparmor.PROFILE if refusal is None else ""

    async def keep_supervised(self, *, look_every_s: float) -> None:
        """Endless: start the zygote anew when it dies, and let no container be without a supervisor for longer than `look_every_s`.

        One whose shim died after its zygote is nobody's child. Nobody reads its output then, and it blocks once its pipe is full.
        """
        while not self._stopped:
            try:
                await self.ensure_zygote()
                if self._unsupervised():
                    await self._client.adopt()
                await asyncio.wait_for(self._client.ended(), look_every_s)
                await asyncio.sleep(PAUSE_S)
            except asyncio.TimeoutError:
                continue
            except (AgentError, OSError, ZygoteGone):  # each start says it again, in the words of its task
                await asyncio.sleep(look_every_s)
        await asyncio.Event().wait()  # its end would be the daemon's, which has yet to say that it is uninstalled

    def _unsupervised(self) -> bool:
        alive = [state.uid for state in self.observe() if state.pid is not None]
        return any(not supervisor.is_supervised(self.paths.task_run(uid)) for uid in alive)

    async def start(self, launch: Launch, *, still: Callable[[], bool] = lambda: True) -> Started:
        """Start it with a fresh root. Returns once the program runs; the same run, already running, is returned as it is.

        `still` is asked after the waits before it, Interrupted is raised when it says no. Raises InvalidTask, HostLacks or plain AgentError
        before anything happened, StartFailed after.
        """
        launch.check()
        if self._app_armor is None:
            await self.ensure_zygote()
        facts = await self._client.facts()
        self._witness.listen()
        earlier = await self._started_earlier(launch)
        if earlier is not None:
            return earlier
        binds = await open_binds(launch, self.paths)
        try:
            request = start_request(launch, binds, facts.controllers, app_armor=self._app_armor or "")
            await self._make_room(launch.uid)
            if not still():
                raise Interrupted("Interrupted", f"container {launch.uid} is not wanted to start any more")
            answer = await self._ask_start(launch, request, [bind.fd for bind in binds])
        finally:
            close_binds(binds)
        if "pid" not in answer:
            raise _start_failed(launch, answer)
        pid, started_ns = int(str(answer["pid"])), int(str(answer["started_ns"]))
        self._witness.watch(launch.uid, launch.run, pid)
        return Started(pid, started_ns / 1e9)

    async def _started_earlier(self, launch: Launch) -> Started | None:
        """This run, if a daemon before us had it started, be its start still under way or its life already over. None: it is ours to start.

        Raises AgentError when another run is alive, Stuck when a supervisor neither reaches the program nor ends.
        """
        deadline = time.monotonic() + STUCK_AFTER_S
        while True:
            supervised = supervisor.is_supervised(self.paths.task_run(launch.uid))
            started = self._started(launch)
            if started is not None or not supervised:
                return started
            if time.monotonic() > deadline:
                raise Stuck("Stuck", f"cannot start container {launch.uid}: {self._what_is_left(launch.uid)}")
            await asyncio.sleep(0.005)

    def _started(self, launch: Launch) -> Started | None:
        seen = observed.observe_one(self.paths, launch.uid, self._boot_id)
        if seen is None:
            return None
        if seen.pid is not None:
            if seen.run != launch.run:
                raise AgentError("StillRuns", f"cannot start run {launch.run} of container {launch.uid}: run {seen.run} is not over")
            self._witness.watch(seen.uid, seen.run, seen.pid)
            return Started(seen.pid, seen.started_at or 0.0)
        if seen.run != launch.run or seen.exit is None or seen.exit.started_at is None:
            return None
        self._witness.doubt(seen.uid, seen.run)  # its end is heard of as any other
        state = record.read_state(self.paths.task_run(launch.uid))
        return Started(state["pid"] if state else 0, seen.exit.started_at)

    async def _ask_start(self, launch: Launch, request: StartRequest, binds: list[int]) -> dict[str, object]:
        """Ask again if the zygote died before it took the request up."""
        try:
            try:
                return await self._client.ask(f"start {launch.uid}", request, binds)
            except ZygoteGone:
                if self._is_begun(launch):
                    raise
                await self._client.ensure()
                return await self._client.ask(f"start {launch.uid}", request, binds)
        except ZygoteGone as error:
            raise StartFailed(
                125, "zygote", errno.ECHILD, f"cannot start container {launch.uid}: {error}; it is safe to try again"
            ) from error

    def _is_begun(self, launch: Launch) -> bool:
        """True also of what was begun and came to an end: its root and its cgroups have the names that another try would want."""
        seen = observed.observe_one(self.paths, launch.uid, self._boot_id)
        there = (seen is not None and seen.run >= launch.run) or os.path.exists(f"{self.paths.task(launch.uid)}/root-{launch.run}")
        return there or supervisor.is_supervised(self.paths.task_run(launch.uid))

    async def _make_room(self, uid: str) -> None:
        """The directories of the task. A root of an earlier run, or of this one when its start was cut off, goes."""
        task_dir = self.paths.task(uid)
        os.makedirs(task_dir, mode=0o700, exist_ok=True)
        os.makedirs(f"{self.paths.run}/tasks", mode=0o700, exist_ok=True)
        for name in os.listdir(task_dir):
            if name.startswith("root-"):
                await asyncio.to_thread(_remove_tree, f"{task_dir}/{name}")

    def signal(self, uid: str, signum: int) -> bool:
        """Send a signal to the container's first process; False when it does not run."""
        pidfd = self._open_pid(uid)
        if pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(pidfd, signum)
        except ProcessLookupError:
            return False
        finally:
            os.close(pidfd)
        return True

    def kill(self, uid: str) -> bool:
        """Kill every process of the container; False when it does not run. Returns at once: its exit is heard of as any other."""
        state = record.read_state(self.paths.task_run(uid))
        if not self.signal(uid, signal.SIGKILL):
            return False
        if state is not None and not state["private_pid"]:
            for path in state["cgroups"][-1:]:
                cgroup.kill(path)
        return True

    def _open_pid(self, uid: str) -> int | None:
        """A pidfd of the first process of the running container, known not to be of another that got its number."""
        state = record.read_state(self.paths.task_run(uid))
        if state is None or state["boot_id"] != self._boot_id:
            return None
        try:
            pidfd = os.pidfd_open(state["pid"])
        except ProcessLookupError:
            return None
        if not record.lives(state):
            os.close(pidfd)
            return None
        return pidfd

    def observe(self) -> list[ContainerState]:
        """Every container there is, from files: right after a crash of anything, too."""
        found = observed.observe(self.paths, self._boot_id)
        for state in found:
            if state.pid is not None:
                self._witness.watch(state.uid, state.run, state.pid)
            elif state.exit is None:
                self._witness.doubt(state.uid, state.run)
        return found

    async def next_exit(self) -> ContainerState:
        """The next container that ends. An end while the daemon was away is not repeated here: observe() first."""
        return await self._witness.next_exit()

    async def exec(self, uid: str, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run a command in the container, never wider in rights than the container. At most 4 KiB of output are kept."""
        request = {"uid": uid, "argv": [os.fsencode(text) for text in argv], "timeout_s": float(timeout_s)}
        output = Output(EXEC_OUTPUT)
        try:
            answer = await self._client.ask(f"exec {uid}", request, [output.inlet])
        except ZygoteGone as error:
            raise AgentError("ExecFailed", f"cannot run a command in container {uid}: {error}") from error
        finally:
            text = output.close()
        if "step" in answer:
            return ExecResult(int(str(answer["code"])), f"{answer['step']}: {answer['words']}".encode())
        return ExecResult(int(str(answer["code"])), text)

    async def remove(self, uid: str) -> None:
        """Kill what still runs and leave nothing: processes, mounts, cgroups, files, logs. Raises Stuck when a process cannot die."""
        deadline = time.monotonic() + STUCK_AFTER_S
        while self._is_there(uid):
            self.kill(uid)
            if time.monotonic() > deadline:
                raise Stuck("Stuck", f"container {uid} does not die of SIGKILL for {STUCK_AFTER_S:g} s: {self._what_is_left(uid)}")
            await asyncio.sleep(0.005)
        await asyncio.to_thread(self._remove_rest, uid)

    def _is_there(self, uid: str) -> bool:
        pidfd = self._open_pid(uid)
        if pidfd is not None:
            os.close(pidfd)
        return pidfd is not None or supervisor.is_supervised(self.paths.task_run(uid))

    def _what_is_left(self, uid: str) -> str:
        state = record.read_state(self.paths.task_run(uid))
        if state is None or not record.lives(state):
            return "its supervisor does not end"
        lines = cgroup.read(f"/proc/{state['pid']}/status").splitlines()
        return next(
            (f"process {state['pid']} is in state {line[7:]}" for line in lines if line.startswith("State:")), "its supervisor does not end"
        )

    def _remove_rest(self, uid: str) -> None:
        for top in self._tops():
            for group in cgroup.GROUPS:
                for name in _containers(f"{top}/{group}", uid):
                    path = f"{top}/{group}/{name}"
                    cgroup.kill(path)
                    if not cgroup.remove(path, tries=400):
                        raise Stuck("Stuck", f"processes {cgroup.processes(path)} of container {uid} do not die of SIGKILL")
        for path in (self.paths.task_run(uid), self.paths.task(uid)):
            _remove_tree(path)
        self._witness.forget(uid)

    def _tops(self) -> list[str]:
        return self._client.tops()

    async def remove_orphans(self, known: Iterable[str]) -> list[str]:
        """Remove the cgroups and directories of containers not in `known`; returns their uids.

        Raises the first AgentError once every one was tried.
        """
        kept = set(known)
        found = {name.rpartition(".")[0] for top in self._tops() for group in cgroup.GROUPS for name in _containers(f"{top}/{group}", "")}
        orphans = sorted((found | set(observed.uids(self.paths))) - kept)
        failures = []
        for uid in orphans:
            try:
                await self.remove(uid)
            except AgentError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return orphans

    def features(self) -> tuple[Feature, ...]:
        """What this host gives to containers, and what it lacks."""
        return features(look())

    def log_dir(self, uid: str) -> str:
        """Where its output is: read it with `moorage_agent.runtime.log_reader`."""
        return f"{self.paths.task(uid)}/log"

    async def stop_zygote(self) -> None:
        """For uninstalling, when no container is left: end the zygote and remove its cgroups."""
        self._stopped = True
        tops = self._tops()
        await self._client.retire()
        for top in tops:
            await asyncio.to_thread(cgroup.remove, top)

    def close(self) -> None:
        """Let go of sockets and descriptors; containers run on."""
        self._witness.close()


def _remove_tree(path: str) -> None:
    """Containers nest directories deeper than recursion goes. An adopter that comes too late may still leave a file meanwhile; it ends."""
    try:
        parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        for _ in range(50):
            try:
                remove_at(parent, os.path.basename(path))
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                    raise
            if not os.path.lexists(path):
                return
            time.sleep(0.02)
        remove_at(parent, os.path.basename(path))
    finally:
        os.close(parent)


def _cgroup_root(paths: Paths) -> str:
    return "moorage" if paths.standard else f"moorage-{hashlib.sha256(paths.run.encode()).hexdigest()[:12]}"


def _start_failed(launch: Launch, answer: dict[str, object]) -> StartFailed:
    code, step, words = int(str(answer["code"])), str(answer["step"]), str(answer["words"])
    what = {127: "is not in the image", 126: "cannot be executed"}.get(code)
    number = int(str(answer["errno"])) or None
    if what is not None:
        return StartFailed(code, step, number, f"cannot start {launch.argv[0]!r}: it {what} ({words})")
    return StartFailed(code, step, number, f"cannot start container {launch.uid}: {step}: {words}")


def _containers(group: str, uid: str) -> list[str]:
    try:
        names = os.listdir(group)
    except FileNotFoundError:
        return []
    return [name for name in names if name.startswith(f"{uid}." if uid else "") and name.rpartition(".")[2].isdigit()]
