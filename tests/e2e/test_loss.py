"""Hosts out of reach: what is replaced, what waits, what comes back, and that nothing runs twice.

The waits are long (silence counts after 15 s, a loss after 30 s), so several things befall several hosts at once, each a pair of its own:
a Service's two tasks run on the host that something befalls, and on the spare one. The tests judge what was seen.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.conftest import image_manifest, swarm_on
from tests.e2e.containers import Containers, containers
from tests.e2e.witness import Witness
from tests.fleet import BareHost, Bridge
from tests.kube import Registry
from tests.swarm import Swarm, service
from tests.swarm.manifests import Manifest

pytestmark = pytest.mark.e2e

SOON = {"after": "16s"}
"""A second after the silence is noticed: most tests ask what happens, not how long a user lets it take."""


class Pair:
    """`host` is what something befalls."""

    def __init__(self, letter: str, swarm: Swarm, host: BareHost, spare: BareHost) -> None:
        self.letter, self.swarm, self.host, self.spare = letter, swarm, host, spare

    def service(self, name: str, **fields: Any) -> Manifest:
        placement = {"constraints": [f"node.labels.pair-{self.letter} == yes"]}
        return service(name, "image/app", "sleep", marker(name), replicas=2, placement=placement, **{"unreachable": SOON, **fields})

    def replaced(self, name: str) -> bool:
        tasks = [task for task in self.swarm.tasks(name) if task.get("status", {}).get("state") == "Running"]
        return [task["spec"]["nodeName"] for task in tasks] == [self.spare.name] * 2


def marker(name: str) -> str:
    """How long a container of the Service sleeps: nobody else's sleeps so long."""
    return str(100_000 + sum(name.encode()))


class Story:
    """What befell, and the containers of each Service on the host it befell: before, at its height, and after."""

    def __init__(self, homes: dict[str, Pair]) -> None:
        self.homes = homes
        self.swarm = next(iter(homes.values())).swarm
        self.before, self.height, self.after = self._containers(), dict[str, Containers](), dict[str, Containers]()
        self.witness = Witness(self.swarm.plane)

    def at_its_height(self, *, not_before_s: float) -> None:
        time.sleep(max(0.0, self.witness.began + not_before_s - time.monotonic()))
        self.height = self._containers()

    def heal(self) -> None:
        """Everything that may be wrong with a host is mended; its tasks are what they are wished to be."""
        for pair in {pair.letter: pair for pair in self.homes.values()}.values():
            mend(pair.host)
        for pair in self.homes.values():
            self.swarm.wait_node(pair.host.name, timeout_s=120)
        self.swarm.eventually("all runs as wished", lambda: all(map(self._settled, self.homes)), timeout_s=90)
        self.after = self._containers()

    def _settled(self, name: str) -> bool:
        pair = self.homes[name]
        wished = [task for task in self.swarm.tasks(name) if task.get("status", {}).get("state") == "Running"]
        here = sum(task["spec"]["nodeName"] == pair.host.name for task in wished)
        return len(wished) == 2 and len(containers(pair.host, f"sleep {marker(name)}")) == here

    def _containers(self) -> dict[str, Containers]:
        return {name: containers(pair.host, f"sleep {marker(name)}") for name, pair in self.homes.items()}


def mend(host: BareHost) -> None:
    host.thaw()
    host.heal()
    if not host.listens():
        host.start_sshd()


@pytest.fixture(scope="module")
def pairs(bridge: Bridge, registry: Registry) -> Iterator[list[Pair]]:
    """Four pairs of five hosts: the spare one is the second of each."""
    with swarm_on(bridge, registry) as swarm:
        letters = "abcd"
        swarm.add_hosts(1, ready=False, labels={f"pair-{letter}": "yes" for letter in letters})
        for letter in letters:
            swarm.add_hosts(1, ready=False, labels={f"pair-{letter}": "yes"})
        for host in swarm.hosts:
            swarm.wait_node(host.name)
        swarm.apply(image_manifest("app", swarm.image("busybox:loss"), "default"))
        spare, *others = swarm.hosts
        yield [Pair(letter, swarm, host, spare) for letter, host in zip(letters, others, strict=True)]


@contextmanager
def running(services: Sequence[tuple[Pair, Manifest]]) -> Iterator[Story]:
    """These Services run, are watched, and go."""
    homes = {manifest["metadata"]["name"]: pair for pair, manifest in services}
    swarm = services[0][0].swarm
    swarm.apply(*(manifest for _, manifest in services))
    for name in homes:
        swarm.wait_running(name, 2)
    story = Story(homes)
    assert {name: len(found) for name, found in story.before.items()} == dict.fromkeys(homes, 1)
    try:
        with story.witness:
            yield story
    finally:
        for pair in homes.values():
            mend(pair.host)
        swarm.kubectl("delete", *(f"ssvc/{name}" for name in homes))
        for name in homes:
            swarm.wait_running(name, 0)


# --- one host is cut off, one is mute, one has no sshd, one hangs on a bad line


@pytest.fixture(scope="module")
def first(pairs: list[Pair]) -> Story:
    cut, mute, refusing, slow = pairs
    volume = {"mounts": [{"target": "/data", "volume": {"name": "data"}}]}
    services = [
        (cut, cut.service("web", unreachable={})),
        (cut, cut.service("db", task=volume)),
        (mute, mute.service("mute")),
        (refusing, refusing.service("refused")),
        (slow, slow.service("slow")),
    ]
    with running(services) as story:
        slow.host.slow(200, loss=0.05)
        refusing.host.stop_sshd()
        mute.host.one_way(mute=True)
        cut.host.cut()
        story.swarm.eventually("web and mute are replaced", lambda: cut.replaced("web") and mute.replaced("mute"), timeout_s=120)
        story.at_its_height(not_before_s=60)
        story.heal()
    return story


