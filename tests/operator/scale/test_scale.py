"""The operator beside a thousand nodes. Bounds of CPU are two to three times what was measured on a loaded machine; counts are exact."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.operator.scale.crowd import Crowd, Spent, crowd, writes
from tests.operator.scale.population import Size

pytestmark = [pytest.mark.scale, pytest.mark.timeout(900)]

SMALL = Size(nodes=100, services=100, replicas=20)
LARGE = Size(nodes=1000, services=1000, replicas=20)
CHANGES = 50


async def test_a_thousand_nodes_cost_little_at_a_start_at_rest_and_per_change() -> None:
    """One swarm for all of it: making it takes longer than looking at it."""
    async with crowd(SMALL) as swarm:
        await swarm.rest()
        await nothing_is_written_at_rest(swarm)
        few = await changes(swarm)
    async with crowd(LARGE) as swarm:
        start = await swarm.rest(within_s=600)
        assert written(await swarm.calls()) == 0, "what was true before a start of the operator is still true: nothing is written"
        assert start["cpu_s"] < 60
        assert start["rss_mib"] < 800
        await nothing_is_written_at_rest(swarm)
        many = await changes(swarm)
    for what, spent in many.items():
        assert spent.cpu_s < 3 * few[what].cpu_s, f"{what}: ten times the tasks must not make a change three times dearer"


async def nothing_is_written_at_rest(swarm: Crowd) -> None:
    idle = await swarm.seconds_at_rest(15)
    assert idle.writes.total() == 0
    assert idle.calls["patch leases"] > 0
    assert idle.cpu_s / idle.wall_s < 0.12


async def changes(swarm: Crowd) -> dict[str, Spent]:
    """A task whose health turns, a Service scaled up by one, and down again; each on its own nodes and Services."""
    replicas = swarm.size.replicas
    async with swarm.spending() as turned:
        await swarm.flip(CHANGES)
    async with swarm.spending() as up:
        await swarm.scale(CHANGES, replicas + 1)
    async with swarm.spending() as down:
        await swarm.scale(CHANGES, replicas)
    assert turned.writes["patch swarmtasks/status"] == CHANGES
    assert turned.writes.total() <= 2.2 * CHANGES
    assert (up.writes["create swarmtasks"], up.writes["patch swarmtasks/status"]) == (CHANGES, CHANGES)
    assert up.writes.total() <= 8 * CHANGES  # also the Service twice, its Image and its Node once, and our own change of the Service
    assert (down.writes["delete swarmtasks"], down.writes["patch swarmtasks"]) == (CHANGES, CHANGES)
    assert down.writes.total() <= 7 * CHANGES
    assert all(spent.looks.total() <= 12 * CHANGES for spent in (turned, up, down))
    return {"health": turned, "scale up": up, "scale down": down}


def written(calls: Counter[str]) -> int:
    """But for the Lease, and the swarm's identity at its very first start."""
    return writes(calls).total() - calls["create secrets"]
