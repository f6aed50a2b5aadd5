"""A Stack's status says what its Services say, and what keeps one from being there."""

from __future__ import annotations

from datetime import timedelta

import pytest
from moorage_operator.api import Condition, Stack, StackStatus, find
from moorage_operator.plan.stack import plan_stack
from moorage_operator.plan.stack_status import stack_status

from tests.operator.plan.stack_world import NOON, World, entry, stack
from tests.operator.plan.test_stack import other


@pytest.fixture
def world() -> World:
    return World()


def look(world: World, wanted: Stack, **more: dict[str, str]) -> StackStatus:
    return stack_status(wanted, world.services, plan_stack(wanted, world.services), now=NOON, **more)


def condition(status: StackStatus, kind: str) -> Condition:
    found = find(status.conditions, kind)
    assert found is not None
    return found


def test_nothing_is_known_of_a_new_stack(world: World) -> None:
    wanted = stack(entry("web"), entry("db"))
    status = stack_status(wanted, (), plan_stack(wanted, ()), now=NOON)
    assert condition(status, "Ready").status == "Unknown"
    assert condition(status, "Progressing").status == "True"
    assert condition(status, "Stalled").status == "False"
    assert status.services_ready == "0/2"


def test_a_stack_is_ready_when_all_its_services_are(world: World) -> None:
    wanted = stack(entry("web"), entry("db"))
    world.settle(wanted)
    world.ready()
    status = look(world, wanted)
    assert condition(status, "Ready").status == "True"
    assert condition(status, "Ready").message == "2 services ready"
    assert condition(status, "Progressing").status == "False"
    assert status.services_ready == "2/2"
    assert [row.canonical() for row in status.services] == [
        {"name": "web", "replicasReady": "1/1", "ready": True},
        {"name": "db", "replicasReady": "1/1", "ready": True},
    ]


def test_an_empty_stack_is_ready(world: World) -> None:
    assert condition(look(world, stack()), "Ready").status == "True"


def test_a_service_that_is_not_ready_says_why(world: World) -> None:
    wanted = stack(entry("web", replicas=3), entry("db"))
    world.settle(wanted)
    world.ready()
    world.report("shop-web", ("Ready", "False", "2 of 3 tasks are ready"), ("Progressing", "True", ""), ready="2/3")
    status = look(world, wanted)
    assert condition(status, "Ready").status == "False"
    assert condition(status, "Ready").message == "1 of 2 services not ready: web: 2 of 3 tasks are ready"
    assert condition(status, "Progressing").message == "changing web"
    assert (status.services[0].replicas_ready, status.services[0].ready) == ("2/3", False)


def test_what_a_service_said_of_an_older_spec_does_not_count(world: World) -> None:
    wanted = stack(entry("web"))
    world.settle(wanted)
    world.ready()
    world.patch("shop-web", {"spec": {"replicas": 5}})
    assert condition(look(world, wanted), "Ready").status == "Unknown"


def test_a_change_on_its_way_is_not_ready(world: World) -> None:
    world.settle(stack(entry("web")))
    world.ready()
    status = look(world, stack(entry("web", task={"image": "app:2"})))
    assert condition(status, "Ready").status == "Unknown"
    assert condition(status, "Ready").reason == "ServicesChanging"
    assert condition(status, "Progressing").status == "True"


def test_a_taken_name_stalls_the_stack() -> None:
    status = look(World(other("shop-web")), stack(entry("web")))
    assert condition(status, "Ready").reason == "NameConflict"
    assert condition(status, "Stalled").status == "True"
    assert "kubectl delete ssvc shop-web" in condition(status, "Stalled").message
    assert condition(status, "Progressing").status == "False"


def test_a_stalled_service_stalls_the_stack(world: World) -> None:
    wanted = stack(entry("web"), entry("db"))
    world.settle(wanted)
    world.ready()
    world.report("shop-db", ("Ready", "False", "0 of 1"), ("Stalled", "True", "Secret db does not exist: create it"), ready="0/1")
    status = look(world, wanted)
    assert condition(status, "Stalled").message == "db: Secret db does not exist: create it"
    assert condition(status, "Ready").reason == "ServiceStalled"


def test_a_service_that_is_being_deleted_is_not_a_stall(world: World) -> None:
    wanted = stack(entry("web"))
    world.settle(wanted)
    world.objects["shop-web"]["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00Z"
    status = look(world, wanted)
    assert condition(status, "Stalled").status == "False"
    assert condition(status, "Progressing").status == "True"


def test_what_the_server_refused_is_shown(world: World) -> None:
    status = look(world, stack(entry("web")), failures={"shop-web": "the API server refused: quota exceeded"})
    assert condition(status, "Ready").status == "False"
    assert "quota exceeded" in condition(status, "Ready").message


def test_a_kept_service_is_listed_with_the_way_to_remove_it(world: World) -> None:
    world.settle(stack(entry("web"), entry("db")))
    world.ready()
    status = look(world, stack(entry("web"), prune=False))
    assert [row.name for row in status.services] == ["web", "db"]
    assert "kubectl delete ssvc shop-db" in (status.services[1].message or "")
    assert status.services_ready == "1/1"


def test_many_services_do_not_flood_the_message(world: World) -> None:
    wanted = stack(*(entry(f"s{number}") for number in range(9)))
    world.settle(wanted)
    for name in world.objects:
        world.report(name, ("Ready", "False", "no node"))
    assert condition(look(world, wanted), "Ready").message.endswith("; and 4 more")


def test_a_condition_keeps_its_time_until_it_changes(world: World) -> None:
    wanted = stack(entry("web"))
    world.settle(wanted)
    world.ready()
    earlier = look(world, wanted)
    later = stack_status(
        wanted.model_copy(update={"status": earlier}), world.services, plan_stack(wanted, world.services), now=NOON + timedelta(hours=1)
    )
    assert later == earlier
    world.report("shop-web", ("Ready", "False", "gone"), ("Progressing", "False", ""))
    changed = stack_status(
        wanted.model_copy(update={"status": earlier}), world.services, plan_stack(wanted, world.services), now=NOON + timedelta(hours=1)
    )
    assert condition(changed, "Ready").last_transition_time == NOON + timedelta(hours=1)
    assert condition(changed, "Progressing").last_transition_time == NOON
