"""The fleet, kept current event by event, equals the fleet made of everything at once."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from moorage_agent import protocol
from moorage_operator.api import Node, Task, rfc3339
from moorage_operator.plan.fleet_view import Fleet, ServiceVersion
from moorage_operator.plan.fleet_view_cache import FleetView
from moorage_operator.plan.fleet_view_load import Amount
from moorage_operator.plan.placement import Placement, place
from moorage_operator.plan.placement_demand import demand_of, own_volumes, shared_volumes

from tests.operator.plan.fleets import NOON, WEB, needs
from tests.operator.plan.objects import GIB, node, ready, service, task

HOST = ready() | {
    "hostname": "alpha",
    "architecture": "amd64",
    "capacity": {"cpu": "4", "memory": str(8 * GIB)},
    "features": [{"name": "apparmor", "present": False}],
    "listeners": [{"port": 80, "protocol": "TCP", "process": "dockerd"}],
    "volumes": ["shop/s/data"],
}
RESERVES = {"resources": {"memoryReservation": GIB, "cpuReservation": 500}, "ports": [{"port": 443}]}


def view_of(*tasks: Task) -> FleetView:
    view = FleetView()
    view.put_node(node(status=HOST, labels={"zone": "eu"}))
    for one in tasks:
        view.put_task(one)
    return view


def test_a_node_is_seen_with_its_facts() -> None:
    seen = view_of().fleet().nodes["n1"]
    assert (seen.ready, seen.hostname, seen.arch, seen.labels) == (True, "alpha", "amd64", {"zone": "eu"})
    assert seen.allocatable == Amount(3800, 8 * GIB - 8 * GIB // 20)
    assert seen.listeners == (protocol.Listener(80, "TCP", "dockerd"),)
    assert (seen.volumes, seen.features) == (frozenset({"shop/s/data"}), {"apparmor": False})


def test_a_task_holds_what_it_reserved_until_it_ended_or_is_gone() -> None:
    view = view_of(task(container=RESERVES))
    assert view.fleet().nodes["n1"].load.memory_bytes == GIB
    view.put_task(task(container=RESERVES, deleted=NOON))
    assert view.fleet().nodes["n1"].load.memory_bytes == GIB
    view.put_task(task(container=RESERVES, status={"state": "Orphaned"}))
    assert view.fleet().nodes["n1"].load.memory_bytes == 0
    view.put_task(task(container=RESERVES))
    view.drop_task("uid-web-1-abc")
    assert view.fleet().nodes["n1"].load.tasks == 0


def test_failed_exits_are_remembered_and_those_that_were_asked_for_are_not() -> None:
    def exit_(code: int | None, reason: str | None = None) -> dict[str, Any]:
        return {"at": rfc3339(NOON)} | ({} if code is None else {"code": code}) | ({"reason": reason} if reason else {})

    exits = [exit_(1), exit_(None), exit_(0), exit_(143, "Removed"), exit_(None, "HostRebooted"), exit_(137, "Unhealthy")]
    failures = view_of(task(status={"state": "Failed", "lastExits": exits})).fleet().nodes["n1"].failures
    assert failures == {ServiceVersion(WEB, "v1"): (NOON, NOON, NOON)}


def test_what_is_assumed_counts_until_the_task_is_seen() -> None:
    view, wish = view_of(), needs("web-1-abc", memory="1Gi")
    view.assume(wish, "n1")
    view.assume(wish, "n1")
    assert view.fleet().nodes["n1"].load.memory_bytes == GIB
    view.put_task(task(container=RESERVES))
    assert view.fleet().nodes["n1"].load.memory_bytes == GIB
    view.forget("shop", "web-1-abc")
    assert view.fleet().nodes["n1"].load.tasks == 1


def test_a_failed_write_gives_the_place_back() -> None:
    view = view_of()
    view.assume(needs("web-1-abc", memory="1Gi"), "n1")
    view.forget("shop", "web-1-abc")
    assert view.fleet().nodes["n1"].load.tasks == 0


def test_a_snapshot_does_not_change_any_more() -> None:
    view = view_of()
    before = view.fleet()
    view.put_task(task(container=RESERVES))
    view.drop_node("n1")
    assert before.nodes["n1"].load.tasks == 0
    assert not view.fleet().nodes


def test_tasks_may_come_before_their_node() -> None:
    view = FleetView()
    view.put_task(task(container=RESERVES))
    assert not view.fleet().nodes
    view.put_node(node(status=HOST))
    assert view.fleet().nodes["n1"].load.memory_bytes == GIB


def test_only_nodes_that_something_changed_on_are_summed_up_anew() -> None:
    view = view_of(task(container=RESERVES))
    first = view.fleet().nodes["n1"]
    view.put_node(node(status=HOST, labels={"zone": "eu"}))
    view.put_task(task(container=RESERVES, status={"state": "Running"}))
    assert view.fleet().nodes["n1"] is first


events = st.lists(
    st.one_of(
        st.builds(
            lambda name, place, state, replaces: ("task", name, place, state, replaces),
            st.sampled_from("abc"),
            st.sampled_from(["n1", "n2", None]),
            st.sampled_from([None, "Running", "Failed"]),
            st.sampled_from([None, "uid-a"]),
        ),
        st.tuples(st.just("drop"), st.sampled_from("abc")),
        st.tuples(st.sampled_from(["node", "gone"]), st.sampled_from(["n1", "n2"])),
        st.tuples(st.sampled_from(["assume", "forget"]), st.sampled_from("abc"), st.sampled_from(["n1", "n2"])),
    ),
    max_size=12,
)


@given(events)
def test_the_way_here_does_not_matter(history: list[tuple[Any, ...]]) -> None:
    view = FleetView()
    nodes: dict[str, Node] = {}
    tasks: dict[str, Task] = {}
    assumed: dict[str, str] = {}
    for kind, name, *more in history:
        view.fleet()
        if kind == "task":
            where, state, replaces = more
            tasks[name] = task(name, container=RESERVES, nodeName=where, replaces=replaces, status={"state": state} if state else {})
            view.put_task(tasks[name])
            assumed = {key: value for key, value in assumed.items() if key != name or where is None}
        elif kind == "drop":
            tasks.pop(name, None)
            view.drop_task(f"uid-{name}")
        elif kind == "node":
            nodes[name] = node(name, status=HOST)
            view.put_node(nodes[name])
        elif kind == "gone":
            nodes.pop(name, None)
            view.drop_node(name)
        elif kind == "assume":
            assumed[name] = more[0]
            view.assume(needs(name, memory="1Gi"), more[0])
        else:
            assumed.pop(name, None)
            view.forget("shop", name)
    assert view.fleet() == anew(nodes, tasks, assumed)


def anew(nodes: dict[str, Node], tasks: dict[str, Task], assumed: dict[str, str]) -> Fleet:
    view = FleetView()
    for one in tasks.values():
        view.put_task(one)
    for name, where in assumed.items():
        view.assume(needs(name, memory="1Gi"), where)
    for host in nodes.values():
        view.put_node(host)
    return view.fleet()


# --- from a Service to its needs


def test_a_service_says_what_it_demands() -> None:
    spec = service(
        placement={"constraints": ["node.labels.zone == eu"], "preferences": [{"spread": "node.labels.rack"}], "maxReplicasPerNode": 2},
        task={"image": "app:1", "resources": {"reservations": {"devices": [{"name": "gpu", "count": 2}]}}},
    ).spec
    container = protocol.Container(
        resources=protocol.Resources(memory_reservation=GIB, cpu_reservation=250, memory_limit=2 * GIB),
        security=protocol.Security(user_namespace=True, oom_score_adj=-5),
        ports=(protocol.Port(443),),
    )
    demand = demand_of(spec, WEB, "v1", container, ("linux/amd64",), constraints=("node.name == n1",))
    assert (demand.memory_bytes, demand.cpu_millis, demand.max_per_node) == (GIB, 250, 2)
    assert demand.constraints == ("node.labels.zone == eu", "node.name == n1")
    assert (demand.preferences, demand.devices, demand.ports) == (("node.labels.rack",), (("gpu", 2),), (protocol.Port(443),))
    assert set(demand.features) == {"memory", "user-namespaces", "SYS_RESOURCE"}


def test_a_limit_alone_reserves_nothing() -> None:
    container = protocol.Container(resources=protocol.Resources(memory_limit=64 * GIB))
    demand = demand_of(service().spec, WEB, "v1", container)
    seen = view_of().fleet().nodes["n1"]
    assert demand.memory_bytes == 0
    assert seen.features.get("memory") is None


def test_a_slot_is_bound_to_the_volumes_that_it_alone_uses() -> None:
    mounts = tuple(
        protocol.Mount(f"/{index}", "volume", source)
        for index, source in enumerate(
            ("shop/s/data", "shop/s/data-{{.Task.Slot}}", "shop/s/x-{{ .Node.Hostname }}", "shop/s/{{.Service.Name}}")
        )
    )
    container = protocol.Container(mounts=(*mounts, protocol.Mount("/t", "tmpfs"), protocol.Mount("/b", "bind", "/srv")))
    assert own_volumes(container, "web", "3", alone=False) == ("shop/s/data-3",)
    assert own_volumes(container, "web", "3", alone=True) == ("shop/s/data", "shop/s/data-3", "shop/s/web")
    assert list(shared_volumes(container, "web")) == ["shop/s/data", "shop/s/web"]


def test_a_service_made_anew_finds_its_data() -> None:
    view = view_of()
    view.put_node(node("n2", status=HOST | {"volumes": []}))
    view.put_task(task(container=RESERVES))
    assert place(needs(volumes=("shop/s/data",)), view.fleet(), now=NOON) == Placement("web-1", "n1")
