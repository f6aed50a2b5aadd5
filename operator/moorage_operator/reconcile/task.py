"""A Task's writes: creation with its node, its place later on, its status, its end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from moorage_operator.api import (
    SERVICE_LABEL,
    SLOT_LABEL,
    STACK_LABEL,
    TASK_FINALIZER,
    Image,
    Service,
    Task,
    owner_reference,
)
from moorage_operator.errors import AlreadyExists, NamespaceEnds, NotFound
from moorage_operator.kube.object import Key, Obj
from moorage_operator.kube.resource import TASKS
from moorage_operator.plan.placement_needs import TaskNeeds
from moorage_operator.plan.placement_outcome import Placement, Unplaceable
from moorage_operator.plan.service_plan import TaskDraft
from moorage_operator.plan.service_wish import stack_of
from moorage_operator.plan.slot_task import HOME_ANNOTATION
from moorage_operator.plan.task import orphaned_status, pending_status
from moorage_operator.reconcile.world import World, key_of_model


async def create_task(world: World, service: Service, image: Image | None, draft: TaskDraft, outcome: Placement | Unplaceable) -> None:
    """Creating it twice is harmless: the name says which Task it is."""
    node = outcome.node if isinstance(outcome, Placement) else None
    try:
        created = await world.api.create(TASKS, task_body(service, image, draft, node))
    except (AlreadyExists, NamespaceEnds):
        world.placer.forget(draft.needs)
        return
    except BaseException:
        world.placer.forget(draft.needs)
        raise
    world.tasks.raw.put(created)
    if isinstance(outcome, Unplaceable):
        _say_pending(world, world.tasks.of(created), outcome)


async def place_task(world: World, task: Task, needs: TaskNeeds, outcome: Placement | Unplaceable, image: Image | None) -> None:
    """Give a Pending Task its node, or say why it still has none."""
    if isinstance(outcome, Unplaceable):
        _say_pending(world, task, outcome)
        return
    body: Obj = {"metadata": {"uid": task.metadata.uid}, "spec": {"nodeName": outcome.node}}
    if image is not None and task.spec.image is None:
        body["spec"]["image"] = _image(image)
    try:
        world.tasks.raw.put(await world.api.patch(TASKS, key_of_model(task), body))
    except NotFound:
        world.placer.forget(needs)
    except BaseException:
        world.placer.forget(needs)
        raise


async def let_run(world: World, namespace: str, name: str, uid: str) -> None:
    body = {"metadata": {"uid": uid}, "spec": {"desiredState": "Running"}}
    try:
        world.tasks.raw.put(await world.api.patch(TASKS, Key(namespace, name), body))
    except NotFound:
        return


async def stop_task(world: World, namespace: str, name: str, uid: str) -> None:
    """Deleting a Task means stopping it; its finalizer holds it until the container is gone."""
    key = Key(namespace, name)
    held = await world.api.delete(TASKS, key, uid=uid)
    if held is None:
        world.tasks.raw.remove(key, uid=uid)
    else:
        world.tasks.raw.put(held)


async def release_task(world: World, task: Task) -> None:
    """Take our finalizer off: nothing of the Task is left anywhere, or nobody waits for its node any more."""
    others = [name for name in task.metadata.finalizers if name != TASK_FINALIZER]
    key = key_of_model(task)
    body = {"metadata": {"uid": task.metadata.uid, "finalizers": others or None}}
    try:
        left = await world.api.patch(TASKS, key, body)
    except NotFound:
        world.tasks.raw.remove(key, uid=task.metadata.uid)
        return
    if left["metadata"].get("deletionTimestamp") and not left["metadata"].get("finalizers"):
        world.tasks.raw.remove(key, uid=task.metadata.uid)
    else:
        world.tasks.raw.put(left)


def orphan_task(world: World, task: Task, message: str, *, now: datetime) -> None:
    status = orphaned_status(task, message, now=now)
    if status is not None:
        world.write_status(TASKS, task, status)


def task_body(service: Service, image: Image | None, draft: TaskDraft, node: str | None) -> Obj:
    stack = stack_of(service)
    labels = {SERVICE_LABEL: service.metadata.name, SLOT_LABEL: draft.slot} | ({STACK_LABEL: stack} if stack else {})
    spec: dict[str, Any] = {
        "service": service.metadata.name,
        "stack": stack,
        "slot": draft.slot,
        "attempt": draft.attempt,
        "version": draft.version,
        "replaces": draft.replaces,
        "handover": draft.handover,
        "stopAfter": draft.stop_after,
        "container": draft.container,
        "desiredState": draft.desired_state,
        "image": None if image is None else _image(image),
        "nodeName": node,
    }
    metadata: dict[str, Any] = {
        "namespace": service.metadata.namespace,
        "name": draft.name,
        "labels": labels,
        "finalizers": [TASK_FINALIZER],
        "ownerReferences": [owner_reference("Service", service.metadata)],
    }
    if node is None and draft.needs.home is not None:
        metadata["annotations"] = {HOME_ANNOTATION: draft.needs.home.node}
    return {"metadata": metadata, "spec": _without_none(spec)}


def _image(image: Image) -> dict[str, Any]:
    return {"name": image.metadata.name, "digest": image.status.digest}


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _say_pending(world: World, task: Task | None, why: Unplaceable) -> None:
    status = None if task is None else pending_status(task, why, now=world.now())
    if task is not None and status is not None:
        world.write_status(TASKS, task, status)
