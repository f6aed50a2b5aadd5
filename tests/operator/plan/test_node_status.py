"""Node.status, its conditions, and how a Node object goes."""

from __future__ import annotations

import json
import shlex
from datetime import datetime, timedelta
from typing import Any

import pytest
from moorage_agent.protocol import Feature, Listener
from moorage_operator.api import Node, NodeStatus, find
from moorage_operator.plan.fleet_view_load import Amount, Load, load_of
from moorage_operator.plan.fleet_view_node import allocatable
from moorage_operator.plan.loss import Losses, losses
from moorage_operator.plan.node import node_status
from moorage_operator.plan.node_condition import Agent
from moorage_operator.plan.node_removal import Removal, RemovalStep, node_removal

from tests.operator.plan.fleets import NOON, holding
from tests.operator.plan.objects import GIB, Link, facts, node, ready

AGENT = Agent("f" * 64)
LEADING = NOON - timedelta(hours=1)


def status_of(
    one: Node,
    link: Link | None,
    *,
    load: Load | None = None,
    now: datetime = NOON,
    leading: datetime = LEADING,
    mass: str = "",
    removal: RemovalStep | None = None,
) -> NodeStatus:
    seen = losses([one], {} if link is None else {one.metadata.uid: link}, leading_since=leading, now=now)
    seen = Losses(seen.known, seen.silent, seen.given_up, mass)
    status = node_status(one, link, load or Load(), seen, agent=AGENT, removal=removal, leading_since=leading, now=now)
    assert status is not None
    return status


def truth(status: NodeStatus, kind: str) -> str:
    found = find(status.conditions, kind)
    assert found is not None
    return f"{found.status} {found.reason}"


def message(status: NodeStatus, kind: str = "Ready") -> str:
    found = find(status.conditions, kind)
    assert found is not None
    return found.message


def up(**changes: Any) -> Link:
    return Link(last_frame_at=NOON.timestamp(), facts=facts(**changes))


def down(reason: str, text: str = "", *, ago: float = 60, **more: Any) -> Link:
    return Link(connected=False, reason=reason, message=text, last_frame_at=NOON.timestamp() - ago, facts=facts(), **more)


def test_a_connected_node_is_ready_and_shows_what_it_is() -> None:
    load = load_of({"a": holding("a", cpu="1500m", memory="2Gi")})
    status = status_of(node(), up(), load=load)
    assert [truth(status, kind) for kind in ("Ready", "Connected", "AgentCurrent", "Stalled")] == [
        "True Ready",
        "True Connected",
        "True Current",
        "False Ready",
    ]
    assert (status.state, status.host_id, status.hostname, status.architecture, status.cgroup) == ("Ready", "h", "alpha", "amd64", "v2")
    assert (status.agent_version, status.tasks) == ("f" * 12, 1)
    assert status.cpu == "1500m/3800m"
    assert status.memory == "2Gi/7782Mi"


def test_the_same_facts_twice_are_no_news() -> None:
    one, link = node(), up()
    again = Node.parse({**one.wire(), "status": status_of(one, link).wire()})
    later = Link(last_frame_at=NOON.timestamp() + 60, facts=facts())
    found = losses([again], {again.metadata.uid: later}, leading_since=LEADING, now=NOON + timedelta(seconds=60))
    assert node_status(again, link, Load(), found, agent=AGENT, leading_since=LEADING, now=NOON) is None


def test_an_operator_that_stood_still_denies_no_node_before_it_could_hear_it_again() -> None:
    one = Node.parse({**node().wire(), "status": status_of(node(), up()).wire()})
    since = NOON + timedelta(seconds=120)
    for reason, denied in (("Unreachable", "Unknown"), ("NameUnresolved", "False"), ("OperatorExhausted", "False")):
        for waited, expected in ((20, "True Ready"), (31, f"{denied} {reason}")):
            status = status_of(one, down(reason, ago=0), now=since + timedelta(seconds=waited), leading=since)
            assert truth(status, "Ready") == expected


SSH = {"host": "192.0.2.1", "keySecretRef": {"name": "key"}, "hostKeys": ["ssh-ed25519 AAAA"]}


