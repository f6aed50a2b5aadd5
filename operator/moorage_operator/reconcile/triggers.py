"""Who has to look when something changed: from cache changes to keys of queues. Only enqueues; decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from moorage_operator.kube.cache import Change
from moorage_operator.kube.object import Key, Obj, deleting, key_of, uid_of
from moorage_operator.kube.resource import IMAGES, NODES, SERVICES, STACKS, TASKS
from moorage_operator.plan.placement_needs import ServiceKey
from moorage_operator.plan.value_key import of_object
from moorage_operator.reconcile import indexes
from moorage_operator.reconcile.world import World

SUMMARY_S = 1.0
"""Sums over many objects (a Node's tasks, an Image's nodes) may lag: their writes then count one burst, not each task of it."""


ROOM_S = 0.2
"""Nodes often come, go and change together: what looks at all of them looks once for many of these."""

PER_TASK_S = 0.002
"""A look at a Service costs some 20 µs per task. Of a burst of changes of its tasks it sees many at once, and each by itself soon."""


def connect(world: World) -> None:
    """Subscribe to every cache."""
    triggers = _Triggers(world)
    world.stacks.raw.subscribe(triggers.stack)
    world.services.raw.subscribe(triggers.service)
    world.images.raw.subscribe(triggers.image)
    world.nodes.raw.subscribe(triggers.node)
    world.tasks.raw.subscribe(triggers.task)


def data_changed(world: World, kind: str) -> Callable[[Change], None]:
    """The listener for the metadata cache of Secrets or ConfigMaps."""

    def changed(change: Change) -> None:
        name = f"{kind}/{change.key.namespace}/{change.key.name}"
        for service in world.services.raw.by(indexes.DATA, name):
            world.enqueue(SERVICES, key_of(service), 0.0)
        for image in world.images.raw.by(indexes.DATA, name):
            world.image_news.forget_attempts(uid_of(image))
            world.enqueue(IMAGES, key_of(image), 0.0)
        for uid in _readers(world, name):
            world.fleet.send_again(uid, partial(of_object, kind, change.key))
        if kind == "Secret" and change.key.namespace == world.settings.namespace:
            for node in world.nodes.raw.by(indexes.KEY_SECRET, change.key.name):
                world.enqueue(NODES, key_of(node), 0.0)

    return changed


def _readers(world: World, name: str) -> set[str]:
    """Uids of the Nodes whose documents name values of this object."""
    services = [str(key_of(service)) for service in world.services.raw.by(indexes.DATA, name)]
    images = [str(key_of(image)) for image in world.images.raw.by(indexes.DATA, name)]
    tasks = [task for key in services for task in world.tasks.raw.by(indexes.SERVICE, key)]
    tasks += [task for key in images for task in world.tasks.raw.by(indexes.TASK_IMAGE, key)]
    names = {str(task["spec"].get("nodeName") or "") for task in tasks}
    names |= {node for key in images for node in _holders(world, key)}
    nodes = (world.nodes.raw.get(Key("", name)) for name in names)
    return {uid_of(node) for node in nodes if node is not None}


def _holders(world: World, image: str) -> Iterable[str]:
    """Nodes that said something of an image: with prefetch they hold it without a task."""
    found = world.images.raw.get(Key(*image.split("/", 1)))
    return () if found is None else world.image_news.held.get(str((found.get("status") or {}).get("digest")), ())


class _Triggers:
    def __init__(self, world: World) -> None:
        self._world = world

    def stack(self, change: Change) -> None:
        self._world.enqueue(STACKS, change.key, 0.0)

    def service(self, change: Change) -> None:
        world = self._world
        world.enqueue(SERVICES, change.key, 0.0)
        if change.departed is not None:
            world.wishes.forget(uid_of(change.departed))
            world.refusals.pop(uid_of(change.departed), None)
        for stack in {*_owner_names(change, "Stack"), *self._stacks_hindered(change)}:
            world.enqueue(STACKS, Key(change.key.namespace, stack), 0.0)

    def _stacks_hindered(self, change: Change) -> Iterator[str]:
        """Stacks that want this name for a Service of theirs, when it is taken by another, or free again."""
        if change.old is None or change.new is None:
            parts = change.key.name.split("-")
            names = ("-".join(parts[:count]) for count in range(1, len(parts)))
            yield from (name for name in names if Key(change.key.namespace, name) in self._world.stacks.raw)

    def image(self, change: Change) -> None:
        world = self._world
        world.enqueue(IMAGES, change.key, 0.0)
        for service in world.services.raw.by(indexes.IMAGE, str(change.key)):
            world.enqueue(SERVICES, key_of(service), 0.0)
        for service_name in _owner_names(change, "Service"):
            world.enqueue(SERVICES, Key(change.key.namespace, service_name), 0.0)
        if _spec(change.old) != _spec(change.new):
            for task in world.tasks.raw.by(indexes.TASK_IMAGE, str(change.key)):
                self._push(task)
        if _prefetched(change.old) != _prefetched(change.new):
            for uid, _ in world.fleet:
                world.fleet.push(uid)

    def node(self, change: Change) -> None:
        """Services look again only where something they place by has changed: a Node's other news are frequent."""
        world, name = self._world, change.key.name
        world.enqueue(NODES, change.key, 0.0)
        world.forget_losses()
        if change.departed is not None:
            world.fleet.heir(uid_of(change.departed))
        new = None if change.new is None else world.nodes.of(change.new)
        if new is None:
            world.placer.view.drop_node(name)
            self._fleet_changed(name)
        elif world.placer.view.put_node(new):
            world.fleet.push(new.metadata.uid)
            self._fleet_changed(name)

    def task(self, change: Change) -> None:
        world = self._world
        task = None if change.new is None else world.tasks.of(change.new)
        if task is not None:
            world.placer.view.put_task(task)
        elif change.old is not None:
            world.placer.view.drop_task(uid_of(change.old))
            world.reports.forget(uid_of(change.old))
            service = ServiceKey(change.key.namespace, change.old["spec"].get("service", ""))
            if not world.tasks.raw.count(indexes.SERVICE, "/".join(service)):
                world.containers.forget(service)
        for key in {Key(change.key.namespace, obj["spec"].get("service", "")) for obj in _both(change)}:
            world.enqueue(SERVICES, key, min(world.tasks.raw.count(indexes.SERVICE, str(key)) * PER_TASK_S, SUMMARY_S))
        if change.new is not None and (deleting(change.new) or world.reports.latest(uid_of(change.new)) is not None):
            world.enqueue(TASKS, change.key, 0.0)
        self._task_on_node(change)

    def _task_on_node(self, change: Change) -> None:
        """Documents follow what is wished, not what is: a new status alone pushes nothing."""
        world = self._world
        if _wish(change.old) != _wish(change.new):
            for name in _node_names(change):
                self._push_node(name)
        ended_or_gone = change.new is None or _holds(change.old) != _holds(change.new)
        if ended_or_gone or _wish(change.old) != _wish(change.new):
            for name in _node_names(change):
                world.enqueue(NODES, Key("", name), SUMMARY_S)
        if change.old is not None and ended_or_gone:
            self._look_again()
        for image in {_image(obj) for obj in _both(change)} - {""}:
            if change.old is None or change.new is None:
                world.enqueue(IMAGES, Key(change.key.namespace, image), SUMMARY_S)

    def _fleet_changed(self, node: str) -> None:
        world = self._world
        self._look_again()
        for service in world.services.raw.by(indexes.MODE, "Global"):
            world.enqueue(SERVICES, key_of(service), ROOM_S)
        for task in world.tasks.raw.by(indexes.NODE, node):
            world.enqueue(SERVICES, Key(key_of(task).namespace, task["spec"].get("service", "")), 0.0)
            if deleting(task):
                world.enqueue(TASKS, key_of(task), 0.0)
        for image in world.images.raw.by(indexes.UNRESOLVED, ""):
            world.enqueue(IMAGES, key_of(image), 0.0)

    def _look_again(self) -> None:
        """Room may have become free for tasks that found no node."""
        for key in self._world.unplaced:
            self._world.enqueue(SERVICES, key, ROOM_S)

    def _push(self, task: Obj) -> None:
        if name := task["spec"].get("nodeName"):
            self._push_node(name)

    def _push_node(self, name: str) -> None:
        node = self._world.nodes.raw.get(Key("", name))
        if node is not None:
            self._world.fleet.push(uid_of(node))


