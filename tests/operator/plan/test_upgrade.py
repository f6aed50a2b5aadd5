from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from moorage_agent.protocol import RELEASE
from moorage_operator.plan.upgrade import GIVE_UP, SETTLE, AgentView, newer, plan_upgrades

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def fleet(count: int, **changes: AgentView) -> list[AgentView]:
    agents = {
        f"n{number:02}": AgentView(f"n{number:02}", f"n{number:02}", connected=True, version="old", release="0.1.0")
        for number in range(count)
    }
    return list((agents | changes).values())


def current(name: str) -> AgentView:
    return AgentView(name, name, connected=True, version="new", release="0.1.0")


def plan(agents: list[AgentView], asked: dict[str, datetime], now: datetime = NOON) -> tuple[str, ...]:
    return plan_upgrades(agents, asked, version="new", release="0.1.0", percent=10, now=now).upgrade


def test_one_node_goes_first() -> None:
    assert plan(fleet(30), {}) == ("n00",)


def test_nothing_more_happens_until_it_has_served_for_a_while() -> None:
    asked = {"n00": NOON}
    assert plan(fleet(30), asked) == ()
    assert plan(fleet(30, n00=current("n00")), asked, NOON + SETTLE / 2) == ()
    assert plan(fleet(30, n00=current("n00")), asked, NOON + SETTLE) == ("n01", "n02", "n03")


def test_a_failure_anywhere_stops_the_rest_and_says_why() -> None:
    broken = AgentView("n00", "n00", connected=True, version="old", failed="SyntaxError")
    stopped = plan_upgrades(fleet(5, n00=broken), {"n00": NOON}, version="new", release="0.1.0", percent=10, now=NOON + GIVE_UP * 2)
    assert stopped.upgrade == ()
    assert "n00: SyntaxError" in stopped.stopped


def test_a_node_that_went_away_meanwhile_does_not_hold_the_others_for_ever() -> None:
    gone = AgentView("n00", "n00", connected=False, version="old")
    assert plan(fleet(3, n00=gone), {"n00": NOON}, NOON + GIVE_UP / 2) == ()
    assert plan(fleet(3, n00=gone), {"n00": NOON}, NOON + GIVE_UP + timedelta(seconds=1)) == ("n01",)


def test_a_newer_agent_is_never_taken_back() -> None:
    assert plan([AgentView("n", "n", connected=True, version="other", release="0.2.0")], {}) == ()
    assert plan([AgentView("n", "n", connected=True, version="other", release="0.0.9")], {}) == ("n",)


def test_all_are_current_in_the_end() -> None:
    agents, asked, now = {agent.uid: agent for agent in fleet(25)}, dict[str, datetime](), NOON
    waves = 0
    while any(agent.version == "old" for agent in agents.values()):
        wave = plan(list(agents.values()), asked, now)
        for uid in wave:
            asked[uid], agents[uid] = now, current(uid)
        waves += bool(wave)
        now += SETTLE
    assert waves == 1 + 12
    assert plan(list(agents.values()), asked, now) == ()


@pytest.mark.parametrize(
    ("release", "than", "is_newer"), [("0.2.0", "0.1.9", True), ("0.10.0", "0.9.0", True), ("0.1.0", "0.1.0", False), ("", "0.1.0", False)]
)
def test_releases_are_ordered_by_their_numbers(release: str, than: str, is_newer: bool) -> None:
    assert newer(release, than) is is_newer


def test_the_agents_release_is_the_projects() -> None:
    from importlib.metadata import version

    assert version("moorage") == RELEASE
