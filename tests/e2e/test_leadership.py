"""Operators that come and go, a Lease that vanishes, an API server that is away or restored: one commands, and no container cares."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.conftest import image_manifest, swarm_on
from tests.e2e.containers import Containers, everywhere
from tests.e2e.witness import NODES, SERVICES, TASKS
from tests.fleet import BareHost, Bridge
from tests.kube import Registry
from tests.swarm import OperatorProcess, Swarm, service
from tests.swarm.operator import NAMESPACE

pytestmark = pytest.mark.e2e

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/moorage-operator"
MARKER = "sleep 200001"
LOST_THE_LEASE = 70


@pytest.fixture(scope="module")
def led(bridge: Bridge, registry: Registry) -> Iterator[Swarm]:
    """Three hosts with two tasks each."""
    with swarm_on(bridge, registry) as swarm:
        swarm.add_hosts(3)
        swarm.apply(image_manifest("app", swarm.image("busybox:led"), "default"))
        swarm.apply(service("web", "image/app", *MARKER.split(), replicas=6))
        swarm.wait_running("web", 6)
        yield swarm


@pytest.fixture(autouse=True)
def one_operator_that_leads(led: Swarm) -> None:
    """Each test begins so, whatever the one before left."""
    running = [operator for operator in led.operators if operator.running]
    for operator in running[:-1]:
        operator.kill()
    if not running:
        led.start_operator()
    led.eventually("the operator leads", lambda: leads(led.operator))
    for host in led.hosts:
        led.wait_node(host.name)


@contextmanager
def no_container_cares(swarm: Swarm) -> Iterator[dict[str, Containers]]:
    before = everywhere(swarm.hosts, MARKER)
    assert [len(found) for found in before.values()] == [2, 2, 2]
    yield before
    assert everywhere(swarm.hosts, MARKER) == before


def leads(operator: OperatorProcess) -> bool:
    return operator.running and operator.get("/readyz") == 200 and operator.metric("moorage_leader") == 1


def lease(swarm: Swarm) -> tuple[str, int]:
    """Who holds it, and the epoch; ("", 0) while there is none."""
    answer = swarm.plane.request("GET", LEASE)
    if not answer.ok:
        return "", 0
    return answer.body["spec"].get("holderIdentity") or "", int(answer.body["metadata"]["annotations"]["moorage.dev/epoch"])


def obeyed(host: BareHost) -> int:
    """The highest epoch the host's agent ever obeyed."""
    return int(json.loads(host.path("/var/lib/moorage/state/binding.json").read_text())["epoch"])


def works(swarm: Swarm) -> None:
    """A wish reaches a host and its answer comes back, as often as asked."""
    name = f"proof-{time.time_ns()}"
    swarm.apply(service(name, "image/app", "sleep", "200002", replicas=3, task={"stopGracePeriod": "1s"}))
    swarm.wait_running(name, 3)
    swarm.kubectl("delete", f"ssvc/{name}")
    swarm.wait_running(name, 0)


def versions(swarm: Swarm) -> dict[str, str]:
    """Of all that the operator writes."""
    return {
        thing["metadata"]["uid"]: thing["metadata"]["resourceVersion"]
        for path in (TASKS, NODES, SERVICES)
        for thing in swarm.plane.request("GET", path).body["items"]
    }


def connections(swarm: Swarm) -> frozenset[int]:
    """Process ids of what SSH runs on the hosts."""
    return frozenset(process.pid for host in swarm.hosts for process in host.processes() if process.command.endswith(" dial"))


def test_a_restart_of_the_operator_restarts_no_container(led: Swarm) -> None:
    with no_container_cares(led):
        led.operator.stop()
        led.start_operator()
        led.eventually("the new one leads", lambda: leads(led.operator))
        works(led)


