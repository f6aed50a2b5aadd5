"""The fake as a real HTTP server on a free loopback port, so that the real client speaks to it."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any, Self
from uuid import uuid4

import orjson
from aiohttp import web
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.identity import bearer
from moorage_operator.kube.object import Key
from moorage_operator.kube.resource import Resource

from tests.operator.fakeapi.faults import Faults, refusal_of
from tests.operator.fakeapi.patching import json_patched, merged
from tests.operator.fakeapi.refusal import Refusal, bad_request, expired
from tests.operator.fakeapi.route import Route, route_of
from tests.operator.fakeapi.selection import selects
from tests.operator.fakeapi.store import Store
from tests.operator.fakeapi.watching import Watch, metadata_of

Obj = dict[str, Any]
READS = frozenset({"get", "list", "watch"})


class FakeApi:
    """`calls` counts (verb, plural or plural/part); `token`, when set, is the only one let in and may be changed at any time."""

    def __init__(self, store: Store | None = None, *, token: str = "", bookmark_s: float | None = 60.0) -> None:
        self.store = store or Store()
        self.faults = Faults()
        self.calls: Counter[tuple[str, str]] = Counter()
        self.token = token
        self.url = ""
        self.bookmark_s = bookmark_s
        self._lists: OrderedDict[str, tuple[list[Obj], str]] = OrderedDict()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """On a port given, it comes back where it was: a restarted server."""
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        self.cut_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def credentials(self) -> Credentials:
        return Credentials(self.url, bearer(self.token)) if self.token else Credentials(self.url)

    def writes(self, plural: str = "") -> int:
        """All of them, or those of one kind and its parts."""
        return sum(count for (verb, name), count in self.calls.items() if verb not in READS and plural in ("", name.split("/")[0]))

    def cut_watches(self) -> None:
        for collection in self.store.kinds():
            collection.cut_watches()

    def forget_history(self) -> None:
        """Every watch that is begun from now on at an older version is told 410, and so is every list half read."""
        for collection in self.store.kinds():
            collection.forget(self.store.version)
        self._lists.clear()

    # --- HTTP

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            self._authenticate(request)
            route = route_of(request.path)
            verb = _verb(request, route)
            self.calls[verb, route.counted_as] += 1
            return await self._with_faults(request, route, verb)
        except Refusal as refusal:
            headers = {"Retry-After": str(refusal.retry_after_s)} if refusal.retry_after_s else {}
            return _json(refusal.status(), status=refusal.code, headers=headers)

    async def _with_faults(self, request: web.Request, route: Route, verb: str) -> web.StreamResponse:
        delay_s = self.faults.delay_s.get(verb, 0.0) or self.faults.delay_s.get("*", 0.0)
        if delay_s:
            await asyncio.sleep(delay_s)
        failure = self.faults.failure(verb, route.counted_as)
        if failure is None:
            return await self._carried_out(request, route, verb)
        if failure.after:
            await self._carried_out(request, route, verb)
        if failure.code == 0:
            assert request.transport is not None
            request.transport.abort()
        raise refusal_of(failure)

    async def _carried_out(self, request: web.Request, route: Route, verb: str) -> web.StreamResponse:
        resource = self.store.collection(route.group, route.version, route.plural).resource
        if verb == "watch":
            return await self._watch(request, route, resource)
        body = orjson.loads(content) if (content := await request.read()) else {}
        act: Callable[[web.Request, Route, Resource, Any], web.Response] = getattr(self, f"_{verb}")
        return act(request, route, resource, body)

    def _authenticate(self, request: web.Request) -> None:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            raise Refusal(401, "Unauthorized", "Unauthorized")

    # --- verbs

    def _get(self, request: web.Request, route: Route, resource: Resource, body: Any) -> web.Response:
        obj = self.store.get(resource, Key(route.namespace, route.name))
        return _json(metadata_of(obj) if _metadata_only(request) else obj)

    def _list(self, request: web.Request, route: Route, resource: Resource, body: Any) -> web.Response:
        items, version = self._listed(request, route, resource)
        limit = int(request.query.get("limit", 0))
        metadata: Obj = {"resourceVersion": version}
        if limit and len(items) > limit:
            token = metadata["continue"] = uuid4().hex
            self._lists[token] = (items[limit:], version)
            items = items[:limit]
        if len(self._lists) > 64:
            self._lists.popitem(last=False)
        kind, api_version = f"{resource.kind}List", resource.api_version
        if _metadata_only(request):
            kind, api_version, items = "PartialObjectMetadataList", "meta.k8s.io/v1", [metadata_of(obj) for obj in items]
        return _json({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items})

    def _listed(self, request: web.Request, route: Route, resource: Resource) -> tuple[list[Obj], str]:
        token = request.query.get("continue")
        if token is None:
            return self.store.find(resource, namespace=route.namespace, **_selectors(request)), str(self.store.version)
        if token not in self._lists:
            raise expired("The provided continue parameter is too old to display a consistent list result")
        return self._lists.pop(token)

    def _create(self, request: web.Request, route: Route, resource: Resource, body: Any) -> web.Response:
        namespace = {"namespace": route.namespace} if resource.namespaced else {}
        metadata = body.get("metadata") or {}
        if metadata.get("namespace", route.namespace) != route.namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        obj = {**body, "metadata": {**metadata, **namespace}}
        return _json(self.store.create(resource, obj, manager=_manager(request)), status=201)

    def _patch(self, request: web.Request, route: Route, resource: Resource, body: Any) -> web.Response:
        key, manager = Key(route.namespace, route.name), _manager(request)
        kind = request.content_type
        if kind == "application/apply-patch+yaml":
            force = request.query.get("force") == "true"
            return _json(self.store.apply(resource, key, body, part=route.part, manager=manager, force=force))
        if kind not in ("application/merge-patch+json", "application/json-patch+json"):
            raise Refusal(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {kind}")
        patched = merged if kind == "application/merge-patch+json" else json_patched
        return _json(self.store.update(resource, key, lambda old: patched(old, body), part=route.part, manager=manager))

    def _update(self, request: web.Request, route: Route, resource: Resource, body: Any) -> web.Response:
        key = Key(route.namespace, route.name)
        return _json(self.store.update(resource, key, lambda _: body, part=route.part, manager=_manager(request)))

    def _delete(self, request: web.Request, route: Route, resource: Resource, body: Any) -> web.Response:
        conditions = body.get("preconditions") or {}
        obj, gone = self.store.delete(
            resource,
            Key(route.namespace, route.name),
            uid=conditions.get("uid", ""),
            version=conditions.get("resourceVersion", ""),
            orphan=body.get("propagationPolicy") == "Orphan",
        )
        details = {"name": route.name, "group": resource.group, "kind": resource.plural, "uid": obj["metadata"]["uid"]}
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return _json(status if gone else obj)

    def _deletecollection(self, request: web.Request, route: Route, resource: Resource, body: Any) -> web.Response:
        found = self.store.find(resource, namespace=route.namespace, **_selectors(request))
        for obj in found:
            metadata = obj["metadata"]
            self.store.delete(resource, Key(metadata.get("namespace", ""), metadata["name"]))
        metadata = {"resourceVersion": str(self.store.version)}
        return _json({"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata, "items": found})

    async def _watch(self, request: web.Request, route: Route, resource: Resource) -> web.StreamResponse:
        collection = self.store.of(resource)
        selected = selects(**_selectors(request), selectable=collection.selectable)
        watch = Watch(collection, self.faults, namespace=route.namespace, selected=selected, metadata_only=_metadata_only(request))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        lines = watch.lines(
            request.query.get("resourceVersion", ""),
            newest=self.store.version,
            timeout_s=float(request.query.get("timeoutSeconds", 1800)),
            bookmark_s=self.bookmark_s if request.query.get("allowWatchBookmarks") else None,
        )
        with suppress(ConnectionResetError):  # the client went away
            async with aclosing(lines):
                async for line in lines:
                    await response.write(line)
        return response


def _verb(request: web.Request, route: Route) -> str:
    if request.method == "GET":
        if route.name:
            return "get"
        return "watch" if request.query.get("watch") in ("1", "true") else "list"
    if request.method == "DELETE":
        return "delete" if route.name else "deletecollection"
    return {"POST": "create", "PATCH": "patch", "PUT": "update"}[request.method]


def _selectors(request: web.Request) -> dict[str, str]:
    return {"labels": request.query.get("labelSelector", ""), "fields": request.query.get("fieldSelector", "")}


def _manager(request: web.Request) -> str:
    return request.query.get("fieldManager") or request.headers.get("User-Agent", "unknown").split("/")[0]


def _metadata_only(request: web.Request) -> bool:
    return "as=PartialObjectMetadata" in request.headers.get("Accept", "")


def _json(body: Obj, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json", headers=headers)
