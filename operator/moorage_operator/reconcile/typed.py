"""A cache seen through its model: an object is parsed when somebody asks for it, once per version while it is in use."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from moorage_operator.api.resource import Resource as Model
from moorage_operator.errors import InvalidSpec
from moorage_operator.kube.cache import Cache, Change
from moorage_operator.kube.object import Key, Obj, deleting, key_of, uid_of

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Model)

KEEP = 4096


class Typed(Generic[M]):
    """The API server refuses what cannot be parsed, so such an object is of another schema than ours: older, or newer after a downgrade.
    Planners pass it over; where its absence would stop or start something it is an error (`get`, `every`).

    `keep`: models last asked for that are kept, and up to as many again. A Task's takes 10 KB and 40 µs to make, twice the memory of the
    object it is made from, and most Tasks are asked for once a day.
    """

    def __init__(self, cache: Cache, model: type[M], *, keep: int = KEEP) -> None:
        self.raw = cache
        self._model = model
        self._keep = keep
        self._young: dict[str, tuple[Obj, M | None]] = {}
        self._old: dict[str, tuple[Obj, M | None]] = {}
        cache.subscribe(self._forget)

    def get(self, key: Key) -> M | None:
        """None: there is no such object. Raises InvalidSpec for one that cannot be read."""
        obj = self.raw.get(key)
        if obj is None:
            return None
        found = self.of(obj)
        if found is None:
            raise self._unreadable(obj)
        return found

    def by_uid(self, uid: str) -> M | None:
        obj = self.raw.by_uid(uid)
        return None if obj is None else self.of(obj)

    def by(self, index: str, value: str) -> list[M]:
        return list(self._all(self.raw.by(index, value)))

    def every(self, index: str, value: str) -> list[M]:
        """As `by`, for whoever takes what is not there for gone. Raises InvalidSpec for one that cannot be read and shall stay."""
        found = []
        for obj in self.raw.by(index, value):
            model = self.of(obj)
            if model is not None:
                found.append(model)
            elif not deleting(obj):
                raise self._unreadable(obj)
        return found

    def __iter__(self) -> Iterator[M]:
        return self._all(self.raw.values())

    def of(self, obj: Obj) -> M | None:
        uid = uid_of(obj)
        known = self._young.get(uid)
        if known is None or known[0] is not obj:
            known = self._old.pop(uid, None)
            if known is None or known[0] is not obj:
                known = (obj, self._parse(obj))
            self._young[uid] = known
            if len(self._young) > self._keep:
                self._young, self._old = {}, self._young
        return known[1]

    def _parse(self, obj: Obj) -> M | None:
        try:
            return self._model.parse(obj)
        except InvalidSpec as error:
            log.warning("an object cannot be read", extra={"kind": self._model.KIND.name, "object": str(key_of(obj)), "error": str(error)})
            return None

    def _unreadable(self, obj: Obj) -> InvalidSpec:
        try:
            self._model.parse(obj)
        except InvalidSpec as error:
            return unreadable(f"{self._model.KIND.name} {key_of(obj)}", error)
        raise AssertionError("it can be read")

    def _all(self, objects: Iterable[Obj]) -> Iterator[M]:
        return (model for model in map(self.of, objects) if model is not None)

    def _forget(self, change: Change) -> None:
        if change.departed is not None:
            self._young.pop(uid_of(change.departed), None)
            self._old.pop(uid_of(change.departed), None)


def unreadable(what: str, error: Exception) -> InvalidSpec:
    remedy = "install the one that wrote it, or correct or delete the object"
    return InvalidSpec(f"{what} cannot be read by this version of the operator ({error}); {remedy}", reason="Unreadable")
