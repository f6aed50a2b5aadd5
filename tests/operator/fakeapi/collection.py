"""All objects of one kind, what happened to them, and who is watching."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from moorage_operator.kube.object import Key, key_of
from moorage_operator.kube.resource import Resource

from tests.operator.fakeapi.refusal import expired
from tests.operator.fakeapi.selection import Predicate

Obj = dict[str, Any]
Validate = Callable[[Obj | None, Obj], Iterable[tuple[str, str]]]


class Happening(NamedTuple):
    """`new` is None for a deletion; `shown` is what a watch tells of it."""

    version: int
    old: Obj | None
    new: Obj | None
    shown: Obj


@dataclass
class Collection:
    """`validate` is the kind's admission: (old, new) -> (field, message) of all that is wrong."""

    resource: Resource
    has_status: bool = True
    has_generation: bool = True
    selectable: tuple[str, ...] = ()
    validate: Validate | None = None
    objects: dict[Key, Obj] = field(default_factory=dict)
    history: deque[Happening] = field(default_factory=lambda: deque(maxlen=100_000))
    forgotten: int = 99
    watchers: set[asyncio.Queue[Happening | None]] = field(default_factory=set)

    def store(self, version: int, old: Obj | None, new: Obj | None, shown: Obj) -> None:
        key = key_of(shown)
        if new is None:
            del self.objects[key]
        else:
            self.objects[key] = new
        if len(self.history) == self.history.maxlen:
            self.forgotten = self.history[0].version
        happening = Happening(version, old, new, shown)
        self.history.append(happening)
        for watcher in self.watchers:
            watcher.put_nowait(happening)

    def since(self, version: int) -> list[Happening]:
        if version < self.forgotten:
            raise expired(f"too old resource version: {version} ({self.forgotten})")
        return [happening for happening in self.history if happening.version > version]

    def forget(self, version: int) -> None:
        """Watches from before `version` are told 410 from now on."""
        self.history.clear()
        self.forgotten = version

    def cut_watches(self) -> None:
        for watcher in self.watchers:
            watcher.put_nowait(None)


def told(happening: Happening, namespace: str, selected: Predicate | None) -> tuple[str, Obj] | None:
    """What a watch of a selection hears of a happening: an object that leaves the selection is DELETED for it, one that enters is ADDED."""

    def inside(obj: Obj | None) -> bool:
        return obj is not None and namespace in ("", obj["metadata"].get("namespace")) and (selected is None or selected(obj))

    before, after = inside(happening.old), inside(happening.new)
    if after:
        return ("MODIFIED" if before else "ADDED"), happening.shown
    return ("DELETED", happening.shown) if before else None
