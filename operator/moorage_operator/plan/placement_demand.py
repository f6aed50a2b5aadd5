"""From a Service and its compiled container to what placement needs to know of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from moorage_agent.protocol import Container

from moorage_operator.api import ServiceTemplate
from moorage_operator.plan.placement_needs import Demand, ServiceKey

_TEMPLATE: Final = re.compile(r"\{\{\s*(.*?)\s*\}\}")


def demand_of(
    spec: ServiceTemplate,
    service: ServiceKey,
    version: str,
    container: Container,
    platforms: Iterable[str] = (),
    *,
    constraints: Iterable[str] = (),
) -> Demand:
    """`platforms` are those of the pinned image, `constraints` come on top of the user's (image_source.home_constraint)."""
    placement, resources = spec.placement, container.resources
    return Demand(
        service=service,
        version=version,
        cpu_millis=resources.cpu_reservation or 0,
        memory_bytes=resources.memory_reservation or 0,
        devices=tuple((device.name, device.count) for device in spec.task.resources.reservations.devices),
        ports=container.ports,
        platforms=tuple(platforms),
        constraints=(*placement.constraints, *constraints),
        preferences=tuple(preference.spread for preference in placement.preferences),
        max_per_node=placement.max_replicas_per_node,
        features=tuple(features_of(container)),
        volumes=tuple(dict.fromkeys(shared_volumes(container, service.name))),
    )


def features_of(container: Container) -> Iterator[str]:
    """The host features without which this container would be rejected or would not be held to its limits, by the agent's names."""
    resources, security = container.resources, container.security
    if resources.memory_limit is not None or resources.swap_limit is not None:
        yield "memory"
    if resources.cpu_limit is not None:
        yield "cpu"
    if resources.pids_limit is not None:
        yield "pids"
    if security.user_namespace:
        yield "user-namespaces"
    if security.oom_score_adj is not None and security.oom_score_adj < 0:
        yield "SYS_RESOURCE"


def own_volumes(container: Container, service: str, slot: str, *, alone: bool) -> tuple[str, ...]:
    """Keys of the named volumes that no other slot of the Service uses: named by slot, or of a Service with one slot (`alone`).

    Where such a volume exists already, its data decides where the slot runs. A volume that several slots share by name exists once on each
    of their nodes, so it binds none of them.
    """
    keys = []
    for source in _volumes(container):
        used = set(_TEMPLATE.findall(source))
        if (alone or ".Task.Slot" in used) and used <= {".Task.Slot", ".Service.Name"}:
            keys.append(_TEMPLATE.sub(lambda match: slot if match[1] == ".Task.Slot" else service, source))
    return tuple(keys)


def shared_volumes(container: Container, service: str) -> Iterator[str]:
    """Keys of the named volumes that all slots of the Service use."""
    for source in _volumes(container):
        if set(_TEMPLATE.findall(source)) <= {".Service.Name"}:
            yield _TEMPLATE.sub(service, source)


def _volumes(container: Container) -> Iterator[str]:
    return (mount.source for mount in container.mounts if mount.kind == "volume" and mount.source)
