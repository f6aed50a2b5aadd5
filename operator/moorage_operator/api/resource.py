"""A kind of the API: its names, its columns, and the frame of its objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moorage_operator.api.meta import API_VERSION, ObjectMeta
from moorage_operator.api.schema import Model


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; `wide` ones appear with -o wide."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""


@dataclass(frozen=True)
class Scale:
    """The scale subresource: `kubectl scale`, autoscalers."""

    spec: str = ".spec.replicas"
    status: str = ".status.replicas"
    selector: str = ".status.selector"


@dataclass(frozen=True)
class Kind:
    """How the API server knows a kind. The plural differs from Kubernetes' own and from those of other projects on purpose."""

    name: str
    plural: str
    short: str
    columns: tuple[Column, ...]
    namespaced: bool = True
    scale: Scale | None = None
    selectable: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return API_VERSION


class Resource(Model):
    """An object of the API."""

    KIND: ClassVar[Kind]

    metadata: ObjectMeta
