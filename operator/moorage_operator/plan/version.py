"""The version of a Service: equal for two manifests that mean the same containers, different as soon as they do not.

What decides is what users wrote, not what became of it: an upgrade of the operator, the CRDs or the agent changes no version and restarts
nothing. Therefore a default value of the API must not change within an API version: a user who wrote the old one would get a new version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from moorage_operator.api import ServiceTemplate, cpu_millis, memory_bytes, seconds

FORMAT: Final = 1
"""Raised when the text that is hashed changes its shape. It leads each version, so that a later operator can tell the formats apart."""

_SETS: Final = frozenset(("groups", "capAdd", "capDrop"))
_NAMED_BY: Final = ("name", "target", "path")
_MEANING: Final[Mapping[str, Callable[[str], int | float]]] = {
    "cpu": cpu_millis,
    **dict.fromkeys(("memory", "swap", "size", "shmSize", "maxSize"), memory_bytes),
    **dict.fromkeys(("interval", "timeout", "startPeriod", "startInterval", "stopGracePeriod", "stopAfter"), seconds),
    **dict.fromkeys(("delay", "maxDelay", "window"), seconds),
}


def version_of(spec: ServiceTemplate, *, data: Mapping[str, str], digest: str) -> str:
    """The version of tasks with this spec, these contents of Secrets and ConfigMaps (by key) and this image.

    Number of tasks, placement and update settings are no part of it: a changed constraint alone restarts nothing.
    """
    text = json.dumps(_significant(spec, data, digest), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{FORMAT}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _significant(spec: ServiceTemplate, data: Mapping[str, str], digest: str) -> dict[str, Any]:
    parts = {
        "task": canonical(spec.task.canonical()),
        "network": canonical(spec.network.canonical()),
        "ports": canonical([port.canonical() for port in spec.ports]),
        "onDisconnect": canonical(spec.on_disconnect.canonical()) if spec.on_disconnect is not None else {},
        "restartToken": spec.restart_token,
        "data": dict(data),
        "image": digest,
    }
    return {"format": FORMAT, **{name: part for name, part in parts.items() if part}}


def canonical(value: Any, name: str = "") -> Any:
    """JSON data in one form: quantities and durations as numbers, lists whose order has no meaning sorted, empty objects left out."""
    if isinstance(value, dict):
        fields = ((key, canonical(item, key)) for key, item in value.items())
        return {key: item for key, item in fields if item is not None and item != {}}
    if isinstance(value, list):
        return _sorted([canonical(item) for item in value], name)
    return _MEANING[name](value) if name in _MEANING and isinstance(value, str) else value


def _sorted(items: list[Any], name: str) -> list[Any]:
    if name in _SETS:
        return sorted(items)
    for key in _NAMED_BY:
        if items and all(isinstance(item, dict) and key in item for item in items):
            return sorted(items, key=lambda item: str(item[key]))
    return items
