"""Which Secrets and ConfigMaps a container reads, and what is known of them: hashes, never values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from moorage_operator.api import TaskTemplate

SECRET: Final = "Secret"  # noqa: S105 - the name of a kind
CONFIG_MAP: Final = "ConfigMap"

_PREFIX: Final = {SECRET: "secret", CONFIG_MAP: "config"}


class DataObject(NamedTuple):
    """A Secret or ConfigMap."""

    kind: str
    namespace: str
    name: str

    def value_key(self, key: str) -> str:
        """The key under which the agent asks for an entry, without the hash that names one content of it."""
        return f"{_PREFIX[self.kind]}/{self.namespace}/{self.name}/{key}"


@dataclass(frozen=True)
class DataVersions:
    """The keyed hash (16 hex digits) of each entry, per object. An object that is not here does not exist."""

    objects: Mapping[DataObject, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MissingData:
    """`key` None: the whole object is missing. `where` says what needs it."""

    object: DataObject
    key: str | None
    where: str

    @property
    def reason(self) -> str:
        return f"{self.object.kind}{'' if self.key is None else 'Key'}Missing"

    @property
    def message(self) -> str:
        kind, namespace, name = self.object
        if self.key is None:
            return f"{kind} {name} does not exist in namespace {namespace}; {self.where} needs it: create it"
        return f"{kind} {name} in namespace {namespace} has no key {self.key}; {self.where} needs it: add the key or change the reference"


def data_objects(task: TaskTemplate, namespace: str) -> frozenset[DataObject]:
    """Every Secret and ConfigMap the task reads: what DataVersions must know of."""
    return frozenset(DataObject(kind, namespace, name) for kind, name in _references(task))


def _references(task: TaskTemplate) -> Iterator[tuple[str, str]]:
    for variable in task.env:
        if variable.value_from is not None and variable.value_from.secret_key_ref is not None:
            yield SECRET, variable.value_from.secret_key_ref.name
        if variable.value_from is not None and variable.value_from.config_map_key_ref is not None:
            yield CONFIG_MAP, variable.value_from.config_map_key_ref.name
    for source in task.env_from:
        if source.secret_ref is not None:
            yield SECRET, source.secret_ref.name
        if source.config_map_ref is not None:
            yield CONFIG_MAP, source.config_map_ref.name
    for secret in task.secrets:
        yield SECRET, secret.secret_ref.name
    for config in task.configs:
        yield CONFIG_MAP, config.config_map_ref.name
