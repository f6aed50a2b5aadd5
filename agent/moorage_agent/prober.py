"""Runs the health checks of running containers. What answers mean is decided in health.py; nothing here blocks the loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from moorage_agent.engine import Runtime
from moorage_agent.health import KEPT_OUTPUT, Probe, begun, judge, next_probe_s
from moorage_agent.knock import knock_http, knock_tcp
from moorage_agent.protocol import Healthcheck
from moorage_agent.runtime.runtime import ExecResult
from moorage_agent.task_state import Moment
from moorage_agent.world import TaskState, World

log = logging.getLogger("moorage.prober")

# Many commands that begin at once only delay each other, and what runs. One that takes longer waits for something: it needs no place.
EXECS_BEGINNING = 4
BEGINNING_S = 0.25


class Prober:
    """`verdict` is told the uid of a task whose health changed."""

    def __init__(self, world: World, runtime: Runtime, *, clock: Callable[[], Moment], verdict: Callable[[str], None]) -> None:
        self._world, self._runtime, self._clock, self._verdict = world, runtime, clock, verdict
        self._places = asyncio.Semaphore(EXECS_BEGINNING)
        self._watches: dict[str, tuple[int, asyncio.Task[None]]] = {}

    def sync(self, uid: str) -> None:
        """Probe the task's present run, and no other. Cheap when nothing changed."""
        state = self._world.tasks.get(uid)
        run = state.seen.run if state and state.seen and state.seen.exit is None and state.record.stop is None else 0
        watched = self._watches.get(uid)
        if watched is not None and watched[0] != run:
            watched[1].cancel()
            del self._watches[uid]
            watched = None
        if run == 0 or watched is not None or state is None:
            return
        check = self._world.healthcheck(state)
        if check is not None:
            state.health = begun(check, was_healthy=state.record.healthy_run == run)
            self._watches[uid] = (run, asyncio.get_running_loop().create_task(self._watch(state, check, self._started(state))))

    async def close(self) -> None:
        tasks = [task for _, task in self._watches.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, state: TaskState, check: Healthcheck, started: float) -> None:
        while state.health is not None and state.health.healthy is not False:
            await asyncio.sleep(next_probe_s(state.health, check, age_s=self._clock().boot - started))
            probe = await self._probe(state, check)
            before, age = state.health, self._clock().boot - started
            state.health = judge(before, probe, check, age_s=age)
            if state.health.healthy != before.healthy:
                log.info("health", extra={"fields": {"task": state.uid, "healthy": state.health.healthy, "output": probe.output[-200:]}})
                self._verdict(state.uid)

    def _started(self, state: TaskState) -> float:
        """Boot time of the start. Asked once per run: the wall clock it was written down by may be set to any time later."""
        now, started = self._clock(), state.seen.started_at if state.seen else None
        return now.boot - (max(0.0, now.wall - started) if started is not None else 0.0)

    async def _probe(self, state: TaskState, check: Healthcheck) -> Probe:
        """One answer; a probe that takes too long or cannot be made is a failed one."""
        try:
            if check.exec is not None:
                done = await self._exec(state.uid, check.exec, check.timeout_s)
                return Probe(done.code == 0, done.output[-KEPT_OUTPUT:].decode(errors="replace"))
            return await asyncio.wait_for(self._knock(state, check), check.timeout_s)
        except asyncio.TimeoutError:
            return Probe(False, f"no answer within {check.timeout_s:g} s")
        except Exception as error:
            return Probe(False, f"the probe could not be made: {error}")

    async def _exec(self, uid: str, argv: Sequence[str], timeout_s: float) -> ExecResult:
        async with self._places:
            running = asyncio.get_running_loop().create_task(self._runtime.exec(uid, argv, timeout_s=timeout_s))
            try:
                await asyncio.wait([running], timeout=BEGINNING_S)
            except asyncio.CancelledError:
                running.cancel()
                raise
        return await running

    async def _knock(self, state: TaskState, check: Healthcheck) -> Probe:
        host_network = state.spec is not None and state.spec.container.network == "Host"
        pid = None if host_network or state.seen is None else state.seen.pid
        if check.http_port is not None:
            return await knock_http(pid, check.http_port, check.http_path)
        assert check.tcp_port is not None
        return await knock_tcp(pid, check.tcp_port)
