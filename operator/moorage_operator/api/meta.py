"""What every object has: metadata, owners, and the names all of Moorage shares."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import Field

from moorage_operator.api.scalars import DataKey, LabelKey, LabelValue, ObjectName, RefName
from moorage_operator.api.schema import Model

GROUP: Final = "moorage.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

STACK_LABEL: Final = f"{GROUP}/stack"
SERVICE_LABEL: Final = f"{GROUP}/service"
SLOT_LABEL: Final = f"{GROUP}/slot"
NODE_LABEL: Final = f"{GROUP}/node"
TASK_FINALIZER: Final = f"{GROUP}/task"
NODE_FINALIZER: Final = f"{GROUP}/node"
ORPHAN_FINALIZER: Final = "orphan"
"""Kubernetes' own, while an object goes whose dependents shall stay (propagationPolicy Orphan)."""

Labels = Annotated[Mapping[LabelKey, LabelValue], Field(max_length=64)]


class OwnerReference(Model):
    """metav1.OwnerReference."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(Model):
    """The part of metav1.ObjectMeta that Moorage reads. Objects not yet created have no uid."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that manages the object."""
        return next((owner for owner in self.owner_references if owner.controller), None)


class LocalRef(Model):
    """An object in the same namespace."""

    name: ObjectName
    """Name of the object."""


class KeyRef(Model):
    """One entry of a Secret or ConfigMap in the same namespace."""

    name: RefName
    """Name of the Secret or ConfigMap, in the namespace of the object that refers to it."""

    key: DataKey
    """Key of the entry in its data."""


def owner_reference(kind: str, owner: ObjectMeta) -> dict[str, Any]:
    """The reference that makes `owner` the controller of another object."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
