"""Who set which field of an object: the part of server-side apply that decides what an apply removes and where two managers collide."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.operator.fakeapi.patching import Path, at, leaves

Obj = dict[str, Any]
NOBODYS = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "deletionTimestamp")


class Manager(NamedTuple):
    name: str
    operation: str
    part: str = ""


class Ownership:
    """Of one object."""

    def __init__(self) -> None:
        self._fields: dict[Manager, set[Path]] = {}

    def of(self, manager: Manager) -> set[Path]:
        return set(self._fields.get(manager, ()))

    def collisions(self, old: Obj, wish: Obj, manager: Manager) -> list[tuple[str, Path]]:
        """Fields another manager set to something else."""
        contested = [path for path in owned_by_wish(wish) if at(old, path) is not None and at(old, path) != at(wish, path)]
        return [(other.name, path) for path in contested for other, paths in self._fields.items() if other != manager and path in paths]

    def applied(self, wish: Obj, manager: Manager, *, contested: list[tuple[str, Path]]) -> None:
        lost = {path for _, path in contested}
        for other, paths in self._fields.items():
            if other != manager:
                paths -= lost
        self._fields[manager] = owned_by_wish(wish)

    def updated(self, old: Obj, new: Obj, manager: Manager) -> None:
        fields = owned_by_wish(new)
        set_now = {path for path in fields if at(old, path) != at(new, path)}
        for other, paths in self._fields.items():
            paths &= fields
            if other != manager:
                paths -= set_now
        self._fields.setdefault(manager, set()).update(set_now)

    def shown(self) -> list[Obj]:
        """As metadata.managedFields shows it, without the fields."""
        return [
            {"manager": manager.name, "operation": manager.operation, "fieldsType": "FieldsV1", "fieldsV1": {}}
            | ({"subresource": manager.part} if manager.part else {})
            for manager, paths in self._fields.items()
            if paths
        ]


def owned_by_wish(obj: Obj) -> set[Path]:
    metadata = {name: value for name, value in obj.get("metadata", {}).items() if name not in NOBODYS}
    rest = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "metadata")}
    return leaves({**rest, "metadata": metadata} if metadata else rest)