@pytest.mark.parametrize(
    ("capacity", "reserved", "expected"),
    [
        (Amount(4000, 16 * GIB), {}, Amount(3800, 16 * GIB - 16 * GIB // 20)),
        (Amount(1000, GIB), {}, Amount(950, GIB - GIB // 4)),
        (Amount(4000, 16 * GIB), {"cpu": "1", "memory": "1Gi"}, Amount(3000, 15 * GIB)),
        (Amount(4000, 16 * GIB), {"memory": "0"}, Amount(3800, 16 * GIB)),
        (Amount(1000, GIB // 8), {}, Amount(950, 0)),
    ],
)
def test_allocatable_leaves_five_percent_and_at_least_256mi(capacity: Amount, reserved: dict[str, str], expected: Amount) -> None:
    assert allocatable(node(reserved=reserved), capacity) == expected


@pytest.mark.parametrize(
    ("link", "expected", "stalled"),
    [
        (down("Unreachable", "no answer from 192.0.2.1:22 in time"), "Unknown Unreachable", False),
        (down("Silent"), "Unknown Silent", False),
        (None, "Unknown Connecting", False),
        (down("ConnectionRefused", "the connection was refused; is sshd running there?"), "False ConnectionRefused", False),
        (down("AuthenticationFailed", "refused the key"), "False AuthenticationFailed", True),
        (down("OwnedByAnotherSwarm", "belongs to swarm x; set spec.adopt"), "False OwnedByAnotherSwarm", True),
        (down("DuplicateHost", "already is the Node y"), "False DuplicateHost", True),
        (down("PythonMissing", "no python3"), "False PythonMissing", True),
        (down("LoginTooSlow", "answers, but did not let us in"), "False LoginTooSlow", False),
        (down("NameUnresolved", "the name n1 does not resolve"), "False NameUnresolved", False),
        (down("OperatorExhausted", "too many open files"), "False OperatorExhausted", False),
        (Link(reason="Unreadable", message="Task a cannot be read"), "False Unreadable", False),
    ],
)
def test_each_state_of_the_link_has_its_reason(link: Link | None, expected: str, stalled: bool) -> None:
    status = status_of(node(status=ready()), link)
    assert truth(status, "Ready") == expected
    assert truth(status, "Stalled").startswith("True" if stalled else "False")
    if link is not None and link.message:
        assert message(status) == link.message


def test_silence_is_told_without_a_number_that_grows() -> None:
    texts = {
        message(status_of(node(status=ready()), down("Silent", f"{ago} s", ago=60), now=NOON + timedelta(seconds=ago))) for ago in (0, 9)
    }
    assert texts == {"nothing heard from the agent since 2026-03-01 11:59:00 UTC"}


@pytest.mark.parametrize("reason", ["Unreachable", "ConnectionRefused", "NameUnresolved", "OperatorExhausted"])
def test_a_link_just_broken_does_not_make_the_node_unready(reason: str) -> None:
    one = node(status=ready())
    assert truth(status_of(one, down(reason, ago=10)), "Ready") == "True Ready"
    assert truth(status_of(one, down(reason, ago=10)), "Connected") == f"False {reason}"
    assert truth(status_of(one, down(reason, ago=16)), "Ready") != "True Ready"


def test_a_changed_host_key_makes_the_node_unready_at_once() -> None:
    assert truth(status_of(node(status=ready()), down("HostKeyMismatch", ago=1)), "Ready") == "False HostKeyMismatch"


def test_a_process_that_has_just_begun_leaves_what_is_said_of_nodes_it_did_not_reach_yet() -> None:
    link = Link(connected=False, reason="Connecting", message="connecting")
    assert truth(status_of(node(status=ready()), link, leading=NOON - timedelta(seconds=29)), "Ready") == "True Ready"
    assert truth(status_of(node(status=ready()), link, leading=NOON - timedelta(seconds=30)), "Ready") == "Unknown Connecting"


def test_a_mass_disconnect_is_shown_on_each_silent_node() -> None:
    status = status_of(node(status=ready()), down("Unreachable", "no answer"), mass="4 of 9 nodes fell silent")
    assert truth(status, "Ready") == "Unknown MassDisconnect"
    assert truth(status, "Connected") == "False Unreachable"


def test_a_changed_host_key_shows_the_command_that_accepts_it() -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZ="
    status = status_of(node(status=ready()), down("HostKeyMismatch", "showed host key SHA256:x", host_key_seen=key))
    command = shlex.split(message(status).split("accept it: ")[1])
    assert command[:5] == ["kubectl", "patch", "swarmnode", "n1", "--type=merge"]
    assert json.loads(command[6]) == {"spec": {"ssh": {"hostKeys": [key]}}}


def test_a_changed_key_of_the_jump_host_is_accepted_as_the_jump_hosts() -> None:
    link = down("JumpHostKeyMismatch", "the jump host 192.0.2.9 showed host key SHA256:x", host_key_seen="ssh-ed25519 AAAAC3Nz")
    jump = {"jump": {"host": "192.0.2.9", "hostKeys": ["ssh-ed25519 AAAA"]}}
    status = status_of(node(status=ready(), ssh=SSH | jump), link)
    assert json.loads(shlex.split(message(status).split("accept it: ")[1])[6]) == {
        "spec": {"ssh": {"jump": {"hostKeys": ["ssh-ed25519 AAAAC3Nz"]}}}
    }
    assert truth(status, "Stalled").startswith("True")
    status = status_of(node(status=ready(), ssh=SSH | {"jump": {"nodeRef": {"name": "gate"}}}), link)
    assert "kubectl" not in message(status)
    assert message(status).endswith("correct spec.ssh.hostKeys of Node gate")


@pytest.mark.parametrize("key", ["", "ssh-ed25519 AAAA'; rm -rf /; '", "ssh-ed25519 AAAA\nBBBB", "ssh-rsa $(id)"])
def test_a_host_cannot_put_words_into_that_command(key: str) -> None:
    status = status_of(node(), down("HostKeyMismatch", "showed another key", host_key_seen=key))
    assert "kubectl" not in message(status)
    assert "correct spec.ssh.hostKeys" in message(status)


def test_a_host_without_overlayfs_is_not_ready_and_says_why() -> None:
    status = status_of(node(), up(features=(Feature("overlay", False, "load the module"), Feature("apparmor", False, "none"))))
    assert truth(status, "Ready") == "False FeatureMissing"
    assert message(status) == "the host lacks what every container needs: overlay: load the module"


def test_an_agent_of_another_version_is_ready_but_not_current() -> None:
    status = status_of(node(), up(agent_version="e" * 64))
    assert (truth(status, "Ready"), truth(status, "AgentCurrent")) == ("True Ready", "False OtherVersion")
    failed = Link(last_frame_at=NOON.timestamp(), facts=facts(agent_version="e" * 64), upgrade_failed="exit 1")
    assert truth(status_of(node(), failed), "AgentCurrent") == "False UpgradeFailed"


def test_what_was_known_of_a_host_stays_while_it_is_away() -> None:
    one = Node.parse({**node().wire(), "status": status_of(node(), up()).wire()})
    away = Link(connected=False, reason="Unreachable", message="no answer")
    status = status_of(one, away)
    assert (status.hostname, status.cpu, status.state) == ("alpha", "0/3800m", "Unknown")


def test_lists_are_bounded_and_ordered() -> None:
    status = status_of(node(), up(listeners=tuple(Listener(port, "TCP", "x") for port in range(600, 0, -1))))
    assert [one.port for one in status.listeners] == list(range(1, 257))


def test_an_out_of_service_node_says_how_to_take_it_back() -> None:
    assert "unset it once the host is back" in message(status_of(node(outOfService=True), up()))


# --- removal


@pytest.mark.parametrize(
    ("spec", "link", "tasks", "uninstalled", "expected"),
    [
        ({}, up(), 2, False, Removal.DRAIN),
        ({}, up(), 0, False, Removal.UNINSTALL),
        ({}, up(), 0, True, Removal.RELEASE),
        ({}, down("Unreachable", "no answer"), 0, False, Removal.WAIT),
        ({}, None, 0, False, Removal.WAIT),
        ({"outOfService": True}, None, 3, False, Removal.WAIT),
        ({"outOfService": True}, None, 0, False, Removal.RELEASE),
        ({"deletionPolicy": "Retain"}, up(), 3, False, Removal.RELEASE),
        ({}, Link(connected=False, reason="DuplicateHost"), 0, False, Removal.RELEASE),
    ],
)
def test_a_node_drains_then_uninstalls_then_goes(
    spec: dict[str, Any], link: Link | None, tasks: int, uninstalled: bool, expected: Removal
) -> None:
    step = node_removal(node(status=ready(), deleted=NOON, **spec), link, tasks=tasks, uninstalled=uninstalled)
    assert step is not None
    assert step.removal is expected


def test_a_host_that_was_never_reached_holds_nothing_up() -> None:
    step = node_removal(node(deleted=NOON), Link(connected=False, reason="Unreachable"), tasks=0)
    assert step is not None
    assert step.removal is Removal.RELEASE


def test_a_wait_says_what_would_end_it() -> None:
    step = node_removal(node(status=ready(), deleted=NOON), down("Unreachable", "no answer"), tasks=1)
    assert step is not None
    assert step.message == "cannot uninstall the agent: no answer; if the host is gone for good, set spec.outOfService on Node n1"


def test_a_node_on_its_way_out_says_what_it_waits_for() -> None:
    leaving = node(status=ready(), deleted=NOON)
    step = node_removal(leaving, up(), tasks=1)
    said = find(status_of(leaving, up(), removal=step).conditions, "Removing")
    assert said is not None
    assert (said.status, said.reason) == ("True", "Drain")
    assert said.message.startswith("waits for 1 task to leave")
    assert find(status_of(node(status=ready()), up()).conditions, "Removing") is None


def test_a_node_that_nobody_deletes_stays() -> None:
    assert node_removal(node(), up(), tasks=0) is None
