"""What reconcilers see and what they may do: typed caches, the API, the fleet, the clock. Values and hands, no decisions."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from moorage_agent.protocol import ImageSource

from moorage_operator.api import Image, Model, Node, Service, Stack, Task
from moorage_operator.api.resource import Resource as AnyModel
from moorage_operator.errors import NotLeader
from moorage_operator.fleet.fleet import Fleet
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import Clock
from moorage_operator.kube.events import EventRecorder
from moorage_operator.kube.object import Key, Obj, uid_of
from moorage_operator.kube.resource import Resource
from moorage_operator.kube.status import StatusWriter
from moorage_operator.plan.loss import Losses, losses
from moorage_operator.plan.service_wish import Wishes
from moorage_operator.plan.task_container import Containers
from moorage_operator.reconcile.data import Data
from moorage_operator.reconcile.image_news import ImageNews
from moorage_operator.reconcile.placer import Placer
from moorage_operator.reconcile.pulse import BEAT_S, Pulse
from moorage_operator.reconcile.refusals import Refusals
from moorage_operator.reconcile.reports import Reports
from moorage_operator.reconcile.ssh_keys import SshKeys
from moorage_operator.reconcile.swarm import Swarm
from moorage_operator.reconcile.typed import Typed
from moorage_operator.settings import Settings

log = logging.getLogger(__name__)

_NEVER = datetime.min.replace(tzinfo=UTC)
LOSSES_HOLD = timedelta(seconds=0.2)


async def _nobody_leads(_: int) -> None:
    raise NotLeader("this process leads no swarm")


@dataclass
class Leadership:
    """Who we are as leader, and since when without a break. epoch 0: this process does not lead."""

    epoch: int = 0
    since: datetime = _NEVER


@dataclass
class World:
    settings: Settings
    clock: Clock
    api: KubeApi
    swarm: Swarm
    stacks: Typed[Stack]
    services: Typed[Service]
    images: Typed[Image]
    nodes: Typed[Node]
    tasks: Typed[Task]
    containers: Containers
    data: Data
    ssh_keys: SshKeys
    placer: Placer
    statuses: Mapping[Resource, StatusWriter]
    events: EventRecorder
    enqueue: Callable[[Resource, Key, float], None]
    """Look at this object, now or after so many seconds."""

    leadership: Leadership = field(default_factory=Leadership)
    raise_epoch_above: Callable[[int], Awaitable[object]] = _nobody_leads
    wishes: Wishes = field(default_factory=Wishes)
    reports: Reports = field(default_factory=Reports)
    image_news: ImageNews = field(default_factory=ImageNews)
    refusals: dict[str, Refusals] = field(default_factory=dict)
    """By uid of the Service."""

    uninstalled: set[str] = field(default_factory=set)
    """Uids of Nodes whose host confirmed that the agent is gone."""

    lent_keys: dict[str, list[ImageSource]] = field(default_factory=dict)
    unplaced: set[Key] = field(default_factory=set)
    """Services with tasks that found no node: they look again when the fleet changes."""

    _fleet: Fleet | None = None
    _losses: Losses | None = None
    _losses_at: datetime = _NEVER

    def __post_init__(self) -> None:
        self._pulse = Pulse(self.clock)

    @property
    def fleet(self) -> Fleet:
        assert self._fleet is not None
        return self._fleet

    def set_fleet(self, fleet: Fleet) -> None:
        """The fleet reports to a desk that sees the world: one of the two has to come second."""
        self._fleet = fleet

    @contextmanager
    def lent(self, uid: str, source: ImageSource) -> Iterator[None]:
        """While a node resolves this source it may ask for the values the source names, though no document of it does."""
        sources = self.lent_keys.setdefault(uid, [])
        sources.append(source)
        try:
            yield
        finally:
            sources.remove(source)

    def now(self) -> datetime:
        return self.clock.now()

    def losses(self) -> Losses:
        """Which nodes are lost right now, and whether nothing may be concluded from it. Worked out anew when a link or Node changed."""
        self._feel_pulse()
        now = self.now()
        if self._losses is None or not timedelta() <= now - self._losses_at <= LOSSES_HOLD:
            since, before = self.leadership.since, self._losses
            names = [key.name for key in self.nodes.raw.keys()]  # noqa: SIM118 (a method of Cache, not of a dict)
            self._losses = losses(self.nodes, dict(self.fleet), leading_since=since, now=now, before=before, names=names)
            self._losses_at = now
        return self._losses

    async def keep_pulse(self) -> None:
        """From now on time that this process did not live through counts as nobody's silence. Endless; for a Supervisor."""
        while True:
            self._feel_pulse()
            self._pulse.beat()
            await self.clock.sleep(BEAT_S)

    def _feel_pulse(self) -> None:
        # Looked at before anything is concluded: whoever wakes first would else replace the tasks of hosts that are well.
        if self._pulse.missed():
            log.warning("this process stood still or its clock was set: nodes have as long to be heard as after a start")
            self.leadership.since = self.now()
            self.forget_losses()
            self._pulse.beat()

    def hurry_the_fallen(self) -> None:
        """One of the nodes is back that fell silent together: so may be the others, up to a minute before their next attempt."""
        fallen = () if self._losses is None else self._losses.reprieved
        nodes = (self.nodes.raw.get(Key("", name)) for name in fallen)
        self.fleet.hurry(uid_of(node) for node in nodes if node is not None)

    def forget_losses(self) -> None:
        """A link or a Node has changed."""
        self._losses_at = _NEVER

    def write_status(self, resource: Resource, model: AnyModel, status: Model, *, after_s: float = 0.0) -> None:
        """Wants this status on the object, within `after_s`; nothing is written that is there already."""
        obj = self._typed(resource).raw.get(Key(model.metadata.namespace, model.metadata.name))
        if obj is not None and obj["metadata"].get("uid") == model.metadata.uid:
            self.statuses[resource].put(obj, wire_status(status), after_s=after_s)

    def raw(self, resource: Resource, key: Key) -> Obj | None:
        return self._typed(resource).raw.get(key)

    def _typed(self, resource: Resource) -> Typed[Any]:
        kinds: dict[str, Typed[Any]] = {
            "Stack": self.stacks,
            "Service": self.services,
            "Image": self.images,
            "Node": self.nodes,
            "Task": self.tasks,
        }
        return kinds[resource.kind]


def wire_status(status: Model) -> Obj:
    """JSON form of a whole status: what it lacks is absent."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)


def key_of_model(model: AnyModel) -> Key:
    return Key(model.metadata.namespace, model.metadata.name)


def seconds_until(moment: datetime | None, now: datetime) -> float | None:
    """How long a queue has to wait for a moment; None: for ever."""
    return None if moment is None else max(0.0, (moment - now).total_seconds())
