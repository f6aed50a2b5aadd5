"""A Service: plan it, carry the plan out, say how it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moorage_operator.api import Image, Service, ServiceStatus, Task
from moorage_operator.errors import InvalidSpec
from moorage_operator.kube.object import Key, Obj
from moorage_operator.kube.resource import SERVICES
from moorage_operator.plan.container_data import data_objects
from moorage_operator.plan.pending import pending_needs
from moorage_operator.plan.placement_outcome import Placement, Unplaceable
from moorage_operator.plan.service import plan_slots
from moorage_operator.plan.service_plan import ServicePlan, TaskDraft
from moorage_operator.plan.service_status import refused_status, service_status
from moorage_operator.plan.slot_task import slot_task
from moorage_operator.reconcile import indexes
from moorage_operator.reconcile.image import drop_unused_images, image_of_service
from moorage_operator.reconcile.placer import Outcome
from moorage_operator.reconcile.refusals import Refusals
from moorage_operator.reconcile.task import create_task, let_run, orphan_task, place_task, stop_task
from moorage_operator.reconcile.together import together
from moorage_operator.reconcile.world import World, key_of_model, seconds_until

COUNTS_S = 0.5
"""Counts of tasks change with each task of a burst; they are written once per so long."""


async def reconcile_service(key: Key, world: World) -> float | None:
    service = world.services.get(key)
    if service is None or service.metadata.deletion_timestamp is not None:
        await _stop_all(key, world)
        return None
    try:
        return await _reconcile(service, world)
    except InvalidSpec as error:
        world.write_status(SERVICES, service, refused_status(service, error, now=world.now()))
        raise


async def _reconcile(service: Service, world: World) -> float | None:
    key = key_of_model(service)
    data = await world.data.versions(data_objects(service.spec.task, key.namespace))
    refusals, image = _refusals(service, world), None
    with refusals.noted("Image", now=world.now()):
        image = await image_of_service(service, world, may_create=not refusals.hold(now=world.now()))
    # From here to the first write nothing is awaited: plan and placement see one state of the world.
    now = world.now()
    tasks = world.tasks.every(indexes.SERVICE, str(key))
    wish = world.wishes.of(service, image, data)
    plan = plan_slots(wish, map(slot_task, tasks), world.placer.view.fleet(), world.losses(), now=now)
    unplaceable = await _carry_out(plan, service, image, refusals, world)
    plan = replace(plan, problems=(*refusals.problems(), *plan.problems)) if refusals.until else plan
    _remember(key, unplaceable, world)
    latest = world.tasks.by(indexes.SERVICE, str(key))
    status = service_status(service, latest, plan, image=image, unplaceable=unplaceable, now=now)
    world.write_status(SERVICES, service, status, after_s=0.0 if _is_news(service, status) else COUNTS_S)
    await drop_unused_images(service, world)
    return seconds_until(min(filter(None, (plan.requeue_at, refusals.until)), default=None), world.now())


def _refusals(service: Service, world: World) -> Refusals:
    """What was refused is no longer of interest once spec asks for something else."""
    uid, generation = service.metadata.uid, service.metadata.generation
    known = world.refusals.get(uid)
    if known is None or known.generation != generation:
        known = world.refusals[uid] = Refusals(generation)
    return known


async def _carry_out(plan: ServicePlan, service: Service, image: Image | None, refusals: Refusals, world: World) -> list[Unplaceable]:
    """What frees a place first, then what takes one. Returns why tasks have no node."""
    namespace = service.metadata.namespace
    for orphan in plan.orphan:
        task = world.tasks.by_uid(orphan.uid)
        if task is not None:
            orphan_task(world, task, orphan.message, now=world.now())
            world.events.record(_about(world, task), "NodeLost", orphan.message, warning=True)
    await together(stop_task(world, namespace, step.name, step.uid) for step in plan.stop)
    await together(let_run(world, namespace, step.name, step.uid) for step in plan.advance)
    return [*await _place_pending(plan, service, image, world), *await _create(plan.create, service, image, refusals, world)]


async def _create(
    drafts: Sequence[TaskDraft], service: Service, image: Image | None, refusals: Refusals, world: World
) -> list[Unplaceable]:
    if refusals.hold(now=world.now()):
        return []
    outcomes = await world.placer.place([draft.needs for draft in drafts])
    placed = list(zip(drafts, outcomes, strict=True))
    worth = [(draft, outcome) for draft, outcome in placed if draft.worth_it(_node(outcome))]
    for draft in (draft for draft, outcome in placed if not draft.worth_it(_node(outcome))):
        world.placer.forget(draft.needs)

    async def create(draft: TaskDraft, outcome: Outcome) -> None:
        with refusals.noted("Task", now=world.now()):
            await create_task(world, service, image, draft, outcome)

    await together(create(draft, outcome) for draft, outcome in worth)
    return [outcome for _, outcome in worth if isinstance(outcome, Unplaceable)]


async def _place_pending(plan: ServicePlan, service: Service, image: Image | None, world: World) -> list[Unplaceable]:
    """Tasks that found no node when they were made, and are not about to be stopped."""
    going = {step.uid for step in plan.stop}
    pending = [
        task for task in world.tasks.by(indexes.SERVICE, str(key_of_model(service))) if _waits(task) and task.metadata.uid not in going
    ]
    if not pending:
        return []
    needs = [pending_needs(service, task, image) for task in pending]
    outcomes = await world.placer.place(needs)
    await together(place_task(world, *each, image) for each in zip(pending, needs, outcomes, strict=True))
    return [outcome for outcome in outcomes if isinstance(outcome, Unplaceable)]


def _node(outcome: Placement | Unplaceable) -> str | None:
    return outcome.node if isinstance(outcome, Placement) else None


def _waits(task: Task) -> bool:
    return task.spec.node_name is None and task.metadata.deletion_timestamp is None and task.status.state in (None, "Pending")


def _is_news(service: Service, status: ServiceStatus) -> bool:
    """More than numbers: what somebody may wait for."""
    before = service.status
    told = {condition.type: (condition.status, condition.reason) for condition in before.conditions}
    update = (before.update and before.update.state, status.update and status.update.state)
    return (
        before.observed_generation != status.observed_generation
        or update[0] != update[1]
        or any(told.get(condition.type) != (condition.status, condition.reason) for condition in status.conditions)
    )


def _remember(key: Key, unplaceable: Sequence[Unplaceable], world: World) -> None:
    if unplaceable:
        world.unplaced.add(key)
    else:
        world.unplaced.discard(key)


async def _stop_all(key: Key, world: World) -> None:
    """The Service is gone: its Tasks go at once. The cluster's garbage collector would do it too, four times slower."""
    world.unplaced.discard(key)
    tasks = [task for task in world.tasks.by(indexes.SERVICE, str(key)) if task.metadata.deletion_timestamp is None]
    await together(stop_task(world, key.namespace, task.metadata.name, task.metadata.uid) for task in tasks)


def _about(world: World, task: Task) -> Obj:
    return world.tasks.raw.by_uid(task.metadata.uid) or {"metadata": {"name": task.metadata.name}}
