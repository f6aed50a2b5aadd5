"""A Stack becomes its Services, takes back what was changed by hand, and leaves alone what was handed over."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage_operator.api import Service
from moorage_operator.plan.stack import REMEMBERED, merge_patch, plan_stack

from tests.operator.plan.stack_world import World, describe, entry, merged, stack


@pytest.fixture
def world() -> World:
    return World()


def other(name: str, owner: dict[str, Any] | None = None) -> dict[str, Any]:
    """A Service that is not the Stack's."""
    owners = [owner] if owner else []
    metadata = {"name": name, "namespace": "default", "uid": "foreign", "generation": 1, "ownerReferences": owners}
    return {"metadata": metadata, "spec": {"mode": "Replicated", "replicas": 1, "task": {"image": "other:1"}}}


def test_each_service_becomes_an_object_owned_by_the_stack(world: World) -> None:
    world.settle(stack(entry("web", replicas=3), entry("db")))
    web = world.objects["shop-web"]
    assert set(world.objects) == {"shop-web", "shop-db"}
    assert web["spec"] == {"mode": "Replicated", "replicas": 3, "task": {"image": "app:1"}}
    assert web["metadata"]["labels"] == {"moorage.dev/stack": "shop"}
    assert web["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "moorage.dev/v1alpha1",
            "kind": "Stack",
            "name": "shop",
            "uid": "stack-1",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def test_a_changed_field_is_patched_and_nothing_else(world: World) -> None:
    world.settle(stack(entry("web", update={"delay": "5s", "parallelism": 2})))
    (patch,) = plan_stack(stack(entry("web", update={"delay": "9s"})), world.services).patches
    assert patch.patch == {"spec": {"update": {"delay": "9s", "parallelism": None}}}
    assert patch.describe() == "change Service shop-web: spec.update.parallelism, spec.update.delay"


def test_a_default_written_out_is_no_change(world: World) -> None:
    world.settle(stack(entry("web")))
    assert describe(world, stack(entry("web", mode="Replicated", update={"parallelism": 1, "delay": "0s"}, placement={}))) == []


def test_what_was_changed_by_hand_is_taken_back(world: World) -> None:
    wanted = stack(entry("web"))
    world.settle(wanted)
    world.patch("shop-web", {"spec": {"task": {"image": "app:2"}, "unreachable": {"policy": "Keep"}}})
    world.settle(wanted)
    assert world.objects["shop-web"]["spec"] == {"mode": "Replicated", "replicas": 1, "task": {"image": "app:1"}}


def test_a_lost_label_comes_back(world: World) -> None:
    world.settle(stack(entry("web")))
    world.patch("shop-web", {"metadata": {"labels": {"moorage.dev/stack": None, "own": "stays"}}})
    world.settle(stack(entry("web")))
    assert world.objects["shop-web"]["metadata"]["labels"] == {"moorage.dev/stack": "shop", "own": "stays"}


# --- what is handed over


def test_what_kubectl_scale_set_lasts(world: World) -> None:
    world.settle(stack(entry("web", replicas=3)))
    world.patch("shop-web", {"spec": {"replicas": 7}})
    world.settle(stack(entry("web", replicas=3, restartToken="")))
    world.settle(stack(entry("web", replicas=3, task={"image": "app:2"})))
    assert world.objects["shop-web"]["spec"]["replicas"] == 7
    assert world.objects["shop-web"]["spec"]["task"] == {"image": "app:2"}


def test_a_new_number_in_the_stack_is_applied(world: World) -> None:
    world.settle(stack(entry("web", replicas=3)))
    world.patch("shop-web", {"spec": {"replicas": 7}})
    world.settle(stack(entry("web", replicas=5)))
    assert world.objects["shop-web"]["spec"]["replicas"] == 5


def test_replicas_that_leave_the_stack_stay_as_they_are(world: World) -> None:
    world.settle(stack(entry("web", replicas=3)))
    world.settle(stack(entry("web")))
    assert world.objects["shop-web"]["spec"]["replicas"] == 3
    world.patch("shop-web", {"spec": {"replicas": 9}})
    world.settle(stack(entry("web")))
    assert world.objects["shop-web"]["spec"]["replicas"] == 9


def test_the_same_number_written_again_later_is_applied(world: World) -> None:
    world.settle(stack(entry("web", replicas=3)))
    world.settle(stack(entry("web")))
    world.patch("shop-web", {"spec": {"replicas": 9}})
    world.settle(stack(entry("web", replicas=3)))
    assert world.objects["shop-web"]["spec"]["replicas"] == 3


def test_a_restart_by_hand_lasts(world: World) -> None:
    world.settle(stack(entry("web")))
    world.patch("shop-web", {"spec": {"restartToken": "now"}})
    world.settle(stack(entry("web")))
    assert world.objects["shop-web"]["spec"]["restartToken"] == "now"
    world.settle(stack(entry("web", restartToken="later")))
    assert world.objects["shop-web"]["spec"]["restartToken"] == "later"


def test_a_suspension_ends_when_it_leaves_the_stack_but_not_one_by_hand(world: World) -> None:
    world.settle(stack(entry("web", suspend=True)))
    world.settle(stack(entry("web")))
    assert world.objects["shop-web"]["spec"]["suspend"] is False
    world.patch("shop-web", {"spec": {"suspend": True}})
    world.settle(stack(entry("web")))
    assert world.objects["shop-web"]["spec"]["suspend"] is True


def test_a_lost_memory_never_scales_down(world: World) -> None:
    world.settle(stack(entry("web", replicas=3)))
    world.patch("shop-web", {"metadata": {"annotations": {REMEMBERED: None}}, "spec": {"replicas": 7}})
    world.settle(stack(entry("web", replicas=3)))
    assert world.objects["shop-web"]["spec"]["replicas"] == 7
    assert REMEMBERED in world.objects["shop-web"]["metadata"]["annotations"]


@pytest.mark.parametrize("memory", ["", "{", "[1]", "null"])
def test_a_damaged_memory_lets_the_stack_decide(world: World, memory: str) -> None:
    world.settle(stack(entry("web", replicas=3)))
    world.patch("shop-web", {"metadata": {"annotations": {REMEMBERED: memory}}, "spec": {"replicas": 7}})
    world.settle(stack(entry("web", replicas=3)))
    assert world.objects["shop-web"]["spec"]["replicas"] == 3


# --- what leaves, and what is not ours


def test_a_service_that_left_is_deleted(world: World) -> None:
    world.settle(stack(entry("web"), entry("db")))
    assert describe(world, stack(entry("web"))) == ["delete Service shop-db: it left the Stack"]


def test_without_prune_a_service_that_left_is_kept(world: World) -> None:
    world.settle(stack(entry("web"), entry("db")))
    plan = world.settle(stack(entry("web"), prune=False))
    assert set(world.objects) == {"shop-web", "shop-db"}
    assert plan.kept == ("shop-db",)


@pytest.mark.parametrize(
    ("owner", "whose"),
    [
        (None, "belongs to no Stack"),
        ({"kind": "Stack", "name": "old", "uid": "stack-0", "controller": True}, "belongs to Stack old"),
        ({"kind": "Stack", "name": "shop", "uid": "stack-0", "controller": True}, "belongs to Stack shop"),
        ({"kind": "Stack", "name": "shop", "uid": "stack-1", "controller": False}, "belongs to no Stack"),
    ],
    ids=["of nobody", "of another Stack", "of an earlier Stack of that name", "of no controller"],
)
def test_a_service_that_is_not_ours_is_never_touched(owner: dict[str, Any] | None, whose: str) -> None:
    world = World(other("shop-web", owner))
    plan = world.settle(stack(entry("web"), entry("db")))
    (hindrance,) = plan.hindrances
    assert (hindrance.reason, hindrance.stalled) == ("NameConflict", True)
    assert whose in hindrance.message
    assert "kubectl delete ssvc shop-web" in hindrance.message
    assert world.objects["shop-web"]["spec"]["task"] == {"image": "other:1"}
    assert "shop-db" in world.objects


def test_a_service_of_another_namespace_is_not_seen() -> None:
    world = World(other("shop-web"))
    world.objects["shop-web"]["metadata"]["namespace"] = "elsewhere"
    assert describe(world, stack(entry("web"))) == ["create Service shop-web"]


def test_a_service_that_is_being_deleted_is_waited_for(world: World) -> None:
    wanted = stack(entry("web"))
    world.settle(wanted)
    world.objects["shop-web"]["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00Z"
    plan = plan_stack(wanted, world.services)
    assert plan.writes == ()
    assert [(one.reason, one.stalled) for one in plan.hindrances] == [("BeingDeleted", False)]


def test_a_service_that_left_and_came_back_in_another_mode_is_made_anew(world: World) -> None:
    world.settle(stack(entry("web")))
    before = world.objects["shop-web"]["metadata"]["uid"]
    world.settle(stack(entry("web", mode="Global")))
    assert world.objects["shop-web"]["spec"]["mode"] == "Global"
    assert world.objects["shop-web"]["metadata"]["uid"] != before


def test_a_stack_that_is_being_deleted_does_nothing(world: World) -> None:
    going = stack(entry("web")).model_copy(
        update={"metadata": stack().metadata.model_copy(update={"deletion_timestamp": "2026-11-24T12:00:00Z"})}
    )
    assert plan_stack(going, world.services).writes == ()


def test_a_name_that_fits_no_label_is_said_so(world: World) -> None:
    plan = plan_stack(stack(entry("web-of-thirty-characters-most"), name="shop-of-more-than-thirty-characters"), world.services)
    assert plan.hindrances[0].reason == "NameTooLong"
    assert plan.writes == ()


# --- for any Stack

settings = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 9),
        "suspend": st.booleans(),
        "restartToken": st.sampled_from(["", "a", "b"]),
        "update": st.fixed_dictionaries({}, optional={"parallelism": st.integers(1, 3), "delay": st.sampled_from(["0s", "5s"])}),
        "unreachable": st.sampled_from([{}, {"policy": "Keep"}, {"after": "1m"}]),
        "task": st.sampled_from(
            [
                {"image": "app:1"},
                {"image": "app:2", "env": [{"name": "A", "value": ""}]},
                {"imageRef": {"name": "app"}, "healthcheck": {"tcp": {"port": 1}}},
                {"image": "app:1", "healthcheck": {"disabled": True}, "stopGracePeriod": "10s"},
            ]
        ),
    },
)
entries = st.dictionaries(st.sampled_from(["web", "db", "cache"]), settings).map(
    lambda chosen: [entry(name, **fields) for name, fields in chosen.items()]
)


