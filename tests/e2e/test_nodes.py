"""Nodes drained, paused, rebooted, given up and deleted, and what becomes of their tasks and hosts."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import image_manifest, swarm_on
from tests.e2e.containers import agent, containers
from tests.e2e.witness import Witness
from tests.fleet import BareHost, Bridge
from tests.kube import Registry
from tests.swarm import Swarm, node, service
from tests.swarm.manifests import Manifest

pytestmark = pytest.mark.e2e

QUICK = {"stopGracePeriod": "1s"}
VOLUME = {**QUICK, "mounts": [{"target": "/data", "volume": {"name": "data"}}]}


@pytest.fixture(scope="module")
def nodes(bridge: Bridge, registry: Registry) -> Iterator[Swarm]:
    """Three hosts that stay; who breaks one adds it."""
    with swarm_on(bridge, registry) as swarm:
        swarm.add_hosts(3, labels={"stays": "yes"})
        swarm.apply(image_manifest("app", swarm.image("busybox:nodes"), "default"))
        yield swarm


@pytest.fixture(autouse=True)
def as_at_first(nodes: Swarm) -> Iterator[None]:
    """Whatever a test leaves when it fails is no business of the next."""
    yield
    if not nodes.operator.running:
        nodes.start_operator()
    nodes.kubectl("delete", "ssvc", "--all")
    for host in nodes.hosts[:3]:
        spec(nodes, host, availability="Active")
    nodes.eventually("no task is left", lambda: not nodes.tasks())


def on(label: str, *names: str) -> Manifest:
    return {"constraints": [f"node.labels.{label} == yes", *(f"node.name == {name}" for name in names)]}


def spec(swarm: Swarm, host: BareHost, **fields: object) -> None:
    swarm.kubectl("patch", f"snode/{host.name}", "--type=merge", "-p", json.dumps({"spec": fields}))


def homes(swarm: Swarm, name: str) -> list[str]:
    """Nodes of the Service's running tasks."""
    return sorted(task["spec"]["nodeName"] for task in swarm.tasks(name) if task.get("status", {}).get("state") == "Running")


def gone(swarm: Swarm, *names: str) -> None:
    swarm.kubectl("delete", *(f"ssvc/{name}" for name in names))
    for name in names:
        swarm.wait_running(name, 0)


# --- availability


def test_a_drained_node_empties_as_updates_do_without_a_gap(nodes: Swarm) -> None:
    drained = nodes.hosts[0]
    for name, order in (("steady", "StartFirst"), ("thrifty", "StopFirst")):
        update = {"order": order, "parallelism": 1}
        nodes.apply(service(name, "image/app", "sleep", "300001", replicas=4, task=QUICK, update=update, placement=on("stays")))
    for name in ("steady", "thrifty"):
        nodes.wait_running(name, 4)
    with Witness(nodes.plane) as witness:
        spec(nodes, drained, availability="Drain")
        for name in ("steady", "thrifty"):
            nodes.eventually(
                f"{name} has left",
                lambda name=name: len(homes(nodes, name)) == 4 and drained.name not in homes(nodes, name),  # type: ignore[misc]
            )
        nodes.eventually("its containers have ended", lambda: not containers(drained, "sleep 300001"))
    assert witness.least_ready("steady") == 4
    assert witness.least_ready("thrifty") >= 3


def test_a_paused_node_keeps_its_tasks_and_takes_no_new_ones(nodes: Swarm) -> None:
    paused = nodes.hosts[0]
    nodes.apply(service("web", "image/app", "sleep", "300002", replicas=3, task=QUICK, placement=on("stays")))
    nodes.wait_running("web", 3)
    before = containers(paused, "sleep 300002")
    assert len(before) == 1
    spec(nodes, paused, availability="Pause")
    nodes.kubectl("scale", "ssvc/web", "--replicas=7")
    nodes.wait_running("web", 7)
    assert containers(paused, "sleep 300002") == before
    spec(nodes, paused, availability="Active")
    nodes.kubectl("scale", "ssvc/web", "--replicas=10")
    nodes.wait_running("web", 10)
    assert len(containers(paused, "sleep 300002")) > 1


# --- failures


def test_a_task_that_only_one_host_makes_crash_ends_up_on_another(nodes: Swarm) -> None:
    bad, good, _ = nodes.hosts
    # The good one has something to do, so that the bad one is chosen first.
    nodes.apply(service("ballast", "image/app", "sleep", "300003", replicas=2, task=QUICK, placement=on("stays", good.name)))
    nodes.wait_running("ballast", 2)
    task = {**QUICK, "env": [{"name": "HOST", "value": "{{.Node.Hostname}}"}], "restart": {"delay": "1s", "maxDelay": "1s"}}
    script = f'test "$HOST" != {bad.name} || exit 1; exec sleep 300004'
    placement = {"constraints": ["node.labels.stays == yes", f"node.name != {nodes.hosts[2].name}"]}
    with Witness(nodes.plane) as witness:
        nodes.apply(service("picky", "image/app", "sh", "-c", script, task=task, placement=placement))
        nodes.eventually("it runs on the other host", lambda: homes(nodes, "picky") == [good.name], timeout_s=90)
    first = next(task for sight in witness.sights for task in sight.tasks if task["spec"]["service"] == "picky")
    assert first["spec"]["nodeName"] == bad.name
    crashed = [task for sight in witness.sights for task in sight.tasks if task["metadata"]["uid"] == first["metadata"]["uid"]]
    assert max(task.get("status", {}).get("restarts", 0) for task in crashed) >= 4, "it was given its chances"


