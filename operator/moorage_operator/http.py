"""/healthz, /readyz and /metrics. Healthy is a process whose loop turns, that goes on with its watches, and sees to its Lease if it leads.

An API server that is away is no fault of this process: to end it would only cut its connections to the hosts. So what counts is when it was
asked last, not when it answered. kopf's watches are not looked at: they begin anew by themselves, and lists tell what they missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aiohttp import web

from moorage_operator.command import Command

WATCH_LATE_S = 180.0
"""A watch hears a bookmark about once a minute, and one that heard nothing begins anew after 90 s."""

LEASE_LATE_S = 15.0


class HttpServer:
    """`command` is None until the process has come so far."""

    def __init__(self, host: str | None, port: int, *, command: Callable[[], Command | None], metrics: Callable[[], bytes]) -> None:
        self.port = port
        self._host = host
        self._command = command
        self._metrics = metrics
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/readyz", self._readyz), web.get("/metrics", self._metricsz)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        command = self._command()
        troubles = [] if command is None else list(troubles_of(command))
        return web.Response(text="\n".join(troubles) or "ok", status=503 if troubles else 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        command = self._command()
        if command is None:
            return web.Response(text="the identity of the swarm is not known yet: the log says why", status=503)
        ready = command.synced.is_set()
        return web.Response(text="ok" if ready else "caches are being filled", status=200 if ready else 503)

    async def _metricsz(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), content_type="text/plain")


def troubles_of(command: Command) -> Iterator[str]:
    for name, informer in command.informers.items():
        if informer.synced.is_set() and informer.tried_s_ago > WATCH_LATE_S:
            yield f"the watch of {name} was not tried for {informer.tried_s_ago:.0f} s"
    lease = command.lease
    if lease is not None and command.world.leadership.epoch and lease.tried_s_ago > LEASE_LATE_S:
        yield f"renewing the Lease was not tried for {lease.tried_s_ago:.0f} s"
