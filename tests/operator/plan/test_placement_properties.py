"""What holds for every batch on every fleet."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from moorage_operator.plan.constraint import attribute
from moorage_operator.plan.filters import addresses_overlap, refused_by_facts, refused_by_load
from moorage_operator.plan.fleet_view import Fleet, NodeView
from moorage_operator.plan.fleet_view_load import Holding, Load, load_of
from moorage_operator.plan.placement import Placement, Unplaceable, place, place_all
from moorage_operator.plan.placement_needs import ServiceKey, TaskNeeds
from moorage_operator.plan.placement_rank import rank
from moorage_operator.plan.placement_site import holding_of

from tests.operator.plan.fleets import NOON, needs, node

NODES = ("n1", "n2", "n3", "n4")
SERVICES = ("web", "db", "api")
GIB = st.integers(0, 4).map(lambda count: f"{count}Gi")
PORTS = st.lists(st.sampled_from(["80", "192.0.2.1:80", "192.0.2.2:80", "53/udp"]), max_size=1)

tasks = st.builds(
    lambda service, memory, cpu, ports: {"service": service, "memory": memory, "cpu": cpu, "ports": ports},
    st.sampled_from(SERVICES),
    st.sampled_from(["0", "512Mi", "1Gi"]),
    st.sampled_from(["0", "500m"]),
    PORTS,
)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    nodes = []
    for name in draw(st.lists(st.sampled_from(NODES), unique=True, max_size=4)):
        held = draw(st.lists(tasks, max_size=3))
        hands_over = draw(st.booleans())
        if held and hands_over:
            held.append({**held[0], "memory": draw(GIB), "replaces": f"{name}-0", "start_first": draw(st.booleans())})
        spec: dict[str, Any] = {
            "memory": draw(GIB),
            "cpu": draw(st.sampled_from(["1", "4"])),
            "labels": draw(st.fixed_dictionaries({}, optional={"zone": st.sampled_from("ab"), "rack": st.sampled_from("xyz")})),
            "availability": draw(st.sampled_from(["Active"] * 4 + ["Drain", "Pause"])),
            "ready": draw(st.sampled_from([True] * 5 + [False])),
            "failures": draw(st.lists(st.integers(0, 400), max_size=7)),
            "volumes": draw(st.lists(st.sampled_from(["shop/s/a", "shop/s/b"]), unique=True, max_size=1)),
        }
        nodes.append(node(name, tasks=held, **spec))
    return Fleet.of(nodes)


@st.composite
def batches(draw: st.DrawFn) -> list[TaskNeeds]:
    wanted = []
    for service in draw(st.lists(st.sampled_from(SERVICES), unique=True, min_size=1)):
        spec: dict[str, Any] = {
            "service": ServiceKey("shop", service),
            "memory": draw(GIB),
            "cpu": draw(st.sampled_from(["0", "700m"])),
            "ports": draw(PORTS),
            "max_per_node": draw(st.sampled_from([None, 1, 2])),
            "shared": draw(st.sampled_from([(), (), ("shop/s/a",)])),
            "constraints": draw(st.lists(st.sampled_from(["node.labels.zone == a", "node.labels.rack != x"]), max_size=1)),
            "preferences": draw(st.sampled_from([(), ("node.labels.zone",), ("node.labels.zone", "node.labels.rack")])),
        }
        for slot in range(draw(st.integers(1, 5))):
            replaced = draw(st.sampled_from([None, None, "n1-0", "n2-0", "n3-1"]))
            home = draw(st.sampled_from([None, None, None, "n1", "n9"]))
            volumes = draw(st.sampled_from([(), (), ("shop/s/a",), ("shop/s/c",)]))
            wanted.append(
                needs(f"{service}-{slot}", replaces=replaced, start_first=draw(st.booleans()), home=home, volumes=volumes, **spec)
            )
    return wanted


def after(fleet: Fleet, wanted: Sequence[TaskNeeds], outcome: Sequence[Placement | Unplaceable]) -> dict[str, dict[str, Holding]]:
    held = {name: dict(view.holdings) for name, view in fleet.nodes.items()}
    for task, placed in zip(wanted, outcome, strict=True):
        if isinstance(placed, Placement):
            holding = holding_of(task)
            held[placed.node][holding.uid] = holding
    return held


@given(fleets(), batches())
def test_no_node_is_ever_overcommitted(fleet: Fleet, wanted: list[TaskNeeds]) -> None:
    outcome = place_all(wanted, fleet, now=NOON)
    for name, held in after(fleet, wanted, outcome).items():
        view, load = fleet.nodes[name], load_of(held)
        assert load.memory_bytes <= max(view.allocatable.memory_bytes, view.load.memory_bytes)
        assert load.cpu_millis <= max(view.allocatable.cpu_millis, view.load.cpu_millis)


@given(fleets(), batches())
def test_what_remains_once_predecessors_are_gone_fits_too(fleet: Fleet, wanted: list[TaskNeeds]) -> None:
    outcome = place_all(wanted, fleet, now=NOON)
    for name, held in after(fleet, wanted, outcome).items():
        old = fleet.nodes[name].holdings
        replaced = {one.replaces for one in held.values()}
        load = load_of({uid: one for uid, one in held.items() if uid not in replaced})
        before = load_of({uid: one for uid, one in old.items() if uid not in replaced})
        assert load.memory_bytes <= max(fleet.nodes[name].allocatable.memory_bytes, before.memory_bytes)


@given(fleets(), batches())
def test_no_two_tasks_that_run_at_once_share_a_port(fleet: Fleet, wanted: list[TaskNeeds]) -> None:
    outcome = place_all(wanted, fleet, now=NOON)
    for name, held in after(fleet, wanted, outcome).items():
        for one, other in combinations(held.values(), 2):
            new = {one.uid, other.uid} - fleet.nodes[name].holdings.keys()
            if new and not hands_over(one, other):
                assert not any(
                    (a.protocol, a.port) == (b.protocol, b.port) and addresses_overlap(a.host_ip, b.host_ip)
                    for a in one.ports
                    for b in other.ports
                )


def hands_over(one: Holding, other: Holding) -> bool:
    return any(later.replaces == earlier.uid and not later.start_first for later, earlier in ((one, other), (other, one)))


def test_the_limit_per_node_holds_for_a_second_successor_too() -> None:
    """The first one's version is no longer wanted, but it has not stopped yet."""
    fleet = Fleet.of([node("n1", tasks=[{}, {"replaces": "n1-0", "start_first": True}])])
    for start_first in (True, False):
        [outcome] = place_all([needs(replaces="n1-0", start_first=start_first, max_per_node=1)], fleet, now=NOON)
        assert isinstance(outcome, Unplaceable)


