"""What the API server does to an object's metadata when it is made, changed and deleted. Functions: old object in, new one out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from moorage_operator.kube.resource import Resource
from moorage_operator.kube.timestamp import timestamp

from tests.operator.fakeapi.refusal import bad_request, conflict, invalid

Obj = dict[str, Any]
SERVER_OWNED = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields")


def born(resource: Resource, obj: Obj, *, uid: str, version: int, now: datetime, has_status: bool, has_generation: bool) -> Obj:
    metadata = {name: value for name, value in obj["metadata"].items() if name not in (*SERVER_OWNED, "generateName", "resourceVersion")}
    metadata |= {"uid": uid, "resourceVersion": str(version), "creationTimestamp": timestamp(now)}
    if has_generation:
        metadata["generation"] = 1
    new = {"apiVersion": resource.api_version, "kind": resource.kind, **obj, "metadata": metadata}
    if has_status:
        new.pop("status", None)
    return new


def changed(resource: Resource, old: Obj, wish: Obj, *, part: str, version: int, has_status: bool) -> Obj:
    """`old` itself when nothing changes. `part` is "status" for a write through that subresource, which can change nothing else."""
    _check_conditions(resource, old, wish, part)
    new = {**old, "status": wish.get("status")} if part == "status" else dict(wish)
    if part != "status" and has_status:
        new["status"] = old.get("status")
    if new.get("status") is None:
        new.pop("status", None)
    new["metadata"] = dict(old["metadata"]) if part == "status" else _metadata(resource, old, wish)
    if new == old:
        return old
    if "generation" in old["metadata"] and part != "status" and _content(new) != _content(old):
        new["metadata"]["generation"] = old["metadata"]["generation"] + 1
    new["metadata"]["resourceVersion"] = str(version)
    return new


def doomed(old: Obj, *, version: int, now: datetime) -> Obj:
    """With a finalizer, a deletion is first of all a mark; it counts as a change of the wish."""
    metadata = {**old["metadata"], "deletionTimestamp": timestamp(now), "deletionGracePeriodSeconds": 0, "resourceVersion": str(version)}
    if "generation" in metadata:
        metadata["generation"] += 1
    return {**old, "metadata": metadata}


def buried(old: Obj, *, version: int) -> Obj:
    """The last state, with the version of the deletion: what a watch shows."""
    return {**old, "metadata": {**old["metadata"], "resourceVersion": str(version)}}


def _check_conditions(resource: Resource, old: Obj, wish: Obj, part: str) -> None:
    name, metadata = old["metadata"]["name"], wish["metadata"]
    if metadata.get("resourceVersion") not in (None, "", old["metadata"]["resourceVersion"]):
        raise conflict(f"{resource}", name, "the object has been modified; please apply your changes to the latest version and try again")
    # A status patch keeps the metadata it finds, and so never looks at a uid.
    uid = metadata.get("uid")
    if part != "status" and uid not in (None, "", old["metadata"]["uid"]):
        raise invalid(resource.kind, name, ("metadata.uid", f'Invalid value: "{uid}": field is immutable'))
    if metadata.get("name") != name or metadata.get("namespace") != old["metadata"].get("namespace"):
        raise bad_request("the name or namespace of the object does not match the one in the URL")


def _metadata(resource: Resource, old: Obj, wish: Obj) -> Obj:
    before, metadata = old["metadata"], dict(wish["metadata"])
    for name in (*SERVER_OWNED, "resourceVersion"):
        metadata.pop(name, None)
        if name in before:
            metadata[name] = before[name]
    if before.get("deletionTimestamp") and set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ()):
        raise invalid(
            resource.kind,
            before["name"],
            ("metadata.finalizers", "Forbidden: no new finalizers can be added if the object is being deleted"),
        )
    return {name: value for name, value in metadata.items() if value not in ({}, [])}


def _content(obj: Obj) -> Obj:
    return {name: value for name, value in obj.items() if name not in ("metadata", "status")}
