"""Secrets and ConfigMaps: hashes for planners, values for agents. Objects are watched by metadata alone; contents are read when needed.

Nothing of a content is kept but its keyed hashes, per resourceVersion of the object.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Mapping
from typing import Final

from moorage_operator.errors import InvalidSpec, NotFound
from moorage_operator.kube.cache import Cache
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.object import Key, Obj
from moorage_operator.kube.resource import CONFIG_MAPS, SECRETS, Resource
from moorage_operator.plan.container_data import CONFIG_MAP, SECRET, DataObject, DataVersions
from moorage_operator.reconcile.swarm import Swarm

_RESOURCES: Final[Mapping[str, Resource]] = {SECRET: SECRETS, CONFIG_MAP: CONFIG_MAPS}


class Data:
    """`metadata` are the caches of the metadata-only watches, by kind."""

    def __init__(self, api: KubeApi, metadata: Mapping[str, Cache], swarm: Swarm) -> None:
        self._api = api
        self._metadata = metadata
        self._swarm = swarm
        self._hashes: dict[DataObject, tuple[str, Mapping[str, str]]] = {}

    def version(self, of: DataObject) -> str | None:
        """The object's resourceVersion; None while it is not known."""
        known = self._metadata[of.kind].get(Key(of.namespace, of.name))
        return None if known is None else known["metadata"].get("resourceVersion") or None

    async def versions(self, objects: Iterable[DataObject]) -> DataVersions:
        """The hash of every entry of these objects; those that do not exist are not in the answer."""
        wanted = sorted(objects)
        found = await asyncio.gather(*(self._hashes_of(each) for each in wanted))
        return DataVersions({each: hashes for each, hashes in zip(wanted, found, strict=True) if hashes is not None})

    async def entries(self, of: DataObject) -> dict[str, bytes]:
        """The contents. Raises InvalidSpec when the object does not exist."""
        try:
            return contents(await self._api.get(_RESOURCES[of.kind], Key(of.namespace, of.name)))
        except NotFound as error:
            raise InvalidSpec(
                f"{of.kind} {of.name} does not exist in namespace {of.namespace}: create it", reason=f"{of.kind}Missing"
            ) from error

    async def entry(self, of: DataObject, key: str, *, digest: str | None) -> bytes:
        """One content; with `digest` only that very one. Raises InvalidSpec when it is missing or has changed."""
        entries = await self.entries(of)
        if key not in entries:
            remedy = "add it, or change what refers to it"
            raise InvalidSpec(f"{of.kind} {of.name} in namespace {of.namespace} has no key {key}: {remedy}", reason=f"{of.kind}KeyMissing")
        if digest is not None and self._swarm.digest(entries[key]) != digest:
            raise InvalidSpec(
                f"key {key} of {of.kind} {of.name} in namespace {of.namespace} has another content by now; "
                "the next version of the Service brings it",
                reason=f"{of.kind}Changed",
            )
        return entries[key]

    async def _hashes_of(self, of: DataObject) -> Mapping[str, str] | None:
        known = self._metadata[of.kind].get(Key(of.namespace, of.name))
        if known is None:
            self._hashes.pop(of, None)
            return None
        version = known["metadata"].get("resourceVersion", "")
        remembered = self._hashes.get(of)
        if remembered is not None and remembered[0] == version:
            return remembered[1]
        try:
            entries = await self.entries(of)
        except InvalidSpec:
            return None  # deleted a moment ago: the watch will say so
        hashes = {key: self._swarm.digest(value) for key, value in entries.items()}
        self._hashes[of] = (version, hashes)
        return hashes


def contents(obj: Obj) -> dict[str, bytes]:
    """The entries of a Secret (data) or ConfigMap (data, binaryData)."""
    if obj.get("kind") == CONFIG_MAP:
        text = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
        return text | {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}
    return {key: base64.b64decode(value) for key, value in (obj.get("data") or {}).items()}
