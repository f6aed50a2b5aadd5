"""The API server, verb by verb, over plain dicts.

Writes go through the lane of what they write (lane.py), and only while `may_write` says so: a process that lost the Lease is stopped here,
whatever it still believes. Every method raises the errors below `ApiError`; writes also NotLeader, when nothing was sent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import NamedTuple, Self, TypedDict, Unpack

import orjson

from moorage_operator.errors import NotFound
from moorage_operator.kube.answer import status_error
from moorage_operator.kube.clock import Clock
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.lane import Lane
from moorage_operator.kube.object import Key, Obj, key_of
from moorage_operator.kube.resource import EVENTS, LEASES, Resource
from moorage_operator.kube.transport import JSON, Call, Request, Transport

MANAGER = "moorage"
"""The one field manager of all our writes: each further one adds a copy of the object's field names to its managedFields."""

PAGE = 500
INACTIVITY_S = 90.0
"""A watch hears a bookmark about once a minute. One silent for longer is a dead connection nobody closed, or of a kind nobody has touched
since the API server started: bookmarks come only after a first event."""

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class Selection(TypedDict, total=False):
    """Which objects: of all namespaces when none is given; selectors as kubectl writes them; `metadata_only`: without spec or data."""

    namespace: str
    labels: str
    fields: str
    metadata_only: bool


class Listing(NamedTuple):
    items: list[Obj]
    version: str


class WatchEvent(NamedTuple):
    """`type` is ADDED, MODIFIED, DELETED, or BOOKMARK (an object with nothing but its version)."""

    type: str
    object: Obj


