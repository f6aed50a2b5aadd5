"""The watch verb: what happened since a version, and then what happens, one JSON line each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson

from tests.operator.fakeapi.collection import Collection, Happening, told
from tests.operator.fakeapi.faults import Faults
from tests.operator.fakeapi.refusal import Refusal
from tests.operator.fakeapi.selection import Predicate

Obj = dict[str, Any]


class Watch:
    def __init__(self, collection: Collection, faults: Faults, *, namespace: str, selected: Predicate | None, metadata_only: bool) -> None:
        self._collection = collection
        self._faults = faults
        self._namespace = namespace
        self._selected = selected
        self._metadata_only = metadata_only
        self._version = 0
        self._from = 0

    async def lines(self, version: str, *, newest: int, timeout_s: float, bookmark_s: float | None) -> AsyncGenerator[bytes]:
        """Ends after `timeout_s`, or when the watches are cut. A version that cannot be continued from is told inside the stream."""
        queue: asyncio.Queue[Happening | None] = asyncio.Queue()
        try:
            begun = self._begun(version, newest)
        except Refusal as refusal:
            yield orjson.dumps({"type": "ERROR", "object": refusal.status()}) + b"\n"
            return
        self._collection.watchers.add(queue)
        try:
            for line in begun:
                yield line
            async for line in self._live(queue, timeout_s, bookmark_s):
                yield line
        finally:
            self._collection.watchers.discard(queue)

    def _begun(self, version: str, newest: int) -> list[bytes]:
        if version in ("", "0"):
            return [
                self._line("ADDED", obj)
                for obj in self._collection.objects.values()
                if told(_appeared(obj), self._namespace, self._selected)
            ]
        self._version = self._from = int(version)
        return [line for happening in self._collection.since(int(version)) for line in self._told(happening)]

    async def _live(self, queue: asyncio.Queue[Happening | None], timeout_s: float, bookmark_s: float | None) -> AsyncGenerator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while (left_s := end - loop.time()) > 0:
            try:
                async with asyncio.timeout(min(left_s, bookmark_s or left_s)):
                    happening = await queue.get()
            except TimeoutError:
                if bookmark_s is not None:
                    yield self._bookmark()
                continue
            if happening is None:
                return
            if self._faults.watch_delay_s:
                await asyncio.sleep(self._faults.watch_delay_s)
            for line in self._told(happening):
                yield line

    def _told(self, happening: Happening) -> list[bytes]:
        if happening.version <= self._from:
            return []  # a version from the future is met with silence until it is reached
        self._version = max(self._version, happening.version)
        event = told(happening, self._namespace, self._selected)
        if event is None:
            return []
        return [self._line(*event)] * self._faults.copies(*event)

    def _line(self, kind: str, obj: Obj) -> bytes:
        return orjson.dumps({"type": kind, "object": metadata_of(obj) if self._metadata_only else obj}) + b"\n"

    def _bookmark(self) -> bytes:
        resource = self._collection.resource
        metadata = {"resourceVersion": str(self._version), "creationTimestamp": None}
        return (
            orjson.dumps({"type": "BOOKMARK", "object": {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}})
            + b"\n"
        )


def metadata_of(obj: Obj) -> Obj:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _appeared(obj: Obj) -> Happening:
    return Happening(0, None, obj, obj)