@given(fleets(), batches())
def test_the_limit_per_node_holds(fleet: Fleet, wanted: list[TaskNeeds]) -> None:
    outcome = place_all(wanted, fleet, now=NOON)
    held = after(fleet, wanted, outcome)
    for task, placed in zip(wanted, outcome, strict=True):
        if isinstance(placed, Placement) and task.demand.max_per_node is not None:
            count = load_of(held[placed.node]).services[task.demand.service]
            before = fleet.nodes[placed.node].load.services.get(task.demand.service, 0)
            assert count <= max(task.demand.max_per_node, before)


@given(fleets(), batches(), st.randoms(use_true_random=False))
def test_the_order_of_tasks_and_nodes_has_no_influence(fleet: Fleet, wanted: list[TaskNeeds], random: Random) -> None:
    outcome = dict(zip((task.name for task in wanted), place_all(wanted, fleet, now=NOON), strict=True))
    shuffled = random.sample(wanted, len(wanted))
    nodes = Fleet.of(random.sample(list(fleet.nodes.values()), len(fleet.nodes)))
    assert dict(zip((task.name for task in shuffled), place_all(shuffled, nodes, now=NOON), strict=True)) == outcome


@given(fleets(), batches())
def test_an_explanation_counts_every_node_once(fleet: Fleet, wanted: list[TaskNeeds]) -> None:
    for outcome in place_all(wanted, fleet, now=NOON):
        if isinstance(outcome, Unplaceable):
            assert sum(refused.nodes for refused in outcome.refused) == len(fleet.nodes)
            assert "{" not in outcome.message


@given(fleets(), batches())
def test_a_task_without_a_place_has_none_in_the_end_either(fleet: Fleet, wanted: list[TaskNeeds]) -> None:
    outcome = place_all(wanted, fleet, now=NOON)
    held = after(fleet, wanted, outcome)
    for task, placed in zip(wanted, outcome, strict=True):
        if isinstance(placed, Unplaceable) and task.home is None and not task.volumes and task.replaces is None:
            for name, view in fleet.nodes.items():
                assert refused_by_facts(task.demand, view) or refused_by_load(task.demand, view, load_of(held[name]))


@given(fleets(), batches())
def test_a_task_alone_gets_the_node_that_looking_at_all_of_them_finds(fleet: Fleet, wanted: list[TaskNeeds]) -> None:
    task = wanted[0]
    outcome = place(task, fleet, now=NOON)
    if task.home is None and not task.volumes:
        best = best_of_all(task, fleet)
        assert outcome.node == best if isinstance(outcome, Placement) else best is None


def best_of_all(task: TaskNeeds, fleet: Fleet) -> str | None:
    """Placement as one would write it for ten nodes."""
    found = []
    for view in fleet.nodes.values():
        load, here = load_for(task, view)
        if refused_by_facts(task.demand, view) is None and refused_by_load(task.demand, view, load) is None:
            levels = tuple(level - here for level in levels_of(task, view, fleet))
            found.append(((levels, rank(task.demand, view, load, now=NOON, moves=not here)), view.name))
    return min(found)[1] if found else None


def load_for(task: TaskNeeds, view: NodeView) -> tuple[Load, bool]:
    replaced = view.holdings.get(task.replaces or "")
    if replaced is None or replaced.service != task.demand.service:
        return view.load, False
    if not task.start_first:
        return load_of({uid: one for uid, one in view.holdings.items() if uid != task.replaces}), True
    load = view.load.copy()
    load.tasks -= 1
    load.services[replaced.service] -= 1
    return load, True


def levels_of(task: TaskNeeds, view: NodeView, fleet: Fleet) -> list[int]:
    """How many tasks the Service has in each level's branch of this node."""
    keys = task.demand.preferences
    levels = []
    for depth in range(1, len(keys) + 1):
        branch = [other for other in fleet.nodes.values() if all(attribute(other, key) == attribute(view, key) for key in keys[:depth])]
        levels.append(sum(other.load.services.get(task.demand.service, 0) for other in branch))
    return levels
