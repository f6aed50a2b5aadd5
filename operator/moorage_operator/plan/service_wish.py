"""What a Service asks for, worked out once per plan: its version, container, policies, and what its tasks need of a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from moorage_agent import protocol

from moorage_operator.api import Image, Service, ServiceSpec, find, seconds
from moorage_operator.errors import InvalidSpec
from moorage_operator.plan.container import Compiled, Owner, compile_container
from moorage_operator.plan.container_data import DataVersions
from moorage_operator.plan.image_source import home_constraint, source_text
from moorage_operator.plan.loss_rule import LossRule, check_disconnect, loss_rule
from moorage_operator.plan.placement_demand import demand_of
from moorage_operator.plan.placement_needs import Demand, ServiceKey
from moorage_operator.plan.service_plan import Problem
from moorage_operator.plan.version import version_of


@dataclass(frozen=True)
class Wish:
    """`version` is None while it cannot be told; `problems` say why. Durations are those of spec, as timedelta."""

    key: ServiceKey
    uid: str
    spec: ServiceSpec
    compiled: Compiled
    version: str | None
    demand: Demand
    delay: timedelta
    monitor: timedelta
    problems: tuple[Problem, ...] = ()

    @property
    def is_global(self) -> bool:
        return self.spec.mode == "Global"

    @property
    def start_first(self) -> bool:
        return self.spec.update.order == "StartFirst"

    @property
    def restart(self) -> protocol.Restart:
        return self.compiled.container.restart

    @cached_property
    def has_volume(self) -> bool:
        return any(mount.volume is not None for mount in self.spec.task.mounts)

    @cached_property
    def sticky(self) -> bool:
        """A volume mount implies it: an empty database elsewhere is worse than a pause."""
        sticky = self.spec.placement.sticky
        return self.has_volume if sticky is None else sticky

    @cached_property
    def loss_rule(self) -> LossRule:
        """What a lost node means here. What belongs to its node, and what must not run a second time, waits."""
        rule = loss_rule(self.spec)
        if self.is_global:
            return LossRule(keep=True, after=rule.after, why="as a task of a Global service belongs to its node")
        if self.restart.condition == "None" and not rule.keep:
            return LossRule(keep=True, after=rule.after, why="as restart.condition is None: it must not run a second time")
        return rule

    @cached_property
    def wire(self) -> Mapping[str, Any]:
        """Task.spec.container of a task that follows no failure; all tasks share it."""
        wire: dict[str, Any] = protocol.to_wire(self.compiled.container)
        return wire


def wish_of(service: Service, image: Image | None, data: DataVersions) -> Wish:
    """Raises InvalidSpec for what the API server should have refused."""
    spec, meta = service.spec, service.metadata
    key, owner = ServiceKey(meta.namespace, meta.name), Owner(meta.namespace, meta.name, stack_of(service))
    compiled = compile_container(spec, owner, data)
    digest, unpinned = pinned_digest(spec, image)
    problems = [Problem(one.reason, one.message, stalled=True) for one in compiled.missing]
    problems += [] if unpinned is None else [unpinned]
    problems += _refused(spec)
    version = None if problems or digest is None else version_of(spec, data=compiled.data, digest=digest)
    return Wish(
        key=key,
        uid=meta.uid,
        spec=spec,
        compiled=compiled,
        version=version,
        demand=demand_of(spec, key, version or "", compiled.container, _platforms(image), constraints=_home(image)),
        delay=timedelta(seconds=seconds(spec.update.delay)),
        monitor=timedelta(seconds=seconds(spec.update.monitor)),
        problems=tuple(dict.fromkeys(problems)),
    )


class Wishes:
    """Keeps what each Service asks for until it asks for something else: of its looks nearly all are about its tasks."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, Wish]] = {}

    def of(self, service: Service, image: Image | None, data: DataVersions) -> Wish:
        """As wish_of."""
        meta = service.metadata
        asked = (meta.generation, stack_of(service), None if image is None else _read_of(image), data.objects)
        known = self._known.get(meta.uid)
        if known is None or known[0] != asked:
            known = self._known[meta.uid] = (asked, wish_of(service, image, data))
        return known[1]

    def forget(self, uid: str) -> None:
        """The Service is gone."""
        self._known.pop(uid, None)


def _read_of(image: Image) -> object:
    """All that a wish reads of an Image: its other news are how many nodes have it."""
    meta, status = image.metadata, image.status
    return meta.uid, meta.generation, status.digest, status.reference, status.platform, find(status.conditions, "Ready")


def stack_of(service: Service) -> str | None:
    """The Stack that owns the Service; a label alone makes nobody a member."""
    owner = service.metadata.controller
    return owner.name if owner is not None and owner.kind == "Stack" else None


def pinned_digest(spec: ServiceSpec, image: Image | None) -> tuple[str | None, Problem | None]:
    """What the tasks' image means, or why that is not known. An answer to an older reference does not count."""
    asked = spec.task.image or f"Image {spec.task.image_ref.name if spec.task.image_ref else '?'}"
    if image is None:
        if spec.task.image_ref is not None:
            return None, Problem(
                "ImageMissing", f"{asked} does not exist in this namespace: create it or change task.imageRef", stalled=True
            )
        return None, Problem("ImageNotResolved", f"image {asked} is not resolved to a digest yet")
    source = source_text(image)
    current = spec.task.image in (None, source)
    if current and image.status.digest is not None and image.status.reference == source:
        return image.status.digest, None
    ready = find(image.status.conditions, "Ready")
    why = f": {ready.message}" if current and ready is not None and ready.status == "False" and ready.message else ""
    return None, Problem("ImageNotResolved", f"{asked} is not resolved to a digest yet{why}")


def _refused(spec: ServiceSpec) -> list[Problem]:
    """What the schema cannot see because it lies in several fields, and what it allows for a later version."""
    try:
        check_disconnect(spec)
    except InvalidSpec as error:
        return [Problem(error.reason, str(error), stalled=True)]
    if spec.task.resources.reservations.devices:
        remedy = "name their files in task.security.devices and the nodes in placement.constraints"
        return [Problem("NotSupported", f"no container gets the devices of resources.reservations.devices yet: {remedy}", stalled=True)]
    if spec.task.security.user_namespace:
        return [Problem("NotSupported", "no container gets a user namespace yet: leave task.security.userNamespace out", stalled=True)]
    return []


def _platforms(image: Image | None) -> tuple[str, ...]:
    """The digest is that of one platform."""
    return () if image is None or image.status.platform is None else (image.status.platform,)


def _home(image: Image | None) -> tuple[str, ...]:
    return () if image is None else home_constraint(image)
