"""The daemon: puts the parts together and keeps them running.

It owns no container. Whatever it knows is on disk or can be observed, so it may be killed or replaced at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable

from moorage_agent import shutdown, systemd, uninstall
from moorage_agent.apply import ApplyLoop
from moorage_agent.clock import clock_of
from moorage_agent.contact import Contact
from moorage_agent.desk import OperatorDesk
from moorage_agent.engine import Images, Pull, Resolve, Runtime
from moorage_agent.execute import Executor
from moorage_agent.facts import host_facts
from moorage_agent.journal import rotate
from moorage_agent.paths import Paths
from moorage_agent.prober import Prober
from moorage_agent.protocol import Feature, HostFacts
from moorage_agent.pulls import Puller
from moorage_agent.report import Reporter
from moorage_agent.runtime.runtime import ContainerState
from moorage_agent.state import HostState, TaskStore
from moorage_agent.steps import PullImage, image_steps
from moorage_agent.task_state import ImageView, Seen
from moorage_agent.unused_images import UnusedImages, nearly_full
from moorage_agent.values import ValueStore, source_keys
from moorage_agent.volumes import volume_keys
from moorage_agent.world import TaskState, World

log = logging.getLogger("moorage.daemon")

HOUSEKEEPING_S = 30.0
SWEEP_AGE_S = 120.0
TIDY_EVERY_S = 3600.0
SETTLE_S = 10.0


class Daemon:
    """One per process. `values` is made by the caller, after the secrets' tmpfs was mounted."""

    def __init__(self, paths: Paths, *, runtime: Runtime, images: Images, pull: Pull, resolve: Resolve, values: ValueStore) -> None:
        clock = clock_of(paths)
        self._paths, self._runtime, self._images, self._clock = paths, runtime, images, clock
        self._store, host = TaskStore(paths), HostState(paths)
        self._host_id = host.host_id()
        self._ended = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None
        self._house = asyncio.Lock()
        self._removed = False
        self._unused_images = UnusedImages()
        self._tidied_at = float("-inf")
        world = self._world = World(values)
        self._reporter = Reporter(world, clock)
        self._prober = Prober(world, runtime, clock=clock, verdict=self._on_verdict)
        self._executor = Executor(
            world,
            runtime=runtime,
            images=images,
            store=self._store,
            paths=paths,
            clock=clock,
            features=self._features,
            volumes_made=self._on_volumes,
        )
        self._loop = ApplyLoop(world, self._executor, clock=clock, pull=self._on_pull, ask=self._ask, changed=self._on_change)
        self._puller = Puller(world, images, pull, clock=clock, changed=self._on_image, ask=self._ask_again)
        self._contact = Contact(world, paths, clock=clock, again=self._loop.touch)
        self.desk = OperatorDesk(
            world,
            host,
            reporter=self._reporter,
            contact=self._contact,
            taken=self._take,
            arrived=self._on_value,
            resolve=lambda source, cancellation: resolve(source, values.get, images, cancellation=cancellation),
            remove_all=self._remove_all,
            end=self._ended.set,
        )

    def recover(self) -> None:
        """Learn what there is: documents, records, containers, images. Reads only."""
        self._reporter.facts = host_facts(self._paths, self._host_id, self._runtime.features())
        for uid in self._store.known():
            spec, state = self._store.spec(uid), TaskState(uid, record=self._store.record(uid))
            self._world.tasks[uid] = state
            if spec is not None:
                self._world.remember(state, spec)
        for container in self._runtime.observe():
            self._see(container)
        self._contact.recall()
        held = self.desk.held_document()
        if held is not None:
            self._world.adopt_document(*held)
        self._puller.look(image.digest for image in self._images.images())

    async def run(self) -> None:
        """Apply, listen to exits and keep house until retired or uninstalled. Raises what made a part fail: start a daemon anew."""
        self._touch_all()
        kept = self._runtime.keep_supervised(look_every_s=HOUSEKEEPING_S)
        parts = [asyncio.create_task(part) for part in (self._loop.run(), self._hear_exits(), self._keep_house(), kept)]
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait([*parts, ended], return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                if part.done():
                    part.result()
        finally:
            for task in (*parts, ended):
                task.cancel()
            await self._close()

    def leave(self) -> None:
        """End, because whoever supervises the daemon says so; when the host goes down, after its containers."""
        self._leaving = self._leaving or asyncio.get_running_loop().create_task(self._leave())

    async def _leave(self) -> None:
        log.info("ends, as it was told to")
        try:
            if self._paths.under_systemd and await asyncio.get_running_loop().run_in_executor(None, systemd.host_stops):
                await shutdown.containers_ended(self._world, touch=self._loop.touch)
        finally:
            self._ended.set()

    async def _close(self) -> None:
        self.desk.close()
        await self._prober.close()
        await self._puller.close()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._loop.settle(), SETTLE_S)
        self._runtime.close()

    # --- what happens

    async def _hear_exits(self) -> None:
        while True:
            container = await self._runtime.next_exit()
            self._see(container)
            self._loop.touch([container.uid])

    def _see(self, container: ContainerState) -> None:
        state = self._world.tasks.setdefault(container.uid, TaskState(container.uid))
        if state.seen is None or (container.run, container.exit is not None) >= (state.seen.run, state.seen.exit is not None):
            state.seen = Seen(container.run, container.pid, container.started_at, container.exit)

    def _on_volumes(self) -> None:
        if self._reporter.facts is not None:
            self._say_facts(self._reporter.facts)

    def _say_facts(self, facts: HostFacts) -> None:
        """Volumes are read last and here: where a Service made anew finds its data hangs on them, and `facts` took their time."""
        self._reporter.facts_changed(dataclasses.replace(facts, volumes=volume_keys(self._paths)))

    def _take(self, touched: set[str]) -> None:
        """A new document is in force."""
        self._puller.drop_unwanted({image.digest for image in self._world.wished_images()})
        fresh = [state.spec.image.digest for state in map(self._world.tasks.__getitem__, touched) if state.spec and state.wanted]
        self._puller.try_again(fresh)
        self._puller.look(fresh)
        self._want_images()
        self._loop.touch(touched | {relative for uid in touched for relative in self._world.relatives(uid)})

    def _on_change(self, uid: str) -> None:
        self._prober.sync(uid)
        self._reporter.task_changed(uid)

    def _on_verdict(self, uid: str) -> None:
        self._executor.note_health(uid)
        self._loop.touch([uid])

    def _on_image(self, digest: str) -> None:
        self._reporter.image_changed(digest)
        self._loop.touch(self._world.users_of(digest))

    def _on_value(self, key: str) -> None:
        self._puller.try_again([image.digest for image in self._world.wished_images() if key in source_keys(image.source)])
        self._want_images()
        self._loop.touch(self._world.users_of_value(key))

    def _on_pull(self, step: PullImage) -> None:
        self._puller.ensure(step.digest, step.source)

    def _ask(self, keys: tuple[str, ...]) -> None:
        self.desk.ask(keys)

    def _ask_again(self, keys: tuple[str, ...]) -> None:
        self.desk.ask(keys, again=True)

    def _touch_all(self) -> None:
        self._loop.touch(self._world.tasks)
        self._want_images()

    def _features(self) -> tuple[Feature, ...]:
        return self._reporter.facts.features if self._reporter.facts else ()

    # --- what needs no haste, and what a lost event would otherwise leave undone

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            for chore in (
                self._look_again,
                self._tell_facts,
                self._remove_orphans,
                self._sweep_values,
                self._sweep_images,
                self._tidy_images,
            ):
                await self._attempt(chore)
            rotate(self._paths.agent_log)

    async def _attempt(self, chore: Callable[[], Awaitable[None]]) -> None:
        """Whatever it meets, the other chores do not wait for it, and it is tried again. A house that is gone is not kept."""
        async with self._house:
            try:
                if not self._removed:
                    await chore()
            except Exception:
                log.exception("housekeeping failed")

    async def _look_again(self) -> None:
        for container in self._runtime.observe():
            self._see(container)
        self._touch_all()
        self._executor.save_again()
        self.desk.save_again()
        self.desk.ask(self._world.values.missing(self._world.keys_in_use()), again=True)

    async def _tell_facts(self) -> None:
        features = self._runtime.features()
        self._say_facts(await asyncio.get_running_loop().run_in_executor(None, host_facts, self._paths, self._host_id, features))

    async def _remove_orphans(self) -> None:
        """What is left of containers whose directories are gone."""
        if self._world.document is not None:
            for uid in await self._runtime.remove_orphans(list(self._world.tasks)):
                log.warning("removed the remains of a container nobody knows", extra={"fields": {"task": uid}})

    async def _sweep_values(self) -> None:
        keys = self._world.keys_in_use() | {key for image in self._world.wished_images() for key in source_keys(image.source)}
        self._world.value_errors = {key: why for key, why in self._world.value_errors.items() if key in keys}
        gone = self._world.values.sweep(keys, self._world.files_in_use(), older_than_s=SWEEP_AGE_S)
        if gone:
            log.info("swept values nobody refers to", extra={"fields": {"count": len(gone)}})

    async def _sweep_images(self) -> None:
        keep = self._unused_images.keep(self._world, self._clock().boot, disk_is_full=nearly_full(self._paths.images))
        if keep is not None:
            self._tidied_at = float("-inf")
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._images.sweep, keep)
            finally:
                for digest in [digest for digest, image in self._world.images.items() if image.state == "Ready" and digest not in keep]:
                    if self._images.get(digest) is None:
                        self._puller.forget(digest)

    async def _tidy_images(self) -> None:
        now, full = self._clock().boot, nearly_full(self._paths.images)
        if full or now - self._tidied_at >= TIDY_EVERY_S:
            await asyncio.get_running_loop().run_in_executor(None, lambda: self._images.tidy(disk_is_full=full))
            self._tidied_at = now

    def _want_images(self) -> None:
        now, document = self._clock(), self._world.document
        for image in document.images if document else ():
            for step in image_steps(image, self._world.images.get(image.digest, ImageView()), now):
                self._puller.ensure(step.digest, step.source)

    async def _remove_all(self) -> None:
        await uninstall.tasks_gone(self._world)
        async with self._house:
            await self._runtime.stop_zygote()
            await asyncio.get_running_loop().run_in_executor(None, uninstall.remove_files, self._paths)
            self._removed = True
