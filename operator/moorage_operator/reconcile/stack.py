"""A Stack: make its Services what it says, and say how they are."""

from __future__ import annotations

from moorage_operator.api import ORPHAN_FINALIZER, Service, Stack
from moorage_operator.errors import AlreadyExists, Forbidden, Invalid
from moorage_operator.kube.object import Key
from moorage_operator.kube.resource import SERVICES, STACKS
from moorage_operator.plan.stack import CreateService, DeleteService, PatchService, plan_stack
from moorage_operator.plan.stack_status import stack_status
from moorage_operator.reconcile import indexes
from moorage_operator.reconcile.refusals import RETRY_S
from moorage_operator.reconcile.together import together
from moorage_operator.reconcile.world import World, key_of_model


async def reconcile_stack(key: Key, world: World) -> float | None:
    stack = world.stacks.get(key)
    if stack is not None and ORPHAN_FINALIZER in stack.metadata.finalizers:
        return None  # kubectl delete --cascade=orphan: the cluster's garbage collector takes the owner off the Services
    if stack is None or stack.metadata.deletion_timestamp is not None:
        await _delete_services(key, stack, world)
        return None
    plan = plan_stack(stack, world.services.by(indexes.NAMESPACE, key.namespace))
    failures: dict[str, str] = {}
    await together(_write(step, key.namespace, world, failures) for step in plan.writes)
    services = world.services.by(indexes.NAMESPACE, key.namespace)
    world.write_status(STACKS, stack, stack_status(stack, services, plan, failures=failures, now=world.now()))
    return RETRY_S if failures else None


async def _write(step: CreateService | PatchService | DeleteService, namespace: str, world: World, failures: dict[str, str]) -> None:
    """One write. What the API server refuses is told in the Stack's status, beside what went well."""
    key, cache = Key(namespace, step.name), world.services.raw
    try:
        match step:
            case CreateService():
                cache.put(await world.api.create(SERVICES, step.body))
            case PatchService():
                metadata = {**step.patch.get("metadata", {}), "uid": step.uid}
                cache.put(await world.api.patch(SERVICES, key, {**step.patch, "metadata": metadata}))
            case DeleteService():
                if await world.api.delete(SERVICES, key, uid=step.uid) is None:
                    cache.remove(key, uid=step.uid)
    except AlreadyExists:
        return  # the watch will show whose it is
    except (Invalid, Forbidden) as error:
        failures[step.name] = str(error)


async def _delete_services(key: Key, stack: Stack | None, world: World) -> None:
    """A Stack that goes takes its Services along. The cluster's garbage collector does it too, four times slower, and not at all for half a
    minute after the CRDs were installed.
    """
    await together(_delete(service, world) for service in _left_behind(key, stack, world) if service.metadata.deletion_timestamp is None)


def _left_behind(key: Key, stack: Stack | None, world: World) -> list[Service]:
    """By uid: a Stack of the same name made anew has nothing to do with them."""
    if stack is not None:
        return world.services.by(indexes.OWNER, stack.metadata.uid)
    owned = [(service, service.metadata.controller) for service in world.services.by(indexes.NAMESPACE, key.namespace)]
    return [
        service
        for service, owner in owned
        if owner is not None and (owner.kind, owner.name) == ("Stack", key.name) and world.stacks.raw.by_uid(owner.uid) is None
    ]


async def _delete(service: Service, world: World) -> None:
    """As it was seen: it may have lost its owner meanwhile, and stays then."""
    key, meta = key_of_model(service), service.metadata
    if await world.api.delete(SERVICES, key, uid=meta.uid, version=meta.resource_version) is None:
        world.services.raw.remove(key, uid=service.metadata.uid)