def test_a_host_cut_off_is_unknown_and_its_tasks_are_replaced_elsewhere(pairs: list[Pair], first: Story) -> None:
    name = pairs[0].host.name
    said = first.witness.said_of(name)
    assert [said[0], said[-1]] == [("True", "Ready")] * 2
    assert {status for status, _ in said[1:-1]} == {"Unknown"}
    assert first.witness.seconds_until(lambda seen: seen.nodes[name]["status"] == "Unknown") > 9, "15 s after the last frame"
    assert first.witness.seconds_until(lambda seen: len(seen.uids("web")) > 2) > 24, "30 s after the last frame"
    orphan = next(task for task in first.witness.sights[-1].tasks if task["spec"]["service"] == "web" and task["spec"]["nodeName"] == name)
    assert orphan["status"]["state"] == "Orphaned"
    assert "unreachable.after" in orphan["status"]["message"]


def test_a_host_cut_off_goes_on_by_itself_and_stops_what_was_replaced_when_it_is_back(first: Story) -> None:
    assert first.height["web"] == first.before["web"]
    assert not first.after["web"]


def test_no_slot_ever_runs_twice(first: Story, second: Story) -> None:
    assert not first.witness.doubly_running()
    assert not second.witness.doubly_running()


def test_a_task_with_a_named_volume_waits_for_its_host_and_says_what_would_release_it(pairs: list[Pair], first: Story) -> None:
    assert len(first.witness.tasks_of("db")) == 2
    assert first.before["db"] == first.height["db"] == first.after["db"]
    said = {message for message in first.witness.messages_of("db") if "its volume data is there" in message}
    assert said
    assert all(f"set spec.outOfService on Node {pairs[0].host.name}" in message for message in said)


def test_a_mute_host_is_replaced_like_one_cut_off(pairs: list[Pair], first: Story) -> None:
    assert "Unknown" in [status for status, _ in first.witness.said_of(pairs[1].host.name)]
    assert first.height["mute"] == first.before["mute"]
    assert not first.after["mute"]


def test_where_only_sshd_is_gone_nothing_moves(pairs: list[Pair], first: Story) -> None:
    said = first.witness.said_of(pairs[2].host.name)
    assert said == [("True", "Ready"), ("False", "ConnectionRefused"), ("True", "Ready")]
    assert len(first.witness.tasks_of("refused")) == 2
    assert first.before["refused"] == first.height["refused"] == first.after["refused"]


def test_a_slow_line_that_loses_frames_loses_nothing(pairs: list[Pair], first: Story) -> None:
    assert first.witness.said_of(pairs[3].host.name) == [("True", "Ready")]
    assert len(first.witness.tasks_of("slow")) == 2
    assert first.before["slow"] == first.height["slow"] == first.after["slow"]


# --- one host is deaf, one frozen, of one sshd accepts no new connections


@pytest.fixture(scope="module")
def second(pairs: list[Pair], first: Story) -> Story:
    deaf, frozen, closed, _ = pairs
    with running([(deaf, deaf.service("deaf")), (frozen, frozen.service("frozen")), (closed, closed.service("closed"))]) as story:
        closed.host.stop_sshd(sessions=False)
        frozen.host.freeze()
        deaf.host.one_way(mute=False)
        story.swarm.eventually("both are replaced", lambda: deaf.replaced("deaf") and frozen.replaced("frozen"), timeout_s=120)
        story.at_its_height(not_before_s=35)
        story.heal()
    return story


@pytest.mark.parametrize(("number", "name"), [(0, "deaf"), (1, "frozen")])
def test_a_deaf_and_a_frozen_host_are_replaced_like_one_cut_off(pairs: list[Pair], second: Story, number: int, name: str) -> None:
    assert "Unknown" in [status for status, _ in second.witness.said_of(pairs[number].host.name)]
    assert second.height[name] == second.before[name]
    assert not second.after[name]


def test_a_session_outlives_an_sshd_that_takes_no_new_ones(pairs: list[Pair], second: Story) -> None:
    assert second.witness.said_of(pairs[2].host.name) == [("True", "Ready")]
    assert second.before["closed"] == second.height["closed"] == second.after["closed"]


# --- most hosts at once


@pytest.fixture(scope="module")
def third(pairs: list[Pair], second: Story) -> Story:
    with running([(pair, pair.service(f"mass-{pair.letter}")) for pair in pairs[:3]]) as story:
        for pair in pairs[:3]:
            pair.host.cut()
        names = [pair.host.name for pair in pairs[:3]]
        story.swarm.eventually(
            "the Nodes say it", lambda: all(story.swarm.condition("snode", name)["reason"] == "MassDisconnect" for name in names)
        )
        story.at_its_height(not_before_s=40)
        story.heal()
    return story


def test_when_most_hosts_fall_silent_at_once_nothing_moves(third: Story) -> None:
    assert {name: len(third.witness.tasks_of(name)) for name in third.homes} == dict.fromkeys(third.homes, 2)
    assert third.before == third.height == third.after


def test_a_mass_disconnect_says_what_it_is_and_what_to_do(pairs: list[Pair], third: Story) -> None:
    for pair in pairs[:3]:
        said = [seen.nodes[pair.host.name] for seen in third.witness.sights]
        (message,) = {ready["message"] for ready in said if ready["reason"] == "MassDisconnect"}
        assert message.startswith("3 of 5 nodes fell silent")
        assert "set spec.outOfService" in message
        assert said[-1]["status"] == "True"
