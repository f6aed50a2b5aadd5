"""Before the operator goes: what still needs it, and how to give up what no host will ever confirm.

`python -m moorage_operator uninstall-guard` ends with 0 when nothing needs it, else with 1 and the reason. The chart runs it before it
removes anything. With --release-finalizers it first lets go what is being deleted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from moorage_operator.api import NODE_FINALIZER, TASK_FINALIZER
from moorage_operator.errors import Conflict, MoorageError, NotFound
from moorage_operator.kube import login
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import Clock, SystemClock
from moorage_operator.kube.object import Obj, deleting, key_of, uid_of
from moorage_operator.kube.resource import NODES, SERVICES, STACKS, TASKS, Resource
from moorage_operator.settings import Settings

log = logging.getLogger(__name__)

SHORT = {STACKS: "sstk", SERVICES: "ssvc", TASKS: "stask", NODES: "snode"}
FINALIZERS = {TASKS: TASK_FINALIZER, NODES: NODE_FINALIZER}
NAMED = 3

SETTLE_S = 5.0
"""Deleting a Service deletes its Tasks a second or two later: so long is looked again after the last release."""

LOOK_EVERY_S = 0.5

AGENT = "python3 -I -S -E /var/lib/moorage/agent/current uninstall --yes"


@dataclass(frozen=True)
class Left:
    """Objects that need the operator, by kind."""

    objects: dict[Resource, list[Obj]]

    def describe(self) -> str:
        """ "2 Stacks (shop/web, shop/db) and 1 Node (n1)"; empty when there is nothing."""
        parts = [_counted(resource.kind, objects) for resource, objects in self.objects.items() if objects]
        return " and ".join([", ".join(parts[:-1]), parts[-1]] if parts[1:] else parts)

    @property
    def held(self) -> bool:
        """Whether something is being deleted and does not go."""
        return any(deleting(obj) for objects in self.objects.values() for obj in objects)


async def guard(settings: Settings, *, deployment: str, release_finalizers: bool) -> int:
    """The verb: says how it stands, and returns the exit code. 2 when it could not look."""
    clock = SystemClock()
    try:
        async with KubeApi(login.load(clock=clock), clock=clock) as api:
            nodes = await release(api, settings.served, clock=clock) if release_finalizers else []
            found = await left(api, settings.served)
    except MoorageError as error:
        sys.stdout.write(f"cannot tell whether the operator may be uninstalled: {error}\n")
        return 2
    if nodes:
        sys.stdout.write(farewell(nodes) + "\n")
    if found.describe():
        sys.stdout.write(refusal(found, namespace=settings.namespace, deployment=deployment) + "\n")
        return 1
    sys.stdout.write("nothing needs the operator: it may be uninstalled\n")
    return 0


async def left(api: KubeApi, namespaces: Sequence[str]) -> Left:
    """`namespaces` as Settings.served."""
    return Left({resource: await _all(api, resource, namespaces) for resource in SHORT})


async def release(api: KubeApi, namespaces: Sequence[str], *, clock: Clock) -> list[Obj]:
    """Take our finalizers off what is being deleted, until nothing more comes. What is not being deleted is not touched.

    Returns the Nodes let go: nobody uninstalled their agents, and their containers run on if the hosts live.
    """
    nodes: list[Obj] = []
    until = clock.monotonic() + SETTLE_S
    while clock.monotonic() < until:
        for resource, finalizer in FINALIZERS.items():
            for obj in await _all(api, resource, namespaces):
                if deleting(obj) and finalizer in obj["metadata"].get("finalizers", ()) and await _let_go(api, resource, obj, finalizer):
                    log.info("finalizer released", extra={"kind": resource.kind, "object": str(key_of(obj))})
                    nodes += [obj] if resource is NODES else []
                    until = clock.monotonic() + SETTLE_S
        await clock.sleep(LOOK_EVERY_S)
    return nodes


def refusal(found: Left, *, namespace: str, deployment: str) -> str:
    """Why, and the commands that lead out."""
    lines = [
        f"not uninstalled: {found.describe()} exist. Without the operator nobody stops their containers, "
        "and finalizers hold Tasks and Nodes for ever. Delete them and wait until they are gone:",
        "  kubectl delete sstk,ssvc --all --all-namespaces",
        "  kubectl delete snode --all",
    ]
    if found.held:
        lines += [
            "What is being deleted and does not go waits for a host that does not answer. If that host is gone for good, let go of it:",
            f"  kubectl exec -n {namespace} deploy/{deployment} -- python -m moorage_operator uninstall-guard --release-finalizers",
        ]
    return "\n".join(lines)


def farewell(nodes: Iterable[Obj]) -> str:
    """What is left to do on the hosts of Nodes that were let go."""
    hosts = [f"  {key_of(node)} ({node['spec']['ssh']['host']})" for node in nodes]
    return "\n".join(["if one of these hosts still lives, its containers run on; to remove them, run there as root", f"  {AGENT}", *hosts])


async def _all(api: KubeApi, resource: Resource, namespaces: Sequence[str]) -> list[Obj]:
    """None of a kind that does not exist: then there is nothing of it."""
    found: list[Obj] = []
    for namespace in namespaces if resource.namespaced else ("",):
        try:
            found += (await api.list(resource, namespace=namespace)).items
        except NotFound:
            continue
    return found


async def _let_go(api: KubeApi, resource: Resource, obj: Obj, finalizer: str) -> bool:
    """False when it changed meanwhile: the next look sees how."""
    metadata = obj["metadata"]
    others = [name for name in metadata["finalizers"] if name != finalizer]
    # With the version: a finalizer that somebody added meanwhile is not ours to take off.
    patch = {"uid": uid_of(obj), "resourceVersion": metadata["resourceVersion"], "finalizers": others or None}
    try:
        await api.patch(resource, key_of(obj), {"metadata": patch})
    except (Conflict, NotFound):
        return False
    return True


def _counted(kind: str, objects: Sequence[Obj]) -> str:
    names = ", ".join(str(key_of(obj)) for obj in objects[:NAMED])
    more = ", ..." if len(objects) > NAMED else ""
    return f"{len(objects)} {kind}{'s' if len(objects) > 1 else ''} ({names}{more})"
