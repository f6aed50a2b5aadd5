"""What the API server last said about one kind: by key, by uid, and by the indexes its owner asked for.

Three sources feed it: watches, full lists and the answers to our own writes. They overtake each other, so each object is weighed by its
resourceVersion: an older one never replaces a newer one, and an object known to be deleted does not come back. What is read from here is
shared: read-only for everybody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from moorage_operator.kube.object import Key, Obj, key_of, parse_version, strip, uid_of, version_of
from moorage_operator.kube.resource import Resource

log = logging.getLogger(__name__)

Index = Callable[[Obj], Iterable[str]]

REMEMBERED_DEATHS = 10_000
"""Deleted objects remembered, so that a late answer to a write cannot revive one. Answers are late by seconds, not by so many deletions."""

FOR_GOOD = 1 << 64
"""The version of a death after which no version is newer."""


class Change(NamedTuple):
    """`old` is None for an object that appeared, `new` for one that is gone; both are of one uid unless it was deleted and made again."""

    key: Key
    old: Obj | None
    new: Obj | None

    @property
    def departed(self) -> Obj | None:
        """The object that is no more, whether or not another of its name is there now."""
        gone = self.old is not None and (self.new is None or uid_of(self.new) != uid_of(self.old))
        return self.old if gone else None


class Sign(NamedTuple):
    """The newest thing the cache knows: that this object was there, or gone, at this version."""

    key: Key
    version: int
    alive: bool


class Cache:
    """`indexes` map a name to a function that gives the values an object is found under. `share` may replace parts of an object that is
    taken by equal ones of others, to keep them in memory once.
    """

    def __init__(
        self, resource: Resource, *, indexes: Mapping[str, Index] | None = None, share: Callable[[Obj], object] | None = None
    ) -> None:
        self.resource = resource
        self._share = share
        self._objects: dict[Key, Obj] = {}
        self._by_uid: dict[str, Key] = {}
        self._dead: dict[str, int] = {}
        self._index_functions = dict(indexes or {})
        self._indexes: dict[str, dict[str, dict[Key, Obj]]] = {name: {} for name in self._index_functions}
        self._listeners: list[Callable[[Change], object]] = []
        self.newest: Sign | None = None

    def get(self, key: Key) -> Obj | None:
        return self._objects.get(key)

    def by_uid(self, uid: str) -> Obj | None:
        key = self._by_uid.get(uid)
        return None if key is None else self._objects[key]

    def by(self, index: str, value: str) -> list[Obj]:
        """The objects found under `value`, in no particular order. An unknown index is a KeyError."""
        return list(self._indexes[index].get(value, {}).values())

    def count(self, index: str, value: str) -> int:
        return len(self._indexes[index].get(value, {}))

    def keys(self) -> list[Key]:
        return list(self._objects)

    def values(self) -> list[Obj]:
        return list(self._objects.values())

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, key: object) -> bool:
        return key in self._objects

    def subscribe(self, listener: Callable[[Change], object]) -> Callable[[], None]:
        """Calls `listener` after every change, in the order of changes. Returns what ends the subscription."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def put(self, obj: Obj) -> bool:
        """Takes the object, stripped in place, unless what is here is as new or it is known to be deleted. True when it was taken."""
        key, version = key_of(obj), version_of(obj)
        old = self._objects.get(key)
        if (old is not None and _at_least(version_of(old), version)) or version <= self._dead.get(uid_of(obj), -1):
            return False
        self._note(Sign(key, version, alive=True))
        self._store(key, old, strip(obj))
        return True

    def remove(self, key: Key, *, uid: str = "", version: int = FOR_GOOD) -> bool:
        """Forgets the object. With a uid, only that one: its successor of the same name stays. True when something went.

        `version` is that of the deletion. A watch with a selector also says DELETED of an object that only left the selection; that one
        may come back, newer.
        """
        old = self._objects.get(key)
        if uid:
            self._bury(uid, version)
        if version != FOR_GOOD:
            self._note(Sign(key, version, alive=False))
        if old is None or (uid and uid_of(old) != uid) or version_of(old) > version:
            return False
        self._drop(key, old, version)
        return True

    def relist(self, namespace: str = "") -> Relist:
        """Begins a comparison with a full list (of one namespace, or of all), which may arrive in pages while other changes go on."""
        return Relist(self, namespace, began_at=self.newest.version if self.newest else 0)

    def _note(self, sign: Sign) -> None:
        if self.newest is None or sign.version > self.newest.version:
            self.newest = sign

    def _take_listed(self, obj: Obj, listed_at: int) -> bool:
        """A list is right about everything up to its own version, even where it shows an older object: history was then set back (True)."""
        key, version = key_of(obj), version_of(obj)
        held = self._objects.get(key)
        if held is not None and version < version_of(held) <= listed_at:
            self._store(key, held, strip(obj))
            return True
        if held is None and version <= self._dead.get(uid_of(obj), -1) <= listed_at:
            del self._dead[uid_of(obj)]
            self._store(key, None, strip(obj))
            return True
        self.put(obj)
        return False

    def _recall(self) -> None:
        """The newest thing known may be one the list did not have."""
        self.newest = None
        for key, obj in self._objects.items():
            self._note(Sign(key, version_of(obj), alive=True))

    def _store(self, key: Key, old: Obj | None, new: Obj) -> None:
        if old is not None:
            self._unindex(key, old)
            if uid_of(old) != uid_of(new):
                self._by_uid.pop(uid_of(old), None)
                self._bury(uid_of(old), FOR_GOOD)
        if self._share is not None:
            self._share(new)
        self._objects[key] = new
        self._by_uid[uid_of(new)] = key
        for name, function in self._index_functions.items():
            index = self._indexes[name]
            for value in function(new):
                index.setdefault(value, {})[key] = new
        self._tell(Change(key, old, new))

    def _drop(self, key: Key, old: Obj, version: int) -> None:
        del self._objects[key]
        self._by_uid.pop(uid_of(old), None)
        self._bury(uid_of(old), version)
        self._unindex(key, old)
        self._tell(Change(key, old, None))

    def _unindex(self, key: Key, obj: Obj) -> None:
        for name, function in self._index_functions.items():
            index = self._indexes[name]
            for value in function(obj):
                found = index.get(value)
                if found is not None:
                    found.pop(key, None)
                    if not found:
                        del index[value]

    def _bury(self, uid: str, version: int) -> None:
        self._dead[uid] = min(version, self._dead.get(uid, version))
        if len(self._dead) > REMEMBERED_DEATHS:
            del self._dead[next(iter(self._dead))]

    def _tell(self, change: Change) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(change)
            except Exception:
                # The others must hear of it, and the watch must go on; a listener only enqueues, so this is a bug of ours.
                log.exception("cache listener failed", extra={"resource": str(self.resource), "key": str(change.key)})


