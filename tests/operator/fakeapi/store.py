"""The server's state and its verbs: what an API server answers, without HTTP."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from moorage_operator.kube.object import Key, key_of
from moorage_operator.kube.resource import CONFIG_MAPS, EVENTS, LEASES, NAMESPACES, OWN_KINDS, SECRETS, TASKS, Resource

from tests.operator.fakeapi.collection import Collection, Validate
from tests.operator.fakeapi.lifecycle import born, buried, changed, doomed
from tests.operator.fakeapi.ownership import Manager, Ownership
from tests.operator.fakeapi.patching import applied
from tests.operator.fakeapi.refusal import Refusal, conflict, invalid, not_found
from tests.operator.fakeapi.selection import selects

Obj = dict[str, Any]
Change = Callable[[Obj], Obj]


class Snapshot(NamedTuple):
    version: int
    objects: dict[tuple[str, str, str], dict[Key, Obj]]
    ownership: dict[str, Ownership]
    dependents: dict[str, set[tuple[Resource, Key]]]


class Store:
    """Objects in it are never changed in place. `collect_garbage` off: dependents of a deleted owner stay, as where no controller runs."""

    def __init__(self, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), collect_garbage: bool = True) -> None:
        self.version = 100
        self.collect_garbage = collect_garbage
        self.now = now
        self._kinds: dict[tuple[str, str, str], Collection] = {}
        self._ownership: dict[str, Ownership] = {}
        self._dependents: dict[str, set[tuple[Resource, Key]]] = {}
        for resource in (SECRETS, CONFIG_MAPS, EVENTS, LEASES):
            selectable = ("involvedObject.uid",) if resource == EVENTS else ()
            self.register(resource, has_status=False, has_generation=False, selectable=selectable)
        self.register(NAMESPACES, has_generation=False)
        for resource in OWN_KINDS:
            self.register(resource, selectable=("spec.nodeName", "status.state") if resource == TASKS else ())
        for name in ("default", "kube-system"):
            self.create(NAMESPACES, {"metadata": {"name": name}})

    def register(
        self,
        resource: Resource,
        *,
        has_status: bool = True,
        has_generation: bool = True,
        selectable: tuple[str, ...] = (),
        validate: Validate | None = None,
    ) -> Collection:
        """Makes a kind known, as a CRD would; again, to change its validation."""
        known = self._kinds.get((resource.group, resource.version, resource.plural))
        collection = Collection(resource, has_status, has_generation, selectable, validate)
        if known is not None:
            collection.objects, collection.history = known.objects, known.history
        self._kinds[resource.group, resource.version, resource.plural] = collection
        return collection

    def kinds(self) -> list[Collection]:
        return list(self._kinds.values())

    def collection(self, group: str, version: str, plural: str) -> Collection:
        try:
            return self._kinds[group, version, plural]
        except KeyError:
            raise Refusal(404, "NotFound", "the server could not find the requested resource") from None

    def of(self, resource: Resource) -> Collection:
        return self.collection(resource.group, resource.version, resource.plural)

    # --- verbs

    def get(self, resource: Resource, key: Key) -> Obj:
        try:
            return self.of(resource).objects[key]
        except KeyError:
            raise not_found(str(resource), key.name) from None

    def find(self, resource: Resource, *, namespace: str = "", labels: str = "", fields: str = "") -> list[Obj]:
        """Sorted by namespace and name, as etcd has them."""
        collection = self.of(resource)
        selected = selects(labels, fields, selectable=collection.selectable)
        found = [
            (key, obj)
            for key, obj in collection.objects.items()
            if namespace in ("", key.namespace) and (selected is None or selected(obj))
        ]
        return [obj for _, obj in sorted(found, key=lambda pair: pair[0])]

    def create(self, resource: Resource, obj: Obj, *, manager: str = "unknown") -> Obj:
        collection = self.of(resource)
        obj = _named(obj)
        key = key_of(obj)
        if resource.namespaced and Key("", key.namespace) not in self.of(NAMESPACES).objects:
            raise not_found("namespaces", key.namespace)
        if key in collection.objects:
            raise Refusal(409, "AlreadyExists", f'{resource} "{key.name}" already exists')
        new = born(
            resource,
            obj,
            uid=str(uuid.uuid4()),
            version=self._next(),
            now=self.now(),
            has_status=collection.has_status,
            has_generation=collection.has_generation,
        )
        self._admit(collection, None, new)
        self._owned(new).updated({}, new, Manager(manager, "Update"))
        self._put(collection, None, new)
        self._collect_orphan(resource, new)
        return new

    def update(self, resource: Resource, key: Key, change: Change, *, part: str = "", manager: str = "unknown") -> Obj:
        """`change` gives the wished object from the present one."""
        old = self.get(resource, key)
        new = self._changed(resource, old, change(old), part)
        if new is not old:
            self._owned(new).updated(old, new, Manager(manager, "Update", part))
            self._settle(resource, old, new)
        return new

    def apply(self, resource: Resource, key: Key, wish: Obj, *, part: str = "", manager: str, force: bool) -> Obj:
        if key not in self.of(resource).objects and not part:
            created = self.create(resource, wish, manager=manager)
            self._ownership[created["metadata"]["uid"]] = ownership = Ownership()
            ownership.applied(wish, Manager(manager, "Apply"), contested=[])
            return created
        old, who = self.get(resource, key), Manager(manager, "Apply", part)
        ownership = self._owned(old)
        contested = ownership.collisions(old, wish, who)
        if contested and not force:
            named = ", ".join(f'conflict with "{name}": .{".".join(path)}' for name, path in contested)
            raise conflict(str(resource), key.name, f"Apply failed with {len(contested)} conflict(s): {named}")
        new = self._changed(resource, old, applied(old, wish, owned=ownership.of(who)), part)
        ownership.applied(wish, who, contested=contested)
        if new is not old:
            self._settle(resource, old, new)
        return new

    def delete(self, resource: Resource, key: Key, *, uid: str = "", version: str = "", orphan: bool = False) -> tuple[Obj, bool]:
        """The object as it is afterwards, and whether it is gone."""
        old = self.get(resource, key)
        metadata = old["metadata"]
        if uid and uid != metadata["uid"]:
            raise conflict(
                str(resource), key.name, f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata['uid']}"
            )
        if version and version != metadata["resourceVersion"]:
            raise conflict(str(resource), key.name, f"Precondition failed: ResourceVersion in precondition: {version}")
        if orphan:
            self._dependents.pop(metadata["uid"], None)
        if not metadata.get("finalizers"):
            return self._remove(resource, old), True
        if metadata.get("deletionTimestamp"):
            return old, False
        new = doomed(old, version=self._next(), now=self.now())
        self._put(self.of(resource), old, new)
        return new, False

    # --- backups

    def snapshot(self) -> Snapshot:
        objects = {name: dict(collection.objects) for name, collection in self._kinds.items()}
        return Snapshot(self.version, objects, copy.deepcopy(self._ownership), {uid: set(keys) for uid, keys in self._dependents.items()})

    def restore(self, snapshot: Snapshot) -> None:
        """Back to then, versions included. A server does not live through this: its watches are cut, its history is empty."""
        self.version = snapshot.version
        self._ownership, self._dependents = copy.deepcopy(snapshot.ownership), {uid: set(keys) for uid, keys in snapshot.dependents.items()}
        for name, collection in self._kinds.items():
            collection.objects = dict(snapshot.objects.get(name, {}))
            collection.forget(snapshot.version)
            collection.cut_watches()

    # --- how

    def _changed(self, resource: Resource, old: Obj, wish: Obj, part: str) -> Obj:
        collection = self.of(resource)
        new = changed(resource, old, wish, part=part, version=self.version + 1, has_status=collection.has_status)
        if new is not old:
            self._admit(collection, old, new)
            self._next()
        return new

    def _settle(self, resource: Resource, old: Obj, new: Obj) -> None:
        """A deleted object whose last finalizer went is gone with that very write."""
        if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            self._remove(resource, new, before=old)
        else:
            self._put(self.of(resource), old, new)

    def _remove(self, resource: Resource, last: Obj, *, before: Obj | None = None) -> Obj:
        shown = buried(last, version=self._next())
        uid = last["metadata"]["uid"]
        self._ownership.pop(uid, None)
        self.of(resource).store(self.version, before or last, None, shown)
        if resource == NAMESPACES:
            self._empty(last["metadata"]["name"])
        for dependent, key in self._dependents.pop(uid, set()) if self.collect_garbage else ():
            self._collect(dependent, key, uid)
        return shown

    def _put(self, collection: Collection, old: Obj | None, new: Obj) -> None:
        new["metadata"]["managedFields"] = self._owned(new).shown()
        collection.store(int(new["metadata"]["resourceVersion"]), old, new, new)
        for owner in new["metadata"].get("ownerReferences") or ():
            self._dependents.setdefault(owner["uid"], set()).add((collection.resource, key_of(new)))

    def _collect(self, resource: Resource, key: Key, owner: str) -> None:
        obj = self.of(resource).objects.get(key)
        if obj is None:
            return
        owners = {reference["uid"] for reference in obj["metadata"].get("ownerReferences") or ()}
        if owner in owners and not any(uid in self._ownership for uid in owners):
            self.delete(resource, key)

    def _collect_orphan(self, resource: Resource, obj: Obj) -> None:
        owners = {reference["uid"] for reference in obj["metadata"].get("ownerReferences") or ()}
        if self.collect_garbage and owners and not any(uid in self._ownership for uid in owners):
            self.delete(resource, key_of(obj))

    def _empty(self, namespace: str) -> None:
        for collection in self.kinds():
            for key in [key for key in collection.objects if key.namespace == namespace]:
                self.delete(collection.resource, key)

    def _admit(self, collection: Collection, old: Obj | None, new: Obj) -> None:
        causes = list(collection.validate(old, new)) if collection.validate else []
        if causes:
            raise invalid(f"{collection.resource.kind}.{collection.resource.group}", new["metadata"]["name"], *causes)

    def _owned(self, obj: Obj) -> Ownership:
        return self._ownership.setdefault(obj["metadata"]["uid"], Ownership())

    def _next(self) -> int:
        self.version += 1
        return self.version


def _named(obj: Obj) -> Obj:
    metadata = obj.get("metadata") or {}
    if metadata.get("name"):
        return obj
    if not metadata.get("generateName"):
        raise Refusal(422, "Invalid", "metadata.name: Required value: name or generateName is required")
    return {**obj, "metadata": {**metadata, "name": metadata["generateName"] + uuid.uuid4().hex[:5]}}
