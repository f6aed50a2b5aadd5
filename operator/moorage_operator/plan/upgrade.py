"""Which nodes get the operator's agent next: one first, then a tenth at a time, none after a failure. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

SETTLE: Final = timedelta(seconds=10)
"""A new agent that still serves after this time has proved itself."""

GIVE_UP: Final = timedelta(minutes=2)
"""A node that did not come back by then is the business of its own conditions: the wave goes on without it."""


@dataclass(frozen=True, slots=True)
class AgentView:
    """The agent of one node. `release` is "1.2.3"; `failed`: why the operator's version did not start there, or ""."""

    node: str
    uid: str
    connected: bool
    version: str
    release: str = ""
    failed: str = ""


@dataclass(frozen=True, slots=True)
class UpgradePlan:
    """`upgrade` are uids of nodes to upgrade now; `stopped` says why nothing more is, for people."""

    upgrade: tuple[str, ...] = ()
    stopped: str = ""

    def describe(self) -> str:
        return self.stopped or f"upgrade the agents of {len(self.upgrade)} nodes"


def plan_upgrades(
    agents: Iterable[AgentView], asked: Mapping[str, datetime], *, version: str, release: str, percent: int, now: datetime
) -> UpgradePlan:
    """`asked`: when nodes were told to upgrade to `version`, by uid. An agent of a newer release is never taken back."""
    agents = sorted(agents, key=lambda agent: agent.node)
    failed = next((agent for agent in agents if agent.failed), None)
    if failed is not None:
        return UpgradePlan(stopped=f"the upgrade of agents stopped at node {failed.node}: {failed.failed}")
    if any(_under_way(agent, asked, version, now) for agent in agents):
        return UpgradePlan()
    due = [agent for agent in agents if _due(agent, version, release) and agent.uid not in asked]
    size = max(1, len(agents) * percent // 100) if asked else 1
    return UpgradePlan(tuple(agent.uid for agent in due[:size]))


def newer(release: str, than: str) -> bool:
    """Whether a release is newer than another; one that cannot be read is not."""
    return _numbers(release) > _numbers(than)


def _due(agent: AgentView, version: str, release: str) -> bool:
    return agent.connected and agent.version != version and not newer(agent.release, release)


def _under_way(agent: AgentView, asked: Mapping[str, datetime], version: str, now: datetime) -> bool:
    since = asked.get(agent.uid)
    if since is None or now - since > GIVE_UP:
        return False
    return now - since < SETTLE or not (agent.connected and agent.version == version)


def _numbers(release: str) -> tuple[int, ...]:
    parts = release.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()