def _node_names(change: Change) -> set[str]:
    return {obj["spec"]["nodeName"] for obj in _both(change) if obj["spec"].get("nodeName")}


def _both(change: Change) -> list[Obj]:
    return [obj for obj in (change.old, change.new) if obj is not None]


def _spec(obj: Obj | None) -> object:
    return None if obj is None else obj["spec"]


def _prefetched(obj: Obj | None) -> object:
    """What of an Image enters the documents of nodes without a task of it."""
    if obj is None or obj["spec"].get("prefetch") is None:
        return None
    return obj["spec"], (obj.get("status") or {}).get("digest")


def _wish(obj: Obj | None) -> object:
    """What of a Task enters its node's document."""
    if obj is None or deleting(obj) or (obj.get("status") or {}).get("state") == "Orphaned":
        return None
    return obj["spec"]


def _holds(obj: Obj | None) -> bool:
    return obj is not None and (obj.get("status") or {}).get("state") not in ("Complete", "Failed", "Rejected", "Orphaned")


def _image(obj: Obj) -> str:
    return str((obj["spec"].get("image") or {}).get("name") or "")


def _owner_names(change: Change, kind: str) -> Iterable[str]:
    for obj in _both(change):
        for reference in obj["metadata"].get("ownerReferences") or ():
            if reference.get("controller") and reference.get("kind") == kind:
                yield reference["name"]
