"""From a Service and its Tasks to what must be done. Pure: no I/O, no clock; the same input in any order gives the same plan."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from moorage_operator.api import Image, Service, Task
from moorage_operator.plan.container_data import DataVersions
from moorage_operator.plan.fleet_view import Fleet, NodeView
from moorage_operator.plan.loss import Losses
from moorage_operator.plan.placement_demand import own_volumes
from moorage_operator.plan.placement_needs import Home, TaskNeeds
from moorage_operator.plan.rollout import Rollout, roll_out
from moorage_operator.plan.service_hosts import Hosts
from moorage_operator.plan.service_plan import START_FIRST, STOP_FIRST, Advance, Progress, ServicePlan, Stop, TaskDraft
from moorage_operator.plan.service_slot import look_at
from moorage_operator.plan.service_wish import Wish, wish_of
from moorage_operator.plan.slot_look import Look, Want
from moorage_operator.plan.slot_task import SlotTask, slot_task
from moorage_operator.plan.slots import Slots, by_slot, global_slots, replicated_slots


def plan_service(
    service: Service,
    tasks: Iterable[Task],
    fleet: Fleet,
    losses: Losses,
    *,
    image: Image | None,
    data: DataVersions,
    now: datetime,
) -> ServicePlan:
    """`tasks` are all of the Service, those being deleted too. `image` is the Image that task.imageRef names, or that task.image owns.

    `data` must know every object of `data_objects(service.spec.task, namespace)`. Raises InvalidSpec for a spec that no API server takes.
    """
    return plan_slots(wish_of(service, image, data), [slot_task(task) for task in tasks], fleet, losses, now=now)


def plan_slots(wish: Wish, tasks: Iterable[SlotTask], fleet: Fleet, losses: Losses, *, now: datetime) -> ServicePlan:
    slots = by_slot(tasks)
    homes = _wanted_slots(wish, slots, fleet)
    hosts = Hosts(fleet, losses, wish.loss_rule, now)
    looks = [look_at(slot, slots.get(slot, ()), wish, hosts, now) for slot in homes]
    rollout = roll_out(looks, wish)
    due = [at for look in looks for at in look.due]
    return ServicePlan(
        version=wish.version,
        orphan=tuple(orphan for look in looks for orphan in look.orphan),
        stop=(*_stops(looks, rollout), *_unwanted(slots, homes, wish, hosts)),
        advance=tuple(step for step in _opened(looks, rollout) if isinstance(step, Advance)),
        create=tuple(_draft(look, look.want, wish, hosts, homes[look.slot]) for look in rollout.granted if look.want is not None),
        problems=wish.problems,
        progress=_progress(looks, rollout),
        requeue_at=min(due, default=None),
    )


# --- slots


def _wanted_slots(wish: Wish, slots: Slots, fleet: Fleet) -> Mapping[str, NodeView | None]:
    """The slots there should be, a Global one with its node."""
    if wish.spec.suspend:
        return {}
    if wish.is_global:
        return dict(global_slots(slots, fleet, wish.demand))
    return dict.fromkeys(replicated_slots(slots, wish.spec.replicas, keep_low=wish.sticky))


def _unwanted(slots: Slots, wanted: Mapping[str, Any], wish: Wish, hosts: Hosts) -> Iterable[Stop]:
    """Of a Node that is there but cannot be read nobody knows whether a Global service belongs on it: what runs there stays."""
    why = "the Service is suspended" if wish.spec.suspend else "its node is not for this Service" if wish.is_global else "fewer replicas"
    for slot in sorted(slots.keys() - wanted.keys()):
        for task in slots[slot]:
            if not task.leaving and (wish.spec.suspend or not (wish.is_global and hosts.is_unreadable(task.node))):
                yield Stop(task.name, task.uid, why)


# --- steps


def _stops(looks: Sequence[Look], rollout: Rollout) -> Iterable[Stop]:
    for look in looks:
        yield from look.stop
    for look in rollout.opened:
        yield from (step for step in look.gate if isinstance(step, Stop))


def _opened(looks: Sequence[Look], rollout: Rollout) -> Iterable[Stop | Advance]:
    for look in looks:
        yield from look.advance
    for look in rollout.opened:
        yield from look.gate


def _draft(look: Look, want: Want, wish: Wish, hosts: Hosts, node: NodeView | None) -> TaskDraft:
    assert wish.version is not None
    name = task_name(wish, look.slot, look.attempt + 1)
    on_disconnect = wish.spec.on_disconnect
    return TaskDraft(
        name=name,
        slot=look.slot,
        attempt=look.attempt + 1,
        version=wish.version,
        container=_container(wish, want.attempts_used),
        needs=TaskNeeds(
            name=name,
            demand=wish.demand,
            replaces=want.replaces,
            start_first=wish.start_first,
            home=_home(look, wish, hosts, node),
            volumes=own_volumes(wish.compiled.container, wish.key.name, look.slot, alone=_alone(wish)),
        ),
        reason=want.reason,
        replaces=want.replaces,
        desired_state="Ready" if want.gated else "Running",
        handover=START_FIRST if wish.start_first else STOP_FIRST,
        stop_after=None if on_disconnect is None else on_disconnect.stop_after,
        leaves=want.leaves,
    )


def task_name(wish: Wish, slot: str, attempt: int) -> str:
    """The same for the same Task, so that creating it twice is a harmless conflict."""
    identity = f"{wish.uid}/{slot}/{attempt}/{wish.version}"
    return f"{wish.key.name}-{slot}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def _container(wish: Wish, attempts_used: int) -> Mapping[str, Any]:
    if not attempts_used:
        return wish.wire
    return {**wish.wire, "restart": {**wish.wire.get("restart", {}), "attemptsUsed": attempts_used}}


def _home(look: Look, wish: Wish, hosts: Hosts, node: NodeView | None) -> Home | None:
    if node is not None:
        return Home(node.name, "a task of a Global service")
    if not wish.sticky or look.home is None or not hosts.exists(look.home):
        return None
    return Home(look.home, "its volume is there" if wish.has_volume else "the Service is sticky")


def _alone(wish: Wish) -> bool:
    return not wish.is_global and wish.spec.replicas == 1


# --- progress


def _progress(looks: Sequence[Look], rollout: Rollout) -> Progress:
    return Progress(
        wanted=len(looks),
        done=sum(1 for look in looks if look.done),
        updated=sum(1 for look in looks if look.updated),
        stale=sum(1 for look in looks if look.stale),
        replacing=sum(1 for look in looks if look.busy),
        unsettled=sum(1 for look in looks if look.unsettled),
        failing=tuple(look.failing for look in looks if look.failing is not None),
        over=tuple(look.over for look in looks if look.over is not None),
        waiting=tuple(look.waiting for look in looks if look.waiting is not None),
        unheard=frozenset(look.slot for look in looks if look.unheard),
        paused=rollout.paused,
    )
