"""The life of the process around its reconcilers: caches filled, Lease held, queues and sessions running, and the way out."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from random import Random

from moorage_operator.fleet.fleet import Fleet
from moorage_operator.kube.cache import Cache
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import Clock
from moorage_operator.kube.informer import Informer, relist
from moorage_operator.kube.insist import insist
from moorage_operator.kube.lease import Lease
from moorage_operator.kube.object import Key, Obj, key_of, parse_version, uid_of, version_of
from moorage_operator.kube.queue import WorkQueue
from moorage_operator.kube.resource import Resource
from moorage_operator.kube.supervisor import Supervisor
from moorage_operator.memory import settle, stay_settled
from moorage_operator.reconcile.upgrade import upgrade_agents
from moorage_operator.reconcile.world import Leadership, World

log = logging.getLogger(__name__)

LOST_THE_LEASE = 70
"""Exit status: another process leads. What this one believed may be out of date, so it starts anew."""

DRAIN_S = 3.0


class Command:
    """`watched` are the caches that kopf's watches feed; `informers` the ones that feed themselves."""

    def __init__(
        self,
        world: World,
        *,
        api: KubeApi,
        fleet: Fleet,
        queues: Mapping[Resource, WorkQueue[Key]],
        watched: Mapping[Resource, Cache],
        informers: Mapping[str, Informer],
        clock: Clock,
        random: Random,
    ) -> None:
        self.world = world
        self.lease: Lease | None = None
        self.queues = queues
        self.informers = informers
        self.supervisor = Supervisor(clock=clock, random=random)
        self.synced = asyncio.Event()
        self._listed_at = 0
        self._api = api
        self._fleet = fleet
        self._watched = watched
        self._clock = clock
        self._random = random

    def feed(self, resource: Resource, kind: str | None, obj: Obj) -> None:
        """One event of a kopf watch. kopf forgets deletions that fall into a gap, hence also _compare."""
        cache = self._watched[resource]
        if kind == "DELETED":
            cache.remove(key_of(obj), uid=uid_of(obj), version=version_of(obj))
        else:
            cache.put({**obj, "metadata": dict(obj["metadata"])})

    async def start(self, lease: Lease) -> None:
        """Fill the caches, then stand for election. Returns when the caches are filled."""
        self.lease = lease
        self.supervisor.start("memory", lambda: stay_settled(self._clock))
        for name, informer in self.informers.items():
            self.supervisor.start(f"watch-{name}", informer.run)
        self.supervisor.start("compare", self._compare)
        self.supervisor.start("events", self.world.events.run)
        await asyncio.gather(*(informer.synced.wait() for informer in self.informers.values()))
        self._listed_at = await insist("the caches", self._relist_all, clock=self._clock, random=self._random)
        settle()
        self.synced.set()
        self.supervisor.start("lease", lease.run)

    def lead(self, _epoch: int) -> None:
        """The Lease is ours."""
        self.supervisor.start("leading", self._lead)

    async def _lead(self) -> None:
        """Look at everything, and go on from there. Endless; for a Supervisor."""
        if not self._knows_all():
            await insist("what the leader before wrote", self._catch_up, clock=self._clock, random=self._random)
        assert self.lease is not None
        log.info("leading", extra={"epoch": self.lease.epoch})
        self.world.leadership = Leadership(self.lease.epoch, self._clock.now())
        self.supervisor.start("pulse", self.world.keep_pulse)
        for resource, writer in self.world.statuses.items():
            self.supervisor.start(f"status-{resource.plural}", writer.run)
        self.supervisor.start("upgrades", lambda: upgrade_agents(self.world))
        for resource, queue in self.queues.items():
            self.supervisor.start(f"queue-{resource.plural}", queue.run)
            for obj in self._cache(resource).values():
                queue.add(key_of(obj))
        await asyncio.Event().wait()

    def _knows_all(self) -> bool:
        """Whether the caches hold what the leader before wrote last. A document without a task that it placed would stop the task."""
        assert self.lease is not None
        freed_at = self.lease.freed_at
        return freed_at is not None and freed_at <= min(self._listed_at, *(informer.version for informer in self.informers.values()))

    async def _catch_up(self) -> None:
        for informer in self.informers.values():
            await informer.relist()
        await self._relist_all()

    def go_on(self, epoch: int) -> None:
        """We lead as before, in a higher epoch."""
        self.world.leadership.epoch = epoch

    def step_down(self, reason: str) -> None:
        """Another process leads, or may: end at once, before anything is written or sent that it knows nothing of."""
        log.error("ending, the Lease is lost", extra={"why": reason})
        logging.shutdown()
        os._exit(LOST_THE_LEASE)

    async def raise_epoch_above(self, epoch: int) -> None:
        """An agent of our swarm obeyed a higher epoch: go above it, so that the fleet follows us and nobody else."""
        assert self.lease is not None
        await self.lease.raise_epoch_above(epoch)

    async def stop(self) -> None:
        """Finish what is written soon, then let others lead. Containers run on."""
        await self.supervisor.stop(*(f"queue-{resource.plural}" for resource in self.queues))
        await asyncio.gather(*(writer.drain(within_s=DRAIN_S) for writer in self.world.statuses.values()))
        await self._fleet.drop_all()
        if self.lease is not None:
            await self.lease.release()
        await self.supervisor.stop()

    async def _compare(self) -> None:
        """Find what kopf's watches missed."""
        while True:
            await self._clock.sleep(self.world.settings.relist_s * self._random.uniform(0.8, 1.2))
            await self._relist_all()

    async def _relist_all(self) -> int:
        """The version of the oldest list."""
        versions = [
            await relist(self._api, cache, namespace=namespace)
            for resource, cache in self._watched.items()
            for namespace in (self.world.settings.served if resource.namespaced else ("",))
        ]
        return min(map(parse_version, versions))

    def _cache(self, resource: Resource) -> Cache:
        return self._watched.get(resource, self.world.tasks.raw)
