"""Wires settings, API, fleet and reconcilers into a kopf operator. The only place where they are constructed."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random

import kopf

from moorage_operator import handlers, logs, uninstall
from moorage_operator.api import Image, Node, Service, Stack, Task
from moorage_operator.command import Command
from moorage_operator.fleet.archive import agent_archive
from moorage_operator.fleet.descriptors import raise_limit
from moorage_operator.fleet.fleet import Fleet
from moorage_operator.fleet.governor import Connect, Governor
from moorage_operator.fleet.ssh import connect as connect_by_ssh
from moorage_operator.http import HttpServer
from moorage_operator.kube import login
from moorage_operator.kube.cache import Cache
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.events import EventRecorder
from moorage_operator.kube.informer import Informer
from moorage_operator.kube.insist import insist
from moorage_operator.kube.lease import Lease
from moorage_operator.kube.object import Key
from moorage_operator.kube.queue import WorkQueue
from moorage_operator.kube.resource import CONFIG_MAPS, IMAGES, NODES, SECRETS, SERVICES, STACKS, TASKS, Resource
from moorage_operator.kube.status import StatusWriter
from moorage_operator.metrics import Metrics
from moorage_operator.plan.fleet_view_cache import FleetView
from moorage_operator.plan.task_container import Containers
from moorage_operator.reconcile import indexes, triggers
from moorage_operator.reconcile.data import Data
from moorage_operator.reconcile.desk import OperatorDesk
from moorage_operator.reconcile.image import reconcile_image
from moorage_operator.reconcile.node import reconcile_node
from moorage_operator.reconcile.placer import Placer
from moorage_operator.reconcile.service import reconcile_service
from moorage_operator.reconcile.ssh_keys import SshKeys
from moorage_operator.reconcile.stack import reconcile_stack
from moorage_operator.reconcile.swarm import swarm_identity
from moorage_operator.reconcile.task_state import reconcile_task
from moorage_operator.reconcile.typed import Typed
from moorage_operator.reconcile.world import World
from moorage_operator.settings import Settings

Reconcile = Callable[[Key, World], Awaitable[float | None]]

RECONCILERS: dict[Resource, tuple[Reconcile, int]] = {
    STACKS: (reconcile_stack, 2),
    SERVICES: (reconcile_service, 8),
    IMAGES: (reconcile_image, 8),
    NODES: (reconcile_node, 8),
    TASKS: (reconcile_task, 16),
}
INDEXES = {
    STACKS: indexes.STACK_INDEXES,
    SERVICES: indexes.SERVICE_INDEXES,
    IMAGES: indexes.IMAGE_INDEXES,
    NODES: indexes.NODE_INDEXES,
    TASKS: indexes.TASK_INDEXES,
}


class Operator:
    """What there is one of in a process. `connect` opens the connection to a host."""

    def __init__(self, settings: Settings, credentials: Credentials, *, connect: Connect = connect_by_ssh) -> None:
        self.command: Command | None = None
        self._connect = connect
        self._settings = settings
        self._credentials = credentials
        self.metrics = Metrics()
        self._http = HttpServer(settings.http_host, settings.http_port, command=lambda: self.command, metrics=self.metrics.text)
        self._api: KubeApi | None = None

    async def start(self) -> Command:
        """Returns once the caches are filled, however long the API server is away; what it raises no second attempt would mend."""
        try:
            return await self._started()
        except BaseException:
            await self.stop()
            raise

    async def _started(self) -> Command:
        await self._http.start()
        clock, random = SystemClock(), Random()  # noqa: S311 (jitter)
        leads: list[Lease] = []
        api = self._api = KubeApi(
            self._credentials,
            clock=clock,
            may_write=lambda: not leads or leads[0].held(),
            slots=self._settings.writes_in_flight,
            rate=self._settings.writes_per_s,
            observe=self.metrics.called,
        )
        command = self.command = await self._command(api, clock, random)
        lease = Lease(
            api,
            Key(self._settings.namespace, self._settings.lease),
            identity=self._settings.identity,
            clock=clock,
            on_acquired=command.lead,
            on_raised=command.go_on,
            on_lost=command.step_down,
        )
        leads.append(lease)
        command.world.raise_epoch_above = command.raise_epoch_above
        command.supervisor.start("loop-lag", self.metrics.watch_lag)
        await command.start(lease)
        return command

    async def stop(self) -> None:
        if self.command is not None:
            await self.command.stop()
        if self._api is not None:
            await self._api.close()
        await self._http.stop()

    async def _command(self, api: KubeApi, clock: SystemClock, random: Random) -> Command:
        containers = Containers()
        shares = {TASKS: containers.share}
        caches = {resource: Cache(resource, indexes=INDEXES[resource], share=shares.get(resource)) for resource in INDEXES}
        metadata = {"Secret": Cache(SECRETS), "ConfigMap": Cache(CONFIG_MAPS)}
        queues: dict[Resource, WorkQueue[Key]] = {}
        identity = Key(self._settings.namespace, self._settings.swarm_secret)
        read_swarm = partial(swarm_identity, api, identity, new_id=lambda: str(uuid.uuid4()), new_key=lambda: secrets.token_bytes(32))
        swarm = await insist("the identity of the swarm", read_swarm, clock=clock, random=random)
        data = Data(api, metadata, swarm)
        world = World(
            settings=self._settings,
            clock=clock,
            api=api,
            swarm=swarm,
            stacks=Typed(caches[STACKS], Stack),
            services=Typed(caches[SERVICES], Service),
            images=Typed(caches[IMAGES], Image),
            nodes=Typed(caches[NODES], Node),
            tasks=Typed(caches[TASKS], Task),
            containers=containers,
            data=data,
            ssh_keys=SshKeys(api, data, self._settings.namespace),
            placer=Placer(FleetView(), clock=clock),
            statuses={
                resource: StatusWriter(api, caches[resource], clock=clock, random=random, on_conflict=partial(_again, queues, resource))
                for resource in RECONCILERS
            },
            events=EventRecorder(api, clock=clock, component="moorage", instance=self._settings.identity),
            enqueue=lambda resource, key, after_s: queues[resource].add(key, after_s),
        )
        governor = Governor(self._connect)
        fleet = Fleet(desk=OperatorDesk(world), governor=governor, archive=agent_archive(), root=self._settings.agent_root, random=random)
        world.set_fleet(fleet)
        for resource, (reconcile, workers) in RECONCILERS.items():
            queues[resource] = WorkQueue(
                resource.kind,
                partial(_reconcile, reconcile, world),
                clock=clock,
                random=random,
                workers=workers,
                observe=partial(self.metrics.reconciled, resource.kind),
            )
        triggers.connect(world)
        for kind, cache in metadata.items():
            cache.subscribe(triggers.data_changed(world, kind))
        watch_metadata = partial(Informer, api, clock=clock, random=random, metadata_only=True)
        command = Command(
            world,
            api=api,
            fleet=fleet,
            queues=queues,
            watched={resource: caches[resource] for resource in handlers.WATCHED},
            informers={
                **_informers(partial(Informer, api, caches[TASKS], clock=clock, random=random), "tasks", self._settings.served),
                **_informers(partial(watch_metadata, metadata["Secret"]), "secrets", self._settings.secrets_served),
                **_informers(partial(watch_metadata, metadata["ConfigMap"]), "configmaps", self._settings.served),
            },
            clock=clock,
            random=random,
        )
        self.metrics.watch(command, governor)
        return command


async def _reconcile(reconcile: Reconcile, world: World, key: Key) -> float | None:
    return await reconcile(key, world)


def _again(queues: dict[Resource, WorkQueue[Key]], resource: Resource, key: Key) -> None:
    queues[resource].add(key)


def _informers(informer: Callable[..., Informer], name: str, namespaces: Sequence[str]) -> dict[str, Informer]:
    """One for each namespace, feeding one cache: what may read a namespace may not list all of them."""
    return {f"{name} in {namespace}" if namespace else name: informer(namespace=namespace) for namespace in namespaces}


def main(argv: Sequence[str] | None = None) -> None:
    """What the command line says; the operator itself when it says nothing."""
    parser = argparse.ArgumentParser(prog="python -m moorage_operator", description="The operator of Moorage: commands the swarm.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    verbs.add_parser("run", help="run the operator until SIGTERM, or until another process leads (the default)")
    guard = verbs.add_parser("uninstall-guard", help="end with 1, and say why, while Stacks, Services, Tasks or Nodes need the operator")
    guard.add_argument("--release-finalizers", action="store_true", help="first let go of Tasks and Nodes that are being deleted")
    guard.add_argument("--deployment", default="moorage", help="the operator's Deployment, named in what is printed")
    given = parser.parse_args(argv)
    settings = Settings()
    logs.configure(settings.log_level)
    if given.verb == "uninstall-guard":
        guard_uninstall = uninstall.guard(settings, deployment=given.deployment, release_finalizers=given.release_finalizers)
        sys.exit(asyncio.run(guard_uninstall))
    _run(settings)


def _run(settings: Settings) -> None:
    raise_limit()
    os.environ.setdefault("LOGNAME", "moorage")  # asyncssh wants to know who runs it; a container's uid may have no name
    credentials = login.load()
    operator = Operator(settings, credentials)
    registry = kopf.OperatorRegistry()
    handlers.register(registry, credentials=credentials, start=operator.start, stop=operator.stop)
    asyncio.run(
        kopf.operator(
            registry=registry,
            standalone=True,
            clusterwide=not settings.watch_namespaces,
            namespaces=settings.watch_namespaces,
        )
    )


if __name__ == "__main__":
    main()
