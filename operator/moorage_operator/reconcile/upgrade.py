"""Brings the fleet's agents to the version this operator ships, wave by wave. Endless; for a Supervisor."""

from __future__ import annotations

import logging
from datetime import datetime

from moorage_agent.protocol import RELEASE

from moorage_operator.fleet.link import Link
from moorage_operator.kube.resource import NODES
from moorage_operator.plan.upgrade import AgentView, plan_upgrades
from moorage_operator.reconcile.world import World, key_of_model

log = logging.getLogger(__name__)

LOOK_S = 2.0


async def upgrade_agents(world: World) -> None:
    asked: dict[str, datetime] = {}
    while True:
        await world.clock.sleep(LOOK_S)
        if not _all_current(world):
            _next_wave(world, asked)


def _all_current(world: World) -> bool:
    current = world.fleet.archive.sha256
    return all(link.facts is None or (link.facts.agent_version == current and not link.upgrade_failed) for _, link in world.fleet)


def _next_wave(world: World, asked: dict[str, datetime]) -> None:
    plan = plan_upgrades(
        [view for uid, link in world.fleet if (view := _view(world, uid, link)) is not None],
        asked,
        version=world.fleet.archive.sha256,
        release=RELEASE,
        percent=world.settings.upgrade_wave_percent,
        now=world.now(),
    )
    for uid in plan.upgrade:
        asked[uid] = world.now()
        world.fleet.session(uid).upgrade()
    if plan.upgrade:
        log.info("agents are upgraded", extra={"nodes": len(plan.upgrade), "version": world.fleet.archive.sha256})
    if plan.stopped:
        _tell(world, plan.stopped)


def _view(world: World, uid: str, link: Link) -> AgentView | None:
    node = world.nodes.by_uid(uid)
    if node is None or link.facts is None:
        return None
    return AgentView(node.metadata.name, uid, link.connected, link.facts.agent_version, link.facts.agent_release, link.upgrade_failed)


def _tell(world: World, why: str) -> None:
    """An Event on each node that waits for a better version; the recorder says it once."""
    for uid, link in world.fleet:
        node = world.nodes.by_uid(uid)
        raw = None if node is None else world.raw(NODES, key_of_model(node))
        if raw is not None and link.facts is not None and link.facts.agent_version != world.fleet.archive.sha256:
            world.events.record(raw, "UpgradeStopped", why, warning=True)
