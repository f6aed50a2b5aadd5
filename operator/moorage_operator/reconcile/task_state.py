"""A Task that somebody said something about: write what its agent reports, and let it go once nothing of it is left."""

from __future__ import annotations

from datetime import timedelta

from moorage_operator.api import TASK_FINALIZER, Task
from moorage_operator.kube.object import Key
from moorage_operator.kube.resource import TASKS
from moorage_operator.plan.loss import Fate, Verdict, verdict
from moorage_operator.plan.loss_rule import LossRule, loss_rule
from moorage_operator.plan.node_contact import answers
from moorage_operator.plan.task import task_status, write_at
from moorage_operator.reconcile.task import release_task
from moorage_operator.reconcile.world import World, key_of_model, seconds_until

LOOK_AGAIN_S = 5.0
STOPPING_S = 3.0
"""What a Task that is being deleted goes through is over before anybody has read it, unless it takes long."""


async def reconcile_task(key: Key, world: World) -> float | None:
    task = world.tasks.get(key)
    if task is None:
        return None
    if task.metadata.deletion_timestamp is not None and TASK_FINALIZER in task.metadata.finalizers:
        return await _let_go(task, world)
    return _say(task, world)


def _say(task: Task, world: World, *, patience_s: float = 0.0) -> float | None:
    """Write the latest report, now or when it is worth a write, `patience_s` later than that."""
    uid, now = task.metadata.uid, world.now()
    report = world.reports.latest(uid)
    status = None if report is None else task_status(task, report, now=now)
    if status is None:
        world.reports.written(uid)
        return None
    at = write_at(task.status, status, first_seen=world.reports.waiting_since(uid, now))
    wait = seconds_until(at, now - timedelta(seconds=patience_s)) or 0.0
    if wait > 0:
        return wait
    world.reports.written(uid)
    world.write_status(TASKS, task, status)
    return None


async def _let_go(task: Task, world: World) -> float | None:
    uid = task.metadata.uid
    if task.spec.node_name is None or world.reports.is_gone(uid) or world.reports.never_told(uid, node=_node_uid(task, world)):
        await release_task(world, task)
        world.reports.forget(uid)
        return None
    fate = _fate(task, world)
    if fate.fate is Fate.LOST:
        raw = world.raw(TASKS, key_of_model(task))
        if raw is not None:
            world.events.record(
                raw, "ReleasedUnconfirmed", f"{fate.message}: its container is stopped should the host return", warning=True
            )
        await release_task(world, task)
        return None
    if fate.fate is Fate.WAITS:
        _say_waiting(task, fate.message, world)
        return seconds_until(fate.at, world.now()) or LOOK_AGAIN_S
    link = world.fleet.link(_node_uid(task, world))
    if link is not None and not link.connected and answers(link):
        node = task.spec.node_name
        remedy = f"if the host is gone for good, set spec.outOfService on Node {node}"
        _say_waiting(task, f"node {node} takes no orders ({link.reason}: {link.message}); {remedy}", world)
        return LOOK_AGAIN_S
    return _say(task, world, patience_s=STOPPING_S)


def _say_waiting(task: Task, why: str, world: World) -> None:
    message = f"stopping: {why}"
    if task.status.message != message:
        world.write_status(TASKS, task, task.status.model_copy(update={"message": message}))


def _node_uid(task: Task, world: World) -> str:
    node = world.nodes.get(Key("", task.spec.node_name or ""))
    return "" if node is None else node.metadata.uid


def _fate(task: Task, world: World) -> Verdict:
    """What keeps a slot waiting for its node keeps a deleted Task too; not so for a node whose object is gone."""
    node, found = task.spec.node_name, world.losses()
    assert node is not None
    if node in found.given_up:
        return verdict(node, LossRule(), found, now=world.now())
    service = world.services.get(Key(task.metadata.namespace, task.spec.service))
    rule = LossRule() if service is None or node not in found.known else loss_rule(service.spec)
    return verdict(node, rule, found, now=world.now())
