"""What every Kubernetes object has, read from the plain dict it travels as. Nothing here knows a kind."""

from __future__ import annotations

from typing import Any, NamedTuple

Obj = dict[str, Any]
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Key(NamedTuple):
    """What names an object among its kind; a cluster-scoped one has the namespace "" (empty)."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def key_of(obj: Obj) -> Key:
    metadata = obj["metadata"]
    return Key(metadata.get("namespace", ""), metadata["name"])


def uid_of(obj: Obj) -> str:
    return str(obj["metadata"].get("uid", ""))


def version_of(obj: Obj) -> int:
    return parse_version(obj["metadata"].get("resourceVersion", ""))


def parse_version(text: str) -> int:
    """resourceVersions are decimal and ordered (KEP-5504, promised since Kubernetes 1.35). One that is not becomes 0: of unknown age."""
    return int(text) if text.isdecimal() else 0


def deleting(obj: Obj) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def strip(obj: Obj) -> Obj:
    """Drops, in place, what nobody here reads: managedFields and kubectl's copy of the manifest are half of a typical object."""
    metadata = obj["metadata"]
    metadata.pop("managedFields", None)
    annotations = metadata.get("annotations")
    if annotations is not None:
        annotations.pop(LAST_APPLIED, None)
    return obj
