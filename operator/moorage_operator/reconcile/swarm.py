"""The swarm's identity: an id that hosts are bound to, and the key that hashes of secrets are made with. Made once, kept in a Secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

from moorage_operator.errors import AlreadyExists, InvalidSpec, NotFound
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.object import Key, Obj
from moorage_operator.kube.resource import SECRETS


@dataclass(frozen=True)
class Swarm:
    id: str
    key: bytes = field(repr=False)

    def digest(self, value: bytes) -> str:
        """16 hex digits that name a content without telling it: a guess cannot be checked without the swarm's key."""
        return hmac.new(self.key, value, hashlib.sha256).hexdigest()[:16]


async def swarm_identity(api: KubeApi, key: Key, *, new_id: Callable[[], str], new_key: Callable[[], bytes]) -> Swarm:
    """Reads the identity, or makes it when there is none. Two processes that start together agree: one create wins.

    Raises InvalidSpec when the Secret is there and damaged: a new identity would orphan every host.
    """
    try:
        return _read(key, await api.get(SECRETS, key))
    except NotFound:
        pass
    body = {
        "metadata": {"namespace": key.namespace, "name": key.name, "labels": {"app.kubernetes.io/managed-by": "moorage"}},
        "type": "moorage.dev/swarm",
        "data": {"swarmId": _encode(new_id().encode()), "key": _encode(new_key())},
    }
    try:
        return _read(key, await api.create(SECRETS, body))
    except AlreadyExists:
        return _read(key, await api.get(SECRETS, key))


def _read(key: Key, secret: Obj) -> Swarm:
    data = secret.get("data") or {}
    try:
        swarm = Swarm(base64.b64decode(data["swarmId"]).decode(), base64.b64decode(data["key"]))
    except (KeyError, ValueError) as error:
        raise _damaged(key, "it must hold swarmId and key") from error
    if not swarm.id or len(swarm.key) < 32:
        raise _damaged(key, "swarmId is empty, or key is shorter than 32 bytes")
    return swarm


def _damaged(key: Key, why: str) -> InvalidSpec:
    remedy = "restore it, or delete it and set adopt: true on each Node"
    return InvalidSpec(f"Secret {key} is damaged: {why}; {remedy}", reason="SwarmIdentityDamaged")


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()
