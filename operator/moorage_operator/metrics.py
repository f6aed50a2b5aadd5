"""What Prometheus may know. Values are read when asked for; only rates and durations are counted as they happen."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from moorage_operator.command import Command
from moorage_operator.fleet.governor import Governor
from moorage_operator.kube.transport import Call

LAG_EVERY_S = 1.0


class Metrics:
    """One per process; `watch` tells it what to read."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("moorage_api_calls_total", "Calls to the API server", ("verb", "resource", "code"), registry=self.registry)
        self.call_time = Histogram("moorage_api_call_seconds", "Time of calls to the API server", ("verb",), registry=self.registry)
        self.reconciles = Counter("moorage_reconciles_total", "Looks at one object", ("queue", "outcome"), registry=self.registry)
        self.reconcile_time = Histogram("moorage_reconcile_seconds", "Time of looks at one object", ("queue",), registry=self.registry)
        self.loop_lag = Histogram("moorage_loop_lag_seconds", "How late the event loop ran a timer", registry=self.registry)

    def called(self, call: Call) -> None:
        self.calls.labels(call.verb, call.resource, str(call.status or "none")).inc()
        if call.verb != "watch":
            self.call_time.labels(call.verb).observe(call.seconds)

    def reconciled(self, queue: str, outcome: str, seconds: float) -> None:
        self.reconciles.labels(queue, outcome).inc()
        self.reconcile_time.labels(queue).observe(seconds)

    async def watch_lag(self) -> None:
        """Endless; for a Supervisor."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self.loop_lag.observe(max(0.0, loop.time() - due))

    def watch(self, command: Command, governor: Governor) -> None:
        self.registry.register(_Reader(command, governor))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Reader(Collector):
    def __init__(self, command: Command, governor: Governor) -> None:
        self._command = command
        self._governor = governor

    def collect(self) -> Iterable[Metric]:
        command, world = self._command, self._command.world
        links = [link for _, link in world.fleet]
        yield _one("moorage_leader", "Whether this process leads", float(command.lease is not None and command.lease.held()))
        yield _one("moorage_epoch", "The epoch of this process", world.leadership.epoch)
        yield _one("moorage_ssh_handshakes", "SSH handshakes begun since the start", self._governor.handshakes)
        yield _family("moorage_node_sessions", "Sessions by state", ("state",), Tally(link.reason or "Connected" for link in links))
        versions = Tally(link.facts.agent_version[:12] for link in links if link.connected and link.facts)
        yield _family("moorage_agents", "Connected agents by version", ("version",), versions)
        states = Tally(str((obj.get("status") or {}).get("state") or "New") for obj in world.tasks.raw.values())
        yield _family("moorage_tasks", "Tasks by state", ("state",), states)
        yield _family("moorage_queue_depth", "Keys that wait for a worker", ("queue",), {q.name: q.depth for q in command.queues.values()})
        ages = {queue.name: queue.oldest_age_s for queue in command.queues.values()}
        yield _family("moorage_queue_age_seconds", "How long the oldest key waits for a worker", ("queue",), ages)
        yield from self._writers()

    def _writers(self) -> Iterator[Metric]:
        writers = self._command.world.statuses
        written = {kind.kind: writer.written for kind, writer in writers.items()}
        spared = {kind.kind: writer.spared for kind, writer in writers.items()}
        yield _family("moorage_status_writes", "Statuses written", ("kind",), written)
        yield _family("moorage_status_spared", "Status writes that would have said nothing new", ("kind",), spared)
        yield _family("moorage_background_restarts", "Background tasks started anew", ("task",), self._command.supervisor.restarts)


def _one(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _family(name: str, text: str, labels: tuple[str, ...], values: dict[str, int] | dict[str, float] | Tally[str]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label, value in values.items():
        family.add_metric((label,), value)
    return family
