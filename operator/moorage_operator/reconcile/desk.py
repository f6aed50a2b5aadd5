"""Where sessions come to: what their node should run, the values it may have, and what they heard."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from moorage_agent.protocol import ImageSource, ImageSpec, NodeReport, NodeSpec, TaskSpec

from moorage_operator.api import Node, is_true
from moorage_operator.errors import AgentError, InvalidSpec, Unreachable
from moorage_operator.fleet.link import Claim, Link, Wish
from moorage_operator.fleet.target import Target
from moorage_operator.kube.object import Key, deleting, key_of
from moorage_operator.kube.resource import IMAGES, NODES, SERVICES, TASKS
from moorage_operator.plan.container_data import CONFIG_MAP, SECRET, DataObject
from moorage_operator.plan.document import is_wished, node_images, value_keys
from moorage_operator.plan.image import wanted_by
from moorage_operator.plan.image_source import image_source
from moorage_operator.plan.value_key import changes_under_its_key
from moorage_operator.reconcile import indexes
from moorage_operator.reconcile.documented import Documented
from moorage_operator.reconcile.pull_secret import registry_credentials
from moorage_operator.reconcile.target import target_of
from moorage_operator.reconcile.world import World

BELIEVABLE: Final = 1_000_000
"""Epochs count acquisitions of the Lease: so many in a row there are in no life of a swarm, and too few to reach any limit of numbers."""

COUNT_S = 0.2
"""Nodes tell of an image in a burst, when a Service comes or the operator does: one look counts them all."""


class OperatorDesk:
    """A host is believed about itself and about nothing else: it gets no value that no document of its own names."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._documented = Documented(world.containers, world.tasks, world.images)
        self._wishes: dict[str, Wish] = {}
        self._specs: dict[str, tuple[TaskSpec, ...]] = {}
        self._stood: dict[str, tuple[bool, str]] = {}

    def wish(self, uid: str) -> Wish:
        node = self._world.nodes.by_uid(uid)
        if node is None:
            return self._last_wish(uid)
        name = node.metadata.name
        entries = self._documented.of(name, self._world.tasks.every(indexes.NODE, name))
        specs = self._specs[uid] = tuple(entry.spec for entry in entries)
        self._world.reports.tell(task.uid for task in specs)
        wish = self._wishes[uid] = Wish(name, tuple(entry.wire for entry in entries), node_images(self._prefetched(node)))
        return wish

    def _last_wish(self, uid: str) -> Wish:
        """For a Node that is gone or that nobody can read: to wish for nothing would stop what runs there."""
        if uid not in self._wishes:
            raise InvalidSpec("the Node cannot be read, so nobody knows what its host should run", reason="Unreadable")
        return self._wishes[uid]

    def claim(self, uid: str, bound: dict[str, Any] | None) -> Claim:
        """A host of our own swarm whose Node object is gone is taken over by the one that was made anew."""
        world, node = self._world, self._world.nodes.by_uid(uid)
        ours = bound is not None and bound.get("swarmId") == world.swarm.id
        orphaned = ours and bound is not None and world.nodes.raw.by_uid(str(bound.get("nodeUid"))) is None
        return Claim(world.swarm.id, world.leadership.epoch, adopt=bool(orphaned or (node is not None and node.spec.adopt)))

    async def value(self, uid: str, key: str) -> bytes:
        if key not in self._allowed(uid):
            raise InvalidSpec(f"nothing that this node shall run needs {key}", reason="NotYours")
        kind, namespace, name, *rest = key.split("/", 3)
        data = self._world.data
        match kind:
            case "secret" | "config":
                entry, _, digest = rest[0].partition("/")
                return await data.entry(
                    DataObject(SECRET if kind == "secret" else CONFIG_MAP, namespace, name), entry, digest=digest or None
                )
            case "pull":
                entries = await data.entries(DataObject(SECRET, namespace, name))
                return json.dumps(registry_credentials(entries, rest[0], secret=f"{namespace}/{name}")).encode()
            case "ca":
                return await data.entry(DataObject(CONFIG_MAP, namespace, name), rest[0], digest=None)
        raise InvalidSpec(f"values of kind {kind} are not known", reason="UnknownValue")

    def changing_keys(self, uid: str) -> list[str]:
        return sorted(key for key in self._named(uid) if changes_under_its_key(key))

    async def pin(self, uid: str, target: Target, host_keys: tuple[str, ...]) -> None:
        """Into spec, where a person sees and changes them; if somebody pinned meanwhile, or the Node leads to another host by now, the
        connection is made anew.
        """
        node = self._world.nodes.by_uid(uid)
        if node is None or node.spec.ssh.host_keys or (await target_of(node, self._world)).route != target.route:
            raise Unreachable("the Node changed while its host was seen for the first time")
        body = {
            "metadata": {"uid": uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"ssh": {"hostKeys": list(host_keys)}},
        }
        pinned = await self._world.api.patch(NODES, Key("", node.metadata.name), body)
        self._world.nodes.raw.put(pinned)
        self._world.events.record(pinned, "HostKeysPinned", f"trusted on first use: {', '.join(host_keys)}")

    def on_link(self, uid: str, link: Link) -> None:
        world, node = self._world, self._world.nodes.by_uid(uid)
        if link.connected:
            world.hurry_the_fallen()
        world.forget_losses()
        if node is None:
            return
        world.enqueue(NODES, Key("", node.metadata.name), 0.0)
        if self._is_news(node, link):
            for task in world.tasks.raw.by(indexes.NODE, node.metadata.name):
                world.enqueue(SERVICES, Key(key_of(task).namespace, task["spec"].get("service", "")), 0.0)
                if deleting(task):
                    world.enqueue(TASKS, key_of(task), 0.0)

    def _is_news(self, node: Node, link: Link) -> bool:
        """Whether tasks there may be seen in another light. The hundredth failed attempt changes nothing, nor does contact with a node that
        was Ready all the time; when silence becomes a loss, or a node turns Ready again, its status says so.
        """
        stands, uid = (link.connected, link.reason), node.metadata.uid
        before, self._stood[uid] = self._stood.get(uid), stands
        return stands != before and not (before is None and link.connected and is_true(node.status.conditions, "Ready"))

    def on_report(self, uid: str, report: NodeReport) -> None:
        world, node = self._world, self._world.nodes.by_uid(uid)
        if node is None:
            return
        placed = world.tasks.by(indexes.NODE, node.metadata.name) if report.full else ()
        unwished = [task.metadata.uid for task in placed if not is_wished(task)]
        if report.full:
            world.reports.know(uid, (each.uid for each in report.tasks))
        report = self._about_its_own(node, report)
        world.reports.tell(each.uid for each in report.tasks)
        for task_uid in world.reports.take(report, unwished=unwished):
            task = world.tasks.by_uid(task_uid)
            if task is not None:
                world.enqueue(TASKS, Key(task.metadata.namespace, task.metadata.name), 0.0)
        self._take_images(node, report)
        if report.facts is not None:
            world.enqueue(NODES, Key("", node.metadata.name), 0.0)

    def _about_its_own(self, node: Node, report: NodeReport) -> NodeReport:
        """Without what it says of Tasks that are another node's, or nobody's."""
        name, tasks = node.metadata.name, self._world.tasks.raw

        def own(uid: str) -> bool:
            task = tasks.by_uid(uid)
            return task is not None and task["spec"].get("nodeName") == name

        return replace(
            report,
            tasks=tuple(each for each in report.tasks if own(each.uid)),
            removed=tuple(uid for uid in report.removed if own(uid)),
        )

    async def on_newer_epoch(self, uid: str, epoch: int) -> None:
        """Any host of the swarm may have obeyed another operator. None has obeyed a million of them that this one never heard of."""
        world = self._world
        if epoch > world.leadership.epoch + BELIEVABLE:
            message = f"the host claims an epoch more than {BELIEVABLE:,} above ours, which is {world.leadership.epoch}: look at that host"
            node = world.nodes.raw.by_uid(uid)
            if node is not None:
                world.events.record(node, "EpochNotBelieved", message, warning=True)
            raise AgentError(message, reason="EpochNotBelieved")
        await world.raise_epoch_above(epoch)

    def forget(self, uid: str) -> None:
        self._world.reports.forget_node(uid)
        self._wishes.pop(uid, None)
        self._specs.pop(uid, None)
        self._stood.pop(uid, None)

    def _take_images(self, node: Node, report: NodeReport) -> None:
        digests = self._world.image_news.take(node.metadata.name, report.images, full=report.full)
        for digest in digests:
            for image in self._world.images.by(indexes.DIGEST, digest):
                self._world.enqueue(IMAGES, Key(image.metadata.namespace, image.metadata.name), COUNT_S)

    def _prefetched(self, node: Node) -> list[ImageSpec]:
        view = self._world.placer.view.fleet().nodes.get(node.metadata.name)
        if view is None:
            return []
        wanted = [image for image in self._world.images.by(indexes.PREFETCH, "") if wanted_by(image, [view])]
        return [ImageSpec(image.status.digest, image_source(image)) for image in wanted if image.status.digest]

    def _allowed(self, uid: str) -> frozenset[str]:
        lent = self._world.lent_keys.get(uid, ())
        return self._named(uid) | {key for source in lent for key in _keys(source)}

    def _named(self, uid: str) -> frozenset[str]:
        """Keys of the values the node's document names."""
        wish = self._wishes.get(uid)
        return frozenset() if wish is None else value_keys(NodeSpec("", uid, 0, 0, tasks=self._specs[uid], images=wish.images))


def _keys(source: ImageSource) -> list[str]:
    return [key for key in (source.key, source.credentials, source.ca_bundle) if key]