class Relist:
    """One full list against the cache: takes what is newer, and finds the deletions nobody told us about."""

    def __init__(self, cache: Cache, namespace: str, *, began_at: int) -> None:
        self._cache = cache
        self._namespace = namespace
        self._began_at = began_at
        self._seen: set[Key] = set()
        self._rewound = self._set_back = False

    def page(self, items: Iterable[Obj], version: str) -> None:
        """Takes one page of the list made at `version`."""
        # A list is never older than what was seen before it began, unless the API server's store was restored from a backup:
        # then every version here is of a future that did not happen.
        listed_at = parse_version(version)
        self._rewound = self._rewound or 0 < listed_at < self._began_at
        for obj in items:
            self._seen.add(key_of(obj))
            self._set_back |= self._cache._take_listed(obj, FOR_GOOD if self._rewound else listed_at)

    def done(self, version: str) -> list[Key]:
        """Forgets what the list lacks and returns its keys. An object newer than the list answers a write made since, and stays."""
        listed_at = parse_version(version)
        unseen = [(key, obj) for key, obj in self._cache._objects.items() if self._covers(key) and key not in self._seen]
        gone = [key for key, obj in unseen if self._rewound or version_of(obj) <= listed_at]
        for key in gone:
            self._cache._drop(key, self._cache._objects[key], listed_at)
        if gone or self._set_back:
            self._cache._recall()
        return gone

    def _covers(self, key: Key) -> bool:
        return self._namespace in ("", key.namespace)


def _at_least(held: int, offered: int) -> bool:
    """Whether what is held is as new as what is offered. Of unknown age (0), the later arrival wins."""
    return held >= offered > 0