@given(before=entries, after=entries, prune=st.booleans())
def test_any_change_is_reached_and_then_nothing_is_left_to_do(before: list[Any], after: list[Any], prune: bool) -> None:
    world = World()
    world.settle(stack(*before))
    wanted = stack(*after, prune=prune)
    world.settle(wanted)
    for service in wanted.spec.services:
        made = Service.parse(world.objects[f"shop-{service.name}"]).spec
        assert made.task == service.task
        assert made.update == service.update
        assert made.replicas == service.replicas or service.replicas is None
    assert prune <= (set(world.objects) == {f"shop-{service.name}" for service in wanted.spec.services})


@given(before=entries, by_hand=settings)
def test_whatever_is_done_by_hand_the_stack_comes_to_rest(before: list[Any], by_hand: dict[str, Any]) -> None:
    world = World()
    wanted = stack(*before)
    world.settle(wanted)
    for name in world.objects:
        world.patch(name, {"spec": {key: value for key, value in by_hand.items() if key != "task"}})
    world.settle(wanted)
    for name in world.objects:
        assert by_hand.get("replicas") in (None, world.objects[name]["spec"]["replicas"])


@given(first=entries, second=entries, data=st.data())
def test_the_order_of_services_does_not_matter(first: list[Any], second: list[Any], data: st.DataObject) -> None:
    world = World()
    world.settle(stack(*first))
    shuffled = data.draw(st.permutations(world.services))
    one, other_one = plan_stack(stack(*second), world.services), plan_stack(stack(*second), shuffled)
    assert one == other_one


leaves = st.booleans() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
objects = st.dictionaries(st.sampled_from("abc"), leaves | st.dictionaries(st.sampled_from("abc"), leaves, max_size=3), max_size=3)


@given(objects, objects)
def test_a_merge_patch_makes_the_one_of_the_other(have: dict[str, Any], want: dict[str, Any]) -> None:
    assert merged(have, merge_patch(have, want)) == want
    assert (merge_patch(have, want) == {}) == (have == want)