def test_a_host_that_boots_without_the_operator_brings_back_what_needs_no_secret(nodes: Swarm) -> None:
    """A host without systemd: here a line of its rc.local starts the agent."""
    (host,) = nodes.add_hosts(1, labels={"boots": "yes"})
    nodes.kubectl("create", "secret", "generic", "token", "--from-literal=token=1")
    secret = {"secrets": [{"target": "/run/secrets/token", "secretRef": {"name": "token", "key": "token"}}]}
    nodes.apply(
        service("plain", "image/app", "sleep", "300005", task=QUICK, placement=on("boots")),
        service("sealed", "image/app", "sleep", "300006", task={**QUICK, **secret}, placement=on("boots")),
    )
    for name in ("plain", "sealed"):
        nodes.wait_running(name, 1)
    nodes.operator.stop()
    host.reboot()
    host.run("sh", "-c", "setsid /var/lib/moorage/agent/current/moorage-agent serve </dev/null >/dev/null 2>&1 &")

    def waits() -> bool:
        rows = {row.split("-")[0]: row for row in agent(host, "ps", check=False).splitlines()}
        return " Running " in rows.get("plain", "") and "WaitingForSecrets" in rows.get("sealed", "")

    nodes.eventually("the one runs and the other says what it waits for", waits)
    assert len(containers(host, "sleep 300005")) == 1
    assert not containers(host, "sleep 300006")
    nodes.start_operator()
    for name in ("plain", "sealed"):
        nodes.wait_running(name, 1)
    nodes.wait_node(host.name)
    gone(nodes, "plain", "sealed")
    nodes.kubectl("delete", f"snode/{host.name}", timeout_s=120)


# --- hosts that are gone


def test_out_of_service_releases_the_tasks_of_a_dead_host_at_once(nodes: Swarm) -> None:
    (dead,) = nodes.add_hosts(1, labels={"dies": "yes"})
    other = nodes.hosts[0]
    nodes.apply(service("db", "image/app", "sleep", "300007", task=VOLUME, placement=on("dies")))
    nodes.wait_running("db", 1)
    nodes.kubectl("label", f"snode/{other.name}", "dies=yes")
    dead.kill()
    spec(nodes, dead, outOfService=True)
    nodes.eventually("it runs elsewhere, volume or not", lambda: homes(nodes, "db") == [other.name])
    assert nodes.condition("snode", dead.name)["reason"] == "OutOfService"

    dead.boot()
    spec(nodes, dead, outOfService=False)
    nodes.wait_node(dead.name)
    nodes.eventually("nothing runs where it was", lambda: not containers(dead, "sleep 300007"))
    gone(nodes, "db")
    nodes.kubectl("label", f"snode/{other.name}", "dies-")
    nodes.kubectl("delete", f"snode/{dead.name}", timeout_s=120)


def test_deleting_the_node_of_a_dead_host_waits_and_says_for_what(nodes: Swarm) -> None:
    (dead,) = nodes.add_hosts(1)
    dead.kill()
    nodes.kubectl("delete", f"snode/{dead.name}", "--wait=false")
    nodes.eventually("it says what it waits for", lambda: nodes.condition("snode", dead.name, "Removing").get("reason") == "Wait")
    assert f"set spec.outOfService on Node {dead.name}" in nodes.condition("snode", dead.name, "Removing")["message"]
    spec(nodes, dead, outOfService=True)
    nodes.eventually("it is gone", lambda: nodes.plane.get("snode", dead.name) is None)


def test_a_deleted_node_drains_and_leaves_nothing_on_its_host_but_named_volumes(nodes: Swarm) -> None:
    host = nodes.bridge.host()
    nodes.hosts.append(host)
    before = host.traces()
    nodes.apply(node(host, labels={"leaves": "yes"}))
    nodes.wait_node(host.name)
    nodes.kubectl("create", "configmap", "page", "--from-literal=index=hello")
    config = {"configs": [{"target": "/page", "configMapRef": {"name": "page", "key": "index"}}]}
    nodes.apply(
        service("web", "image/app", "sleep", "300008", replicas=2, task={**QUICK, **config}, placement=on("leaves")),
        service("ledger", "image/app", "sleep", "300009", task=VOLUME, placement=on("leaves")),
        service("done", "image/app", "true", task={"restart": {"condition": "OnFailure"}}, placement=on("leaves")),
    )
    for name, count in (("web", 2), ("ledger", 1)):
        nodes.wait_running(name, count)
    nodes.eventually("the work is done", lambda: nodes.states("done").get("Complete") == 1)
    for other in nodes.hosts[:2]:
        nodes.kubectl("label", f"snode/{other.name}", "leaves=yes")

    nodes.kubectl("delete", f"snode/{host.name}", "--wait=false")
    nodes.eventually("a volume holds nothing back", lambda: nodes.plane.get("snode", host.name) is None, timeout_s=90)
    for name, count in (("web", 2), ("ledger", 1)):
        nodes.wait_running(name, count)
        assert host.name not in homes(nodes, name)
    nodes.eventually("nothing of it is left", lambda: not host.traces().since(before), timeout_s=20)
    assert host.run("find", "/run/moorage", "/etc/systemd/system/moorage-agent.service", check=False).stdout == ""
    left = host.run("find", "/var/lib/moorage", "-mindepth", "1", "-maxdepth", "1").stdout.split()
    assert left == ["/var/lib/moorage/volumes"]
    for other in nodes.hosts[:2]:
        nodes.kubectl("label", f"snode/{other.name}", "leaves-")
