"""Loss of nodes: what counts, from when, and what must not."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from moorage_operator.api import Node
from moorage_operator.errors import InvalidSpec
from moorage_operator.plan.loss import REPRIEVE, Fate, Losses, Verdict, losses, verdict
from moorage_operator.plan.loss_rule import LossRule, check_disconnect, loss_rule

from tests.operator.plan.fleets import NOON
from tests.operator.plan.objects import Link, node, ready, service

REPLACE = LossRule()
LEADING = NOON - timedelta(hours=1)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def link(reason: str = "", *, heard: float | None = 0) -> Link:
    """`heard`: seconds from noon of the last frame."""
    return Link(connected=not reason, reason=reason, last_frame_at=None if heard is None else at(heard).timestamp())


def look(nodes: list[Node], links: dict[str, Link], *, now: float, leading: datetime = LEADING, before: Losses | None = None) -> Losses:
    return losses(nodes, {f"uid-{name}": one for name, one in links.items()}, leading_since=leading, now=at(now), before=before)


@pytest.mark.parametrize(
    ("now", "fate"), [(0, Fate.STAYS), (15, Fate.STAYS), (16, Fate.WAITS), (29.9, Fate.WAITS), (30, Fate.LOST), (3600, Fate.LOST)]
)
def test_a_silent_node_is_lost_thirty_seconds_after_its_last_frame(now: float, fate: Fate) -> None:
    found = look([node(status=ready())], {"n1": link("Unreachable")}, now=now)
    assert verdict("n1", REPLACE, found, now=at(now)).fate is fate


def test_nothing_is_lost_before_a_mass_could_be_told_from_one_host() -> None:
    rule = LossRule(after=timedelta(seconds=16))
    found = look([node(status=ready())], {"n1": link("Silent")}, now=17)
    assert verdict("n1", rule, found, now=at(17)).at == at(20)
    assert verdict("n1", rule, found, now=at(20)).fate is Fate.LOST


def test_while_it_waits_the_verdict_says_until_when() -> None:
    found = look([node(status=ready())], {"n1": link("Silent")}, now=20)
    one = verdict("n1", REPLACE, found, now=at(20))
    assert one.at == at(30)
    assert one.message == "node n1 is silent since 12:00:00 UTC; replaced at 12:00:30 UTC if it stays so"


@pytest.mark.parametrize(
    "reason",
    [
        "ConnectionRefused",
        "LoginTooSlow",
        "NameUnresolved",
        "OperatorExhausted",
        "AuthenticationFailed",
        "HostKeyMismatch",
        "JumpHostKeyMismatch",
        "OwnedByAnotherSwarm",
        "DuplicateHost",
        "PythonTooOld",
        "Error",
    ],
)
def test_a_host_that_answers_or_that_we_cannot_ask_is_not_lost_however_long_that_is_so(reason: str) -> None:
    found = look([node(status=ready("False", reason=reason))], {"n1": link(reason)}, now=86_400)
    assert verdict("n1", REPLACE, found, now=at(86_400)).fate is Fate.STAYS


def test_one_unanswered_try_after_a_time_of_refusals_is_no_loss_yet() -> None:
    fell_silent = ready("Unknown", reason="Unreachable", since=at(600))
    found = look([node(status=fell_silent)], {"n1": link("Unreachable")}, now=601)
    assert verdict("n1", REPLACE, found, now=at(601)).at == at(615)


def test_keep_waits_for_ever_and_says_what_would_release_it() -> None:
    found = look([node(status=ready())], {"n1": link("Unreachable")}, now=86_400)
    one = verdict("n1", LossRule(keep=True, why="its volume data is there"), found, now=at(86_400))
    assert (one.fate, one.at) == (Fate.WAITS, None)
    assert one.message.endswith("waits for it, its volume data is there; if it is gone for good, set spec.outOfService on Node n1")


def test_out_of_service_releases_at_once_whatever_the_rule() -> None:
    found = look([node(status=ready(), outOfService=True)], {"n1": link()}, now=0)
    assert verdict("n1", LossRule(keep=True), found, now=at(0)).fate is Fate.LOST


def test_a_node_whose_object_is_gone_is_lost() -> None:
    assert verdict("n1", REPLACE, look([], {}, now=0), now=at(0)) == Verdict(Fate.LOST, "node n1 no longer exists")


def test_what_keeps_its_node_waits_for_a_deleted_one_because_it_may_still_run_there() -> None:
    one = verdict("n1", LossRule(keep=True, why="its volume data is there"), look([], {}, now=0), now=at(0))
    assert one.fate is Fate.WAITS
    assert "bring the Node back, or delete the Task" in one.message


def test_a_node_that_speaks_again_is_no_longer_silent() -> None:
    found = look([node(status=ready("Unknown", since=at(15)))], {"n1": link(heard=59)}, now=60)
    assert verdict("n1", REPLACE, found, now=at(60)).fate is Fate.STAYS


def test_after_a_restart_of_the_operator_nodes_get_a_grace_period() -> None:
    nodes = [node(status=ready())]
    links = {"n1": link("Unreachable", heard=None)}
    assert verdict("n1", REPLACE, look(nodes, links, now=29, leading=NOON), now=at(29)).fate is Fate.STAYS
    assert verdict("n1", REPLACE, look(nodes, links, now=59, leading=NOON), now=at(59)).at == at(60)
    assert verdict("n1", REPLACE, look(nodes, links, now=60, leading=NOON), now=at(60)).fate is Fate.LOST


def test_a_node_whose_turn_to_be_dialled_has_not_come_is_not_silent() -> None:
    found = look([node(status=ready())], {"n1": link("Connecting", heard=None)}, now=90, leading=NOON)
    assert verdict("n1", REPLACE, found, now=at(90)).fate is Fate.STAYS


def swarm(count: int) -> list[Node]:
    return [node(f"n{index}", status=ready()) for index in range(count)]


@pytest.mark.parametrize(
    ("count", "silent", "mass"),
    [(10, 3, False), (10, 4, True), (9, 3, True), (3, 3, True), (3, 2, False), (2, 2, False), (1000, 300, False), (1000, 301, True)],
)
def test_more_than_thirty_percent_and_at_least_three_nodes_are_a_mass(count: int, silent: int, mass: bool) -> None:
    links = {f"n{index}": link("Unreachable") if index < silent else link(heard=40) for index in range(count)}
    found = look(swarm(count), links, now=45)
    assert bool(found.mass) is mass
    assert verdict("n0", REPLACE, found, now=at(45)).fate is (Fate.WAITS if mass else Fate.LOST)


def test_a_mass_is_seen_before_the_first_of_it_can_be_replaced() -> None:
    """All cut off at the same moment: the last frame of one may be 5 s younger than that of another."""
    found = look(
        swarm(5), {"n0": link(heard=0), "n1": link(heard=4.9), "n2": link(heard=4.9), "n3": link(heard=15), "n4": link(heard=15)}, now=16
    )
    assert set(found.silent) == {"n0"}
    assert verdict("n0", LossRule(after=timedelta(seconds=16)), found, now=at(16)).fate is Fate.WAITS
    assert found.mass.startswith("3 of 5 nodes")


def test_a_mass_that_comes_back_one_by_one_loses_nobody_on_the_way() -> None:
    mass = look(swarm(5), {f"n{index}": link("Unreachable") if index < 3 else link(heard=40) for index in range(5)}, now=45)
    assert mass.mass
    healing = {f"n{index}": link("Unreachable") if index < 1 else link(heard=50) for index in range(5)}
    found = look(swarm(5), healing, now=52, before=mass)
    assert not found.mass
    one = verdict("n0", REPLACE, found, now=at(52))
    assert (one.fate, one.at) == (Fate.WAITS, at(45) + REPRIEVE)
    late = look(swarm(5), healing | {f"n{index}": link(heard=118) for index in range(1, 5)}, now=121, before=found)
    assert verdict("n0", REPLACE, late, now=at(121)).fate is Fate.LOST, "it is waited for, but not for ever"


def test_nodes_that_fall_one_by_one_are_no_mass() -> None:
    links = {f"n{index}": link("Unreachable", heard=index * 31) if index < 4 else link(heard=195) for index in range(8)}
    assert not look(swarm(8), links, now=200).mass


def test_a_mass_ends_when_enough_nodes_are_declared_gone() -> None:
    nodes = [node(f"n{index}", status=ready(), outOfService=index < 2) for index in range(9)]
    links = {f"n{index}": link("Unreachable") if index < 4 else link(heard=40) for index in range(9)}
    assert not look(nodes, links, now=45).mass


def test_nodes_that_were_never_reached_say_nothing_about_our_network() -> None:
    nodes = [*swarm(7), *(node(f"new{index}") for index in range(5))]
    links = {f"n{index}": link("Unreachable") if index == 0 else link(heard=40) for index in range(7)}
    found = look(nodes, links, now=45)
    assert not found.mass
    assert verdict("n0", REPLACE, found, now=at(45)).fate is Fate.LOST


def test_after_a_restart_nodes_that_fell_long_ago_at_different_times_are_no_mass() -> None:
    gone = [node(f"old{index}", status=ready("Unknown", since=NOON - timedelta(days=index + 1))) for index in range(4)]
    links = {f"n{index}": link(heard=95) for index in range(6)} | {f"old{index}": link("Unreachable", heard=None) for index in range(4)}
    assert not look([*swarm(6), *gone], links, now=100, leading=NOON).mass


def test_a_process_that_has_just_begun_sees_no_mass_in_nodes_it_did_not_reach_yet() -> None:
    assert not look(swarm(9), {}, now=90, leading=NOON).silent
    tried = {f"n{index}": link("Unreachable", heard=None) for index in range(9)}
    assert not look(swarm(9), tried, now=20, leading=NOON).mass
    assert look(swarm(9), tried, now=30, leading=NOON).mass


# --- rules


def test_mounting_a_volume_means_keep_unless_said_otherwise() -> None:
    task = {"image": "app:1", "mounts": [{"target": "/data", "volume": {"name": "data"}}]}
    assert loss_rule(service(task=task).spec) == LossRule(keep=True, why="its volume data is there")
    assert not loss_rule(service(task=task, unreachable={"policy": "Replace"}).spec).keep
    assert not loss_rule(service().spec).keep
    assert loss_rule(service(unreachable={"policy": "Keep", "after": "2m"}).spec).after == timedelta(minutes=2)


@pytest.mark.parametrize(
    ("spec", "refused"),
    [
        ({}, False),
        ({"onDisconnect": {"stopAfter": "30s"}}, True),
        ({"onDisconnect": {"stopAfter": "30s"}, "unreachable": {"after": "55s"}}, True),
        ({"onDisconnect": {"stopAfter": "30s"}, "unreachable": {"after": "56s"}}, False),
        ({"onDisconnect": {"stopAfter": "30s"}, "unreachable": {"policy": "Keep"}}, False),
        ({"onDisconnect": {"stopAfter": "29s"}, "unreachable": {"policy": "Keep"}}, True),
        ({"onDisconnect": {"stopAfter": "30s"}, "unreachable": {"after": "2m"}, "task": {"image": "a", "stopGracePeriod": "75s"}}, True),
    ],
)
def test_settings_that_could_let_two_copies_run_are_refused(spec: dict[str, object], refused: bool) -> None:
    if refused:
        with pytest.raises(InvalidSpec, match="stopAfter"):
            check_disconnect(service(**spec).spec)
    else:
        check_disconnect(service(**spec).spec)


def test_the_refusal_says_what_to_write() -> None:
    with pytest.raises(InvalidSpec, match=r"write unreachable\.after: 56s or more"):
        check_disconnect(service(onDisconnect={"stopAfter": "30s"}).spec)
