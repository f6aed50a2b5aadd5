"""Placement: the table of cases, and what a batch adds to it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from moorage_operator.errors import InvalidSpec
from moorage_operator.plan import placement_pool, placement_spread
from moorage_operator.plan.filters import Refusal, refused_by_load
from moorage_operator.plan.fleet_view import NodeView
from moorage_operator.plan.fleet_view_load import Load
from moorage_operator.plan.placement import Placement, Unplaceable, check_demand, place, place_all
from moorage_operator.plan.placement_needs import Demand, ServiceKey

from tests.operator.plan.fleets import NOON, fleet, needs

CASES = yaml.safe_load((Path(__file__).parent / "cases" / "placement.yaml").read_text())


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_place(case: dict[str, Any]) -> None:
    assert place(needs(**case["needs"]), fleet(case["nodes"]), now=NOON).describe() == case["expected"]


def nodes_of(outcome: list[Placement | Unplaceable]) -> list[str]:
    return [one.node if isinstance(one, Placement) else "-" for one in outcome]


def test_two_services_never_overcommit_a_node_between_them() -> None:
    swarm = fleet({"n1": {"memory": "4Gi"}, "n2": {"memory": "4Gi"}})
    wanted = [needs(f"{name}-1", service=ServiceKey("shop", name), memory="3Gi") for name in ("a", "b", "c")]
    assert sorted(nodes_of(place_all(wanted, swarm, now=NOON))) == ["-", "n1", "n2"]


def test_replicas_spread_evenly() -> None:
    swarm = fleet({f"n{index}": {} for index in range(4)})
    outcome = place_all([needs(f"web-{slot}") for slot in range(10)], swarm, now=NOON)
    assert sorted(Counter(nodes_of(outcome)).values()) == [2, 2, 3, 3]


def test_replicas_spread_over_racks_first_and_then_over_nodes() -> None:
    swarm = fleet({f"a{index}": {"labels": {"rack": "a"}} for index in range(5)} | {"b0": {"labels": {"rack": "b"}}})
    outcome = nodes_of(place_all([needs(f"web-{slot}", preferences=["node.labels.rack"]) for slot in range(8)], swarm, now=NOON))
    assert Counter(name[0] for name in outcome) == {"a": 4, "b": 4}
    assert len({name for name in outcome if name[0] == "a"}) == 4


def test_the_greatest_come_first_because_small_ones_fit_into_what_is_left() -> None:
    swarm = fleet({"n1": {"memory": "4Gi"}})
    small = [needs(f"small-{slot}", service=ServiceKey("shop", "small"), memory="1Gi") for slot in range(4)]
    outcome = place_all([*small, needs("big-1", service=ServiceKey("shop", "big"), memory="3Gi")], swarm, now=NOON)
    assert sorted(nodes_of(outcome[:4])) == ["-", "-", "-", "n1"]
    assert outcome[4] == Placement("big-1", "n1")


def test_tasks_bound_to_a_node_come_before_those_that_can_go_anywhere() -> None:
    swarm = fleet({"n1": {"memory": "4Gi"}, "n2": {"memory": "4Gi"}})
    free = needs("big-1", service=ServiceKey("shop", "big"), memory="4Gi")
    outcome = place_all([free, needs("db-1", memory="3Gi", home="n1")], swarm, now=NOON)
    assert nodes_of(outcome) == ["n2", "n1"]


def test_a_volume_made_in_this_batch_draws_the_next_task_that_uses_it() -> None:
    swarm = fleet({f"n{index}": {} for index in range(5)})
    pair = [needs(f"{name}-1", service=ServiceKey("shop", name), volumes=("shop/s/data",)) for name in ("a", "b")]
    first, second = nodes_of(place_all(pair, swarm, now=NOON))
    assert first == second


def test_a_whole_rollout_with_stop_first_stays_where_it_is() -> None:
    swarm = fleet(
        {f"n{index}": {"memory": "1Gi", "tasks": [{"uid": f"old-{index}", "memory": "1Gi", "ports": [80]}]} for index in range(3)}
    )
    wanted = [needs(f"web-{index}", memory="1Gi", ports=[80], replaces=f"old-{index}") for index in range(3)]
    assert nodes_of(place_all(wanted, swarm, now=NOON)) == ["n0", "n1", "n2"]


def test_two_tasks_cannot_both_take_the_place_of_one() -> None:
    swarm = fleet({"n1": {"memory": "4Gi", "tasks": [{"uid": "old", "memory": "4Gi"}]}})
    wanted = [needs(f"web-{slot}", memory="3Gi", replaces="old") for slot in (1, 2)]
    assert sorted(nodes_of(place_all(wanted, swarm, now=NOON))) == ["-", "n1"]


def test_a_successor_that_waits_for_its_turn_holds_its_place_with_its_predecessor() -> None:
    """The old task and its successor never run at once: together they hold the greater of the two."""
    tasks = [{"uid": "old", "memory": "2Gi"}, {"uid": "new", "memory": "3Gi", "replaces": "old"}]
    swarm = fleet({"n1": {"memory": "4Gi", "tasks": tasks}})
    assert isinstance(place(needs(service=ServiceKey("shop", "api"), memory="1Gi"), swarm, now=NOON), Placement)
    assert isinstance(place(needs(service=ServiceKey("shop", "api"), memory="1025Mi"), swarm, now=NOON), Unplaceable)


def test_all_replicas_without_a_place_get_the_same_explanation() -> None:
    swarm = fleet({f"n{index}": {"memory": "1Gi"} for index in range(3)})
    outcome = place_all([needs(f"web-{slot}", memory="1Gi") for slot in range(5)], swarm, now=NOON)
    messages = {one.message for one in outcome if isinstance(one, Unplaceable)}
    assert messages == {"no suitable node: insufficient memory on 3 nodes"}
    assert {one.task for one in outcome if isinstance(one, Unplaceable)} == {"web-3", "web-4"}


def test_a_bad_constraint_does_not_keep_others_from_their_place() -> None:
    outcome = place_all([needs("a-1", constraints=["nonsense"]), needs("b-1")], fleet({"n1": {}}), now=NOON)
    assert isinstance(outcome[0], Unplaceable)
    assert outcome[0].reason == "InvalidPlacement"
    assert outcome[1] == Placement("b-1", "n1")


def test_a_preference_that_no_node_has_is_refused() -> None:
    with pytest.raises(InvalidSpec, match=r"there is no key node\.rack"):
        check_demand(needs(preferences=["node.rack"]).demand)


def test_the_fleet_is_left_as_it_was() -> None:
    swarm = fleet({"n1": {"tasks": [{"memory": "1Gi"}]}})
    before = repr(swarm)
    place_all([needs(f"web-{slot}", memory="1Gi", ports=[8000 + slot]) for slot in range(3)], swarm, now=NOON)
    assert repr(swarm) == before


def test_a_task_looks_at_a_few_nodes_and_not_at_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Counter[str]()

    def counted(demand: Demand, node: NodeView, load: Load) -> Refusal | None:
        looks[demand.service.name] += 1
        return refused_by_load(demand, node, load)

    for module in (placement_pool, placement_spread):
        monkeypatch.setattr(module, "refused_by_load", counted)
    swarm = fleet({f"n{index:03}": {"memory": "64Gi"} for index in range(300)})
    wanted = [needs(f"s{index}-1", service=ServiceKey("shop", f"s{index}"), memory="1Gi") for index in range(600)]
    assert "-" not in nodes_of(place_all(wanted, swarm, now=NOON))
    assert max(looks.values()) <= 6
