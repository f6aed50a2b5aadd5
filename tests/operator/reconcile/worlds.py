"""A World without a fleet: caches that a test fills, an API server in memory, and a list of what was wanted to be looked at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from moorage_operator.api import Image, Node, Service, Stack, Task
from moorage_operator.fleet.archive import archive_of
from moorage_operator.fleet.fleet import Fleet
from moorage_operator.fleet.governor import Governor
from moorage_operator.kube.cache import Cache
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.events import EventRecorder
from moorage_operator.kube.object import Key, Obj, key_of
from moorage_operator.kube.resource import CONFIG_MAPS, IMAGES, NODES, SECRETS, SERVICES, STACKS, TASKS, Resource
from moorage_operator.kube.status import StatusWriter
from moorage_operator.plan.fleet_view_cache import FleetView
from moorage_operator.plan.task_container import Containers
from moorage_operator.reconcile import indexes
from moorage_operator.reconcile.data import Data
from moorage_operator.reconcile.desk import OperatorDesk
from moorage_operator.reconcile.placer import Placer
from moorage_operator.reconcile.ssh_keys import SshKeys
from moorage_operator.reconcile.swarm import Swarm
from moorage_operator.reconcile.typed import Typed
from moorage_operator.reconcile.world import Leadership, World
from moorage_operator.settings import Settings

from tests.operator.fakeapi import FakeApi
from tests.operator.kube.clock import ManualClock
from tests.operator.kube.waiting import until

INDEXES = {
    STACKS: indexes.STACK_INDEXES,
    SERVICES: indexes.SERVICE_INDEXES,
    IMAGES: indexes.IMAGE_INDEXES,
    NODES: indexes.NODE_INDEXES,
    TASKS: indexes.TASK_INDEXES,
}


@dataclass
class Bench:
    """What is written to the server is in the cache at once. Statuses of Services are written while `statuses` runs."""

    fake: FakeApi
    api: KubeApi
    clock: ManualClock = field(default_factory=ManualClock)
    looks: list[tuple[str, str]] = field(default_factory=list)
    """Kind and name of what is to be looked at."""

    def __post_init__(self) -> None:
        clock, swarm = self.clock, Swarm("swarm", b"k" * 32)
        data = Data(self.api, {"Secret": Cache(SECRETS), "ConfigMap": Cache(CONFIG_MAPS)}, swarm)
        self.caches = {resource: Cache(resource, indexes=INDEXES[resource]) for resource in INDEXES}
        self.writers = {resource: self._writer(resource) for resource in self.caches}
        self.statuses = self.writers[SERVICES]
        self.world = World(
            settings=Settings(namespace="moorage-system"),
            clock=clock,
            api=self.api,
            swarm=swarm,
            stacks=Typed(self.caches[STACKS], Stack),
            services=Typed(self.caches[SERVICES], Service),
            images=Typed(self.caches[IMAGES], Image),
            nodes=Typed(self.caches[NODES], Node),
            tasks=Typed(self.caches[TASKS], Task),
            containers=Containers(),
            data=data,
            ssh_keys=SshKeys(self.api, data, "moorage-system"),
            placer=Placer(FleetView(), clock=clock),
            statuses=self.writers,
            events=EventRecorder(self.api, clock=clock, component="moorage", instance="test"),
            enqueue=self._look,
            leadership=Leadership(1, clock.now()),
        )
        self.desk = OperatorDesk(self.world)
        self.world.set_fleet(Fleet(desk=self.desk, governor=Governor(), archive=archive_of({}), root="/var/lib/moorage", random=Random(1)))

    def add(self, resource: Resource, name: str, spec: Obj, *, status: Obj | None = None, **metadata: Any) -> Obj:
        scope = {"namespace": "default"} if resource.namespaced else {}
        made = self.fake.store.create(resource, {"metadata": {"name": name, **scope, **metadata}, "spec": spec})
        return self.change(resource, key_of(made), status=status) if status else self.seen(resource, made)

    def change(self, resource: Resource, key: Key, *, spec: Obj | None = None, status: Obj | None = None) -> Obj:
        """These fields of spec, and the whole status."""
        store = self.fake.store
        if spec is not None:
            store.update(resource, key, lambda old: {**old, "spec": {**old["spec"], **spec}})
        if status is not None:
            store.update(resource, key, lambda old: {**old, "status": status}, part="status")
        return self.seen(resource, store.get(resource, key))

    def seen(self, resource: Resource, obj: Obj) -> Obj:
        obj = {**obj, "metadata": dict(obj["metadata"])}
        self.caches[resource].put(obj)
        return obj

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Statuses of all kinds are written while it lasts."""
        running = [asyncio.create_task(writer.run()) for writer in self.writers.values()]
        try:
            yield
        finally:
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def written(self) -> None:
        """After a second, which is longer than counts may wait."""
        await self.clock.advance(1)
        await until(lambda: not any(writer.waiting for writer in self.writers.values()))

    def refresh(self) -> None:
        """The caches hear what the server has, as their watches would tell them."""
        for resource, cache in self.caches.items():
            there = {key_of(obj): obj for obj in self.fake.store.find(resource)}
            for key in [key for key in cache.keys() if key not in there]:  # noqa: SIM118 (a method of Cache, not of a dict)
                cache.remove(key)
            for obj in there.values():
                self.seen(resource, obj)

    def _writer(self, resource: Resource) -> StatusWriter:
        return StatusWriter(
            self.api, self.caches[resource], clock=self.clock, random=Random(1), on_conflict=lambda key: self._look(resource, key, 0.0)
        )

    def _look(self, resource: Resource, key: Key, after_s: float) -> None:
        self.looks.append((resource.kind, key.name))
