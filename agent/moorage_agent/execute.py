"""Performs one step of one task and writes down what came of it. Decides nothing: what a failure means is decided in steps.py."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import random
from collections.abc import Callable

from moorage_agent.engine import Images, Runtime
from moorage_agent.errors import AgentError, HostLacks, Interrupted, InvalidTask, StartFailed
from moorage_agent.materials import binds, gather, lacks_volumes, make_volumes
from moorage_agent.merge import launch_of
from moorage_agent.needs import check_needs
from moorage_agent.paths import Paths
from moorage_agent.protocol import Feature, Restart, TaskSpec
from moorage_agent.restart import after_exit, after_trouble
from moorage_agent.runtime.launch import Launch
from moorage_agent.silence import look_at
from moorage_agent.state import TaskStore
from moorage_agent.steps import BackOff, BeginStop, Finish, Kill, NoteExit, Prepare, Remove, Start, may_start
from moorage_agent.task_state import Moment, Record, Seen, Stop, Trouble
from moorage_agent.volumes import check_binds
from moorage_agent.world import TaskState, World

log = logging.getLogger("moorage.execute")

# A container whose task nobody remembers is not started again.
_UNKNOWN_POLICY = Restart(condition="None")

# The same start may succeed later: memory, disk, processes or descriptors were short, something was busy, or a process of ours was killed.
_PASSING = {
    errno.EAGAIN,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EMFILE,
    errno.ENFILE,
    errno.EBUSY,
    errno.EINTR,
    errno.EIO,
    errno.ECHILD,
}


class Executor:
    """`features`: what this host can do, as far as known; `volumes_made` hears that there are new ones, before their task starts."""

    def __init__(
        self,
        world: World,
        *,
        runtime: Runtime,
        images: Images,
        store: TaskStore,
        paths: Paths,
        clock: Callable[[], Moment],
        features: Callable[[], tuple[Feature, ...]],
        volumes_made: Callable[[], None],
    ) -> None:
        self._features = features
        self._volumes_made = volumes_made
        self._world = world
        self._runtime = runtime
        self._images = images
        self._store = store
        self._paths = paths
        self._clock = clock

    # --- quick ones

    def note_exit(self, step: NoteExit) -> None:
        state = self._world.tasks[step.uid]
        policy = state.spec.container.restart if state.spec else _UNKNOWN_POLICY
        ended = after_exit(state.record, step.exit, run=step.run, policy=policy, now=self._clock(), chance=random.random())  # noqa: S311
        self._save(state, ended)
        state.trouble = state.health = state.launch = None

    def back_off(self, step: BackOff) -> None:
        state = self._world.tasks[step.uid]
        policy = state.spec.container.restart if state.spec else _UNKNOWN_POLICY
        hindered = after_trouble(state.record, step.trouble, policy=policy, now=self._clock(), chance=random.random())  # noqa: S311
        self._save(state, hindered)
        state.trouble = state.health = state.launch = None

    def begin_stop(self, step: BeginStop) -> None:
        """The signal goes first: a daemon that dies in between sends it twice, never not at all."""
        state, now = self._world.tasks[step.uid], self._clock()
        self._runtime.signal(step.uid, step.signal)
        self._save(state, dataclasses.replace(state.record, stop=Stop(step.reason, now.boot_id, now.boot)))

    def kill(self, step: Kill) -> None:
        state, now = self._world.tasks[step.uid], self._clock()
        assert state.record.stop is not None
        self._runtime.kill(step.uid)
        stop = dataclasses.replace(state.record.stop, killed_at=now.boot, boot_id=now.boot_id)
        self._save(state, dataclasses.replace(state.record, stop=stop))

    def finish(self, step: Finish) -> None:
        state = self._world.tasks[step.uid]
        self._save(state, dataclasses.replace(state.record, end=step.end))
        state.trouble = state.launch = None

    def note_health(self, uid: str) -> None:
        """Keep that this run was healthy once: a later daemon need not prove it again."""
        state = self._world.tasks[uid]
        if state.health is not None and state.health.healthy and state.record.healthy_run != state.record.run:
            self._save(state, dataclasses.replace(state.record, healthy_run=state.record.run))

    # --- those that take their time; the task is busy meanwhile

    async def prepare(self, step: Prepare) -> None:
        """Raises nothing: a failure is left in the task's trouble."""
        state = self._world.tasks[step.uid]
        assert state.spec is not None
        try:
            check_needs(state.spec, self._features())
            self._store.save_spec(state.spec)
            await self._make_volumes(state.spec)
            state.launch = await self._resolve(state)
            ready = state.record.ready or state.spec.desired_state == "Ready"
            if ready != state.record.ready or state.record.hindered:
                self._save(state, dataclasses.replace(state.record, ready=ready, hindered=""))
            state.prepared = True
        except (AgentError, OSError) as error:
            state.trouble = _trouble(error)

    async def start(self, step: Start) -> None:
        """Raises nothing: a failure is left in the task's trouble."""
        state = self._world.tasks[step.uid]
        try:
            launch = state.launch = state.launch or await self._resolve(state)
            record = dataclasses.replace(state.record, run=step.run, boot_id=self._clock().boot_id, stop=None)
            self._save(state, record)
            started = await self._runtime.start(dataclasses.replace(launch, run=step.run), still=lambda: self._may_start(state))
            if state.seen is None or state.seen.run < step.run:  # a short life may have ended, and been heard of, before this line
                state.seen = Seen(step.run, started.pid, started.started_at)
            if not state.record.began or state.record.hindered:
                self._save(state, dataclasses.replace(state.record, began=True, hindered=""))
        except Interrupted:
            log.info("not started, it should no longer run", extra={"fields": {"task": step.uid}})
        except (AgentError, OSError) as error:
            state.trouble = _trouble(error)
        finally:
            state.launch = None

    def _may_start(self, state: TaskState) -> bool:
        now = self._clock()
        return may_start(self._world.view(state.uid, now), now)

    async def remove(self, step: Remove) -> None:
        await self._runtime.remove(step.uid)
        await asyncio.get_running_loop().run_in_executor(None, self._store.remove, step.uid)
        self._world.forget(step.uid)

    async def _resolve(self, state: TaskState) -> Launch:
        assert state.spec is not None
        await self._check_binds(state.spec)
        image = self._images.get(state.spec.image.digest)
        if image is None:
            raise AgentError("ImageGone", f"image {state.spec.image.digest} was removed from this host")
        materials = gather(state.spec, values=self._world.values)
        return launch_of(state.spec, image, materials, paths=self._paths, node_name=self._node_name)

    async def _check_binds(self, spec: TaskSpec) -> None:
        """Beside the loop, where there are any: the file system of one may be dead."""
        sources = binds(spec, node_name=self._node_name)
        if sources:
            await look_at(", ".join(sources.values()), lambda: check_binds(sources))

    async def _make_volumes(self, spec: TaskSpec) -> None:
        """Beside the loop, where there is something to make: it may have much to copy."""
        image = self._images.get(spec.image.digest)
        if image is None or not lacks_volumes(spec, paths=self._paths, node_name=self._node_name):
            return
        node_name = self._node_name
        await asyncio.get_running_loop().run_in_executor(
            None, lambda: make_volumes(spec, image.layers, paths=self._paths, node_name=node_name)
        )
        self._volumes_made()

    @property
    def _node_name(self) -> str:
        return self._world.document.node_name if self._world.document else ""

    def save_again(self) -> None:
        """Write the records a full disk did not take."""
        for state in self._world.tasks.values():
            if state.unsaved:
                self._save(state, state.record)

    def _save(self, state: TaskState, record: Record) -> None:
        """A disk that takes nothing must not keep a container from being stopped: then memory goes ahead of the disk.

        A daemon that dies in between reads the older record and notes again what it observes.
        """
        state.record = record
        try:
            self._store.save_record(state.uid, record)
        except OSError as error:
            if not state.unsaved:
                log.warning("a record cannot be written", extra={"fields": {"task": state.uid, "error": str(error)}})
            state.unsaved = True
        else:
            state.unsaved = False


def _trouble(error: AgentError | OSError) -> Trouble:
    if isinstance(error, StartFailed):
        return Trouble(error.code, error.message, error.errno not in _PASSING, error.exit_code)
    if isinstance(error, AgentError):
        return Trouble(error.code, error.message, isinstance(error, (InvalidTask, HostLacks)))
    return Trouble("HostError", f"the host refused: {error}", permanent=False)
