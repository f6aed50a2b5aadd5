"""Which collection of the API server is meant: its group, version and plural, and the paths these give."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final
from urllib.parse import quote


@dataclass(frozen=True)
class Resource:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @cached_property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def root(self) -> str:
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path of a collection (of all namespaces when none is given), of an object, or of a part of one."""
        parts = [self.root]
        if namespace and self.namespaced:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


GROUP: Final = "moorage.dev"
VERSION: Final = "v1alpha1"

IMAGES: Final = Resource(GROUP, VERSION, "swarmimages", "Image")
SERVICES: Final = Resource(GROUP, VERSION, "swarmservices", "Service")
STACKS: Final = Resource(GROUP, VERSION, "swarmstacks", "Stack")
NODES: Final = Resource(GROUP, VERSION, "swarmnodes", "Node", namespaced=False)
TASKS: Final = Resource(GROUP, VERSION, "swarmtasks", "Task")
OWN_KINDS: Final = (IMAGES, SERVICES, STACKS, NODES, TASKS)

SECRETS: Final = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
EVENTS: Final = Resource("", "v1", "events", "Event")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
