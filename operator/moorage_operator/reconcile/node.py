"""A Node: keep a session to its host, say how it is, let it go in order."""

from __future__ import annotations

from moorage_operator.api import NODE_FINALIZER, Node, find
from moorage_operator.errors import AgentError, InvalidSpec, NodeUnavailable, NotFound
from moorage_operator.fleet.link import Link
from moorage_operator.kube.object import Key
from moorage_operator.kube.resource import NODES
from moorage_operator.plan.fleet_view_load import Load
from moorage_operator.plan.loss import Losses
from moorage_operator.plan.node import node_status
from moorage_operator.plan.node_condition import Agent
from moorage_operator.plan.node_contact import SILENT_AFTER_S, Contact, connecting, silent
from moorage_operator.plan.node_removal import Removal, RemovalStep, node_removal
from moorage_operator.plan.task import ENDED, task_state
from moorage_operator.reconcile import indexes
from moorage_operator.reconcile.target import target_of
from moorage_operator.reconcile.task import release_task
from moorage_operator.reconcile.world import World, key_of_model

LOOK_AGAIN_S = 5.0
NO_LOSSES = Losses(frozenset())
"""Enough to say how a node is that is heard."""


async def reconcile_node(key: Key, world: World) -> float | None:
    node = world.nodes.get(key)
    if node is None:
        await _drop_strangers(world)
        return None
    if node.metadata.deletion_timestamp is None and NODE_FINALIZER not in node.metadata.finalizers:
        node = await _hold(node, world)
    contact = await _contact(node, world)
    step = _step_out(node, contact, world)
    if step is None or step.removal in (Removal.DRAIN, Removal.WAIT):
        _say(node, contact, step, world)
        return _next_look(contact, world)
    if step.removal is Removal.UNINSTALL and not await _uninstall(node, contact, step, world):
        return LOOK_AGAIN_S
    await _release(node, world)
    return None


async def _hold(node: Node, world: World) -> Node:
    """Nothing is put on a host before its Node cannot vanish without us noticing."""
    body = {"metadata": {"resourceVersion": node.metadata.resource_version, "finalizers": [*node.metadata.finalizers, NODE_FINALIZER]}}
    held = await world.api.patch(NODES, key_of_model(node), body)
    world.nodes.raw.put(held)
    return world.nodes.of(held) or node


async def _contact(node: Node, world: World) -> Contact:
    """Keep the session as the Node says now. One that stands is not given up because its Secret vanished."""
    if node.metadata.uid in world.uninstalled:
        return Link(reason="Uninstalled", message="the agent is uninstalled")
    try:
        world.fleet.keep(node.metadata.uid, await target_of(node, world))
    except InvalidSpec as error:
        standing = world.fleet.link(node.metadata.uid)
        if standing is not None and standing.connected:
            return standing
        return Link(reason=error.reason, message=str(error))
    return world.fleet.link(node.metadata.uid) or Link()


def _say(node: Node, contact: Contact, removal: RemovalStep | None, world: World) -> None:
    if removal is None and connecting(contact) and node.status.observed_generation == node.metadata.generation:
        return  # what was true before this process began is not denied before the first attempt has ended
    view = world.placer.view.fleet().nodes.get(node.metadata.name)
    status = node_status(
        node,
        contact,
        view.load if view is not None else Load(),
        world.losses() if silent(contact, now=world.now()) else NO_LOSSES,
        agent=Agent(world.fleet.archive.sha256),
        removal=removal,
        leading_since=world.leadership.since,
        now=world.now(),
    )
    if status is not None:
        world.write_status(NODES, node, status)


def _next_look(contact: Contact, world: World) -> float | None:
    """While frames come the session tells of every change; silence tells nothing, so it is looked at."""
    if contact.connected and not contact.reason:
        return None
    heard = contact.last_frame_at or 0.0
    left = heard + SILENT_AFTER_S - world.now().timestamp()
    return left + 0.1 if left > 0 else LOOK_AGAIN_S


async def _drop_strangers(world: World) -> None:
    """End the sessions whose Node is gone."""
    for uid, _ in list(world.fleet):
        if world.nodes.raw.by_uid(uid) is None:
            await world.fleet.drop(uid)
            world.uninstalled.discard(uid)


def _step_out(node: Node, contact: Contact, world: World) -> RemovalStep | None:
    """A Task that ended holds nothing on the host: it must not hold the Node either."""
    if node.metadata.deletion_timestamp is None:
        return None
    live = sum(task_state(task) not in ENDED for task in world.tasks.by(indexes.NODE, node.metadata.name))
    return node_removal(node, contact, tasks=live, uninstalled=node.metadata.uid in world.uninstalled)


async def _uninstall(node: Node, contact: Contact, step: RemovalStep, world: World) -> bool:
    """False: not yet, and the Node says why. The next try says no less, until it has an answer."""
    told = find(node.status.conditions, "Removing")
    if told is None or told.reason != step.removal.value:
        _say(node, contact, step, world)
    try:
        await world.fleet.session(node.metadata.uid).uninstall()
    except (NodeUnavailable, AgentError) as error:
        _say(node, contact, RemovalStep(step.removal, f"the agent is not uninstalled yet, it is asked again: {error}"), world)
        return False
    world.uninstalled.add(node.metadata.uid)
    return True


async def _release(node: Node, world: World) -> None:
    await world.fleet.drop(node.metadata.uid)
    for task in world.tasks.by(indexes.NODE, node.metadata.name):
        if task.metadata.deletion_timestamp is not None:
            await release_task(world, task)
    await _let_go(node, world)


async def _let_go(node: Node, world: World) -> None:
    others = [name for name in node.metadata.finalizers if name != NODE_FINALIZER]
    key = key_of_model(node)
    try:
        left = await world.api.patch(NODES, key, {"metadata": {"uid": node.metadata.uid, "finalizers": others or None}})
    except NotFound:
        world.nodes.raw.remove(key, uid=node.metadata.uid)
        return
    if left["metadata"].get("finalizers"):
        world.nodes.raw.put(left)
    else:
        world.nodes.raw.remove(key, uid=node.metadata.uid)
