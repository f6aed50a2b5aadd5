"""Every kopf decorator of the operator. Handlers feed caches; nothing is decided here, and nothing depends on a kopf event arriving."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from itertools import chain, repeat
from typing import Any

import kopf

from moorage_operator.command import Command
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.resource import IMAGES, NODES, SERVICES, STACKS, Resource

WATCHED = (STACKS, SERVICES, IMAGES, NODES)


class Patience:
    """Seconds between kopf's attempts while the API server is away, without an end: by default the process would end within a minute."""

    def __iter__(self) -> Iterator[float]:
        return chain((0.5, 1.0, 2.0), repeat(3.0))


class NoDiffBase(kopf.DiffBaseStorage):
    """kopf's memory of what it last handled, switched off: only on.event is used, and each note would be a write per object."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None: ...


class NoProgress(kopf.ProgressStorage):
    """kopf's memory of half-done handlers, switched off likewise."""

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None: ...

    def purge(self, **_: Any) -> None: ...

    def touch(self, **_: Any) -> None: ...

    def clear(self, *, essence: Any) -> Any:
        return essence


def register(
    registry: kopf.OperatorRegistry,
    *,
    credentials: Credentials,
    start: Callable[[], Awaitable[Command]],
    stop: Callable[[], Awaitable[None]],
) -> None:
    """`start` builds the command in kopf's event loop and returns once its caches are filled. If it raises, the process ends."""
    running: list[Command] = []

    @kopf.on.startup(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def startup(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)
        running.append(await start())

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        await stop()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=credentials.server, aiohttp_session=credentials.session())

    def feed(resource: Resource) -> None:
        @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=f"feed-{resource.plural}")
        async def event(event: Any, **_: Any) -> None:
            running[0].feed(resource, event["type"], event["object"])

    for resource in WATCHED:
        feed(resource)


def configure(settings: kopf.OperatorSettings) -> None:
    settings.persistence.finalizer = "moorage.dev/kopf"
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = NoProgress()
    settings.posting.enabled = False
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = Patience()
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
