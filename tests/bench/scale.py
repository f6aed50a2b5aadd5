"""What the operator costs beside 1,000 nodes and 20,000 tasks: CPU and memory of its process alone, without kopf and without SSH.

Figures: scale_cold_start_s, scale_rss_mib, scale_cpu_ms_per_change, scale_idle_cpu_percent. CPU seconds, because the machine is shared; the
wall time of a start goes with its figure.
"""

from __future__ import annotations

import asyncio

from tests.bench.figure import figure, show
from tests.operator.scale.crowd import Crowd, crowd, writes
from tests.operator.scale.population import Size

SIZE = Size(nodes=1000, services=1000, replicas=20)
CHANGES, IDLE_S = 100, 20.0


async def measure(size: Size) -> None:
    async with crowd(size) as swarm:
        start = await swarm.rest()
        calls = await swarm.calls()
        show(figure("scale_cold_start_s", [start["cpu_s"]], "s CPU", wall_s=round(start["led_s"], 1), writes=writes(calls).total()))
        show(figure("scale_rss_mib", [start["rss_mib"]], "MiB", nodes=size.nodes, tasks=size.tasks))
        idle = await swarm.seconds_at_rest(IDLE_S)
        show(figure("scale_idle_cpu_percent", [100 * idle.cpu_s / idle.wall_s], "% of a core", writes=idle.writes.total()))
        await changes(swarm, size)


async def changes(swarm: Crowd, size: Size) -> None:
    """A task whose health turns, and a Service scaled up and down again, on as many nodes as there are changes."""
    count = min(CHANGES, size.nodes)
    async with swarm.spending() as turned:
        await swarm.flip(count)
    async with swarm.spending() as up:
        await swarm.scale(count, size.replicas + 1)
    async with swarm.spending() as down:
        await swarm.scale(count, size.replicas)
    for what, spent in (("health", turned), ("scale up", up), ("scale down", down)):
        per_change = round(spent.writes.total() / count, 2)
        show(figure("scale_cpu_ms_per_change", [1000 * spent.cpu_s / count], "ms CPU", change=what, writes=per_change, of=count))


def main() -> None:
    asyncio.run(measure(SIZE))


if __name__ == "__main__":
    main()