class KubeApi:
    """`slots` and `rate` (writes a second) hold for each lane of its own; events get a tenth of the rate."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        clock: Clock,
        may_write: Callable[[], bool] | None = None,
        slots: int = 16,
        rate: float = 300.0,
        timeout_s: float = 10.0,
        observe: Callable[[Call], object] | None = None,
    ) -> None:
        self.may_write = may_write
        self._transport = Transport(credentials, clock=clock, timeout_s=timeout_s, observe=observe)
        self._reads = Lane(slots=2 * slots, rate=4 * rate, clock=clock)
        self._objects = Lane(slots=slots, rate=rate, clock=clock)
        self._status = Lane(slots=slots, rate=rate, clock=clock)
        self._events = Lane(slots=2, rate=rate / 10, clock=clock)
        self._leases = Lane(slots=4, rate=rate, clock=clock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        await self._transport.close()

    # --- reading

    async def get(self, resource: Resource, key: Key, *, metadata_only: bool = False) -> Obj:
        accept = METADATA if metadata_only else JSON
        return await self._read(Request("get", "GET", resource, resource.path(*key), of=str(key), accept=accept))

    async def list(self, resource: Resource, **selection: Unpack[Selection]) -> Listing:
        """All of them at once, with the version of the whole."""
        items: list[Obj] = []
        version = ""
        async for page in self.pages(resource, **selection):
            items += page.items
            version = page.version
        return Listing(items, version)

    async def pages(self, resource: Resource, *, limit: int = PAGE, **selection: Unpack[Selection]) -> AsyncGenerator[Listing]:
        """One consistent list, all pages of one version. Gone when reading it took so long that it fell out of history."""
        path, query = resource.path(selection.get("namespace", "")), _selectors(selection) | {"limit": str(limit)}
        accept = METADATA_LIST if selection.get("metadata_only") else JSON
        while True:
            answer = await self._read(Request("list", "GET", resource, path, query=query, accept=accept))
            metadata = answer["metadata"]
            yield Listing(answer.get("items") or [], metadata.get("resourceVersion", ""))
            if not metadata.get("continue"):
                return
            query = query | {"continue": metadata["continue"]}

    async def watch(
        self,
        resource: Resource,
        *,
        version: str,
        timeout_s: float = 300.0,
        inactivity_s: float = INACTIVITY_S,
        **selection: Unpack[Selection],
    ) -> AsyncGenerator[WatchEvent]:
        """Changes after `version`, until the server ends it after `timeout_s`, or nothing came for `inactivity_s`.

        Gone when the server no longer knows that version. One it does not know yet is met with silence. A connection that broke is
        ApiUnavailable; going on from the last version seen loses nothing.
        """
        path = resource.path(selection.get("namespace", ""))
        query = _selectors(selection) | {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version}
        query["timeoutSeconds"] = str(max(1, round(timeout_s)))
        accept = METADATA if selection.get("metadata_only") else JSON
        request = Request("watch", "GET", resource, path, query=query, accept=accept)
        async with aclosing(self._transport.lines(request, inactivity_s=inactivity_s)) as lines:
            async for line in lines:
                event = orjson.loads(line)
                if event["type"] == "ERROR":
                    raise status_error(request.describe(), event["object"])
                yield WatchEvent(event["type"], event["object"])

    # --- writing

    async def create(self, resource: Resource, obj: Obj) -> Obj:
        """AlreadyExists when the name is taken. May say so of its own object, when the answer to a first sending was lost."""
        body = _typed(resource, obj)
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace", ""))
        of = str(Key(metadata.get("namespace", ""), metadata.get("name") or metadata.get("generateName", "")))
        return await self._write(Request("create", "POST", resource, path, of=of, query=OURS, body=body))

    async def apply(self, resource: Resource, obj: Obj, *, subresource: str = "", force: bool = True) -> Obj:
        """Server-side apply: what an earlier apply of ours set and this one lacks is removed."""
        key, query = key_of(obj), OURS | {"force": "true"} if force else OURS
        body = _typed(resource, obj)
        path = resource.path(*key, subresource)
        return await self._write(Request("apply", "PATCH", resource, path, str(key), query, body, APPLY), subresource)

    async def patch(self, resource: Resource, key: Key, body: Obj, *, subresource: str = "") -> Obj:
        """Merge-patch. A resourceVersion in the body's metadata is a condition: Conflict when the object is another by now."""
        path = resource.path(*key, subresource)
        return await self._write(Request("patch", "PATCH", resource, path, str(key), OURS, body, MERGE), subresource)

    async def json_patch(self, resource: Resource, key: Key, operations: Sequence[Obj], *, subresource: str = "") -> Obj:
        """Invalid when a `test` in it fails."""
        path = resource.path(*key, subresource)
        return await self._write(Request("patch", "PATCH", resource, path, str(key), OURS, operations, JSON_PATCH), subresource)

    async def patch_status(self, resource: Resource, key: Key, status: Obj, *, version: str = "") -> Obj:
        """Merge-patch of the status alone: null removes a field. With `version`, Conflict when the object is another by now.

        The version is the only guard there is: of a custom resource's status patch, the API server ignores a foreign uid.
        """
        body: Obj = {"metadata": {"resourceVersion": version}, "status": status} if version else {"status": status}
        return await self.patch(resource, key, body, subresource="status")

    async def delete(
        self, resource: Resource, key: Key, *, uid: str = "", version: str = "", propagation: str = "Background"
    ) -> Obj | None:
        """None when it is gone, or was; the object when a finalizer still holds it. Conflict when `uid` or `version` is not its own."""
        options: Obj = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if uid or version:
            options["preconditions"] = {name: value for name, value in (("uid", uid), ("resourceVersion", version)) if value}
        try:
            answer = await self._write(Request("delete", "DELETE", resource, resource.path(*key), of=str(key), body=options))
        except NotFound:
            return None
        return answer if answer["metadata"].get("finalizers") else None

    async def delete_collection(self, resource: Resource, *, namespace: str, labels: str = "", fields: str = "") -> None:
        """Asks for the deletion of all that is selected; finalizers may hold some of it for longer."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        query = _selectors({"labels": labels, "fields": fields})
        path = resource.path(namespace)
        await self._write(Request("deletecollection", "DELETE", resource, path, of=f"in {namespace}", query=query, body=options))

    async def _read(self, request: Request) -> Obj:
        async with self._reads:
            answer: Obj = await self._transport.call(request)
        return answer

    async def _write(self, request: Request, subresource: str = "") -> Obj:
        # The slot is kept while the server asks for patience: then fewer of us should ask.
        async with self._lane(request.resource, subresource):
            answer: Obj = await self._transport.call(request, allowed=None if request.resource == LEASES else self.may_write)
        return answer

    def _lane(self, resource: Resource, subresource: str) -> Lane:
        if resource == LEASES:
            return self._leases
        if resource == EVENTS:
            return self._events
        return self._status if subresource == "status" else self._objects


OURS = {"fieldManager": MANAGER}


def _typed(resource: Resource, obj: Obj) -> Obj:
    return {"apiVersion": resource.api_version, "kind": resource.kind, **obj}


def _selectors(selection: Selection) -> dict[str, str]:
    query = {"labelSelector": selection.get("labels", ""), "fieldSelector": selection.get("fields", "")}
    return {name: value for name, value in query.items() if value}