def test_a_leader_that_ends_in_order_hands_over_at_once(led: Swarm) -> None:
    leader = led.operator
    with no_container_cares(led):
        standby = led.start_operator()
        assert not leads(standby)
        holder, epoch = lease(led)
        leader.stop()
        led.eventually("the standby leads", lambda: leads(standby), timeout_s=12)  # an expiry would take 15 s
        assert lease(led)[0] not in ("", holder)
        assert lease(led)[1] == epoch + 1
        works(led)


def test_when_the_leader_is_killed_the_standby_takes_over(led: Swarm) -> None:
    leader = led.operator
    with no_container_cares(led):
        standby = led.start_operator()
        leader.kill()
        began = time.monotonic()
        led.eventually("the standby leads", lambda: leads(standby))
        assert time.monotonic() - began < 30
        works(led)


def test_a_leader_that_was_frozen_too_long_writes_nothing_and_ends(led: Swarm) -> None:
    leader = led.operator
    with no_container_cares(led):
        standby = led.start_operator()
        leader.pause()
        led.eventually("the standby leads", lambda: leads(standby))
        led.eventually("every host obeys it", lambda: {obeyed(host) for host in led.hosts} == {lease(led)[1]})
        works(led)
        led.eventually("all is said", lambda: _quiet(led))
        before, held = versions(led), lease(led)
        leader.resume()
        assert leader.server is not None
        assert leader.server.wait(30) == LOST_THE_LEASE
        assert versions(led) == before
        assert lease(led) == held
        works(led)


def test_a_deleted_lease_is_made_anew_by_its_holder(led: Swarm) -> None:
    holder, epoch = lease(led)
    with no_container_cares(led):
        led.kubectl("delete", "lease", "moorage-operator", "-n", NAMESPACE)
        led.eventually("the Lease is there again", lambda: lease(led)[0] == holder)
        assert lease(led)[1] > epoch
        works(led)
        assert led.operator.running


def test_while_the_api_server_is_away_connections_are_kept_and_nothing_changes(led: Swarm) -> None:
    led.eventually("all is said", lambda: _quiet(led))
    before, connected, epoch = versions(led), connections(led), lease(led)
    assert len(connected) == 3
    with no_container_cares(led):
        led.plane.stop_api()
        time.sleep(30)
        led.plane.start_api()
        led.eventually("its kinds are served again", lambda: all(led.plane.request("GET", path).ok for path in (TASKS, NODES, SERVICES)))
        led.eventually("the operator leads again", lambda: leads(led.operator))
        assert connections(led) == connected
        assert lease(led) == epoch
        assert versions(led) == before
        works(led)


def test_after_a_restore_of_an_older_store_the_fleet_follows_one_operator(led: Swarm) -> None:
    """The hosts obeyed epochs that the restored Lease knows nothing of, and run tasks nobody remembers."""
    snapshot = led.plane.snapshot()
    with no_container_cares(led):
        for _ in range(2):
            led.operator.stop()
            led.start_operator()
            led.eventually("it leads", lambda: leads(led.operator))
        led.apply(service("later", "image/app", "sleep", "200003", replicas=3, task={"stopGracePeriod": "1s"}))
        led.wait_running("later", 3)
        highest = max(obeyed(host) for host in led.hosts)
        assert highest == lease(led)[1]

        led.plane.restore(snapshot)
        assert lease(led)[1] < highest
        # Until it has seen the Lease it believes that it leads.
        led.eventually("the operator that led knows better", lambda: not led.operator.running or lease(led)[1] > highest)
        if not led.operator.running:
            led.start_operator()
        led.eventually("an operator leads", lambda: leads(led.operator))
        led.eventually(
            "the epoch is above all that was obeyed",
            lambda: {obeyed(host) for host in led.hosts} == {lease(led)[1]} and lease(led)[1] > highest,
        )
        led.eventually("what was made later has ended", lambda: not any(everywhere(led.hosts, "sleep 200003").values()))
        led.wait_running("web", 6)
        works(led)


def _quiet(swarm: Swarm) -> bool:
    """Nothing is written for a while: sums over many objects lag a second."""
    before = versions(swarm)
    time.sleep(3)
    return versions(swarm) == before
