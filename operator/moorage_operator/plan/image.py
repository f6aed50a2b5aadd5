"""What an Image needs done: which node should resolve its reference, when to look again, and its status.

A node resolves: registries may be reachable only from there. What it answered stays pinned in the status, so all nodes run the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from zlib import crc32

from moorage_agent.protocol import ImageSource

from moorage_operator.api import Image, seconds
from moorage_operator.plan.constraint import architecture
from moorage_operator.plan.fleet_view import NodeView
from moorage_operator.plan.image_source import image_source, source_text

RETRY_FIRST: Final = timedelta(seconds=5)
RETRY_MOST: Final = timedelta(minutes=5)

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try of one node that failed. `retry_after_s`: how long its registry asked to be left alone."""

    node: str
    at: datetime
    code: str
    message: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Resolve:
    """Ask this node what the source means."""

    node: str
    source: ImageSource

    def describe(self) -> str:
        return f"resolve {self.source.reference or self.source.url or self.source.path or self.source.key} on {self.node}"


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """`again_at`: when to plan anew, if nothing happens before. `waits`: why nothing can be asked now, for people."""

    resolve: Resolve | None = None
    again_at: datetime | None = None
    waits: str = ""


def plan_image(image: Image, nodes: Iterable[NodeView], attempts: Sequence[Attempt], *, now: datetime) -> ImagePlan:
    """`attempts` are those since the last answer or change of spec, in any order. Asks one node at a time."""
    due = resolve_due(image)
    if due is None:
        return ImagePlan()
    able = sorted(_able(image, nodes), key=lambda node: (_tries(node, attempts), _hash(image, node), node.name))
    if not able:
        return ImagePlan(waits=_nobody(image))
    due = max(due, _not_before(able, attempts)) if attempts else due
    if now < due:
        return ImagePlan(again_at=due)
    return ImagePlan(Resolve(able[0].name, _asked(image)))


def resolve_due(image: Image) -> datetime | None:
    """When the reference has to be looked at: at once if this one never was, else by `refresh`; None: never again."""
    status, registry = image.status, image.spec.registry
    if status.resolved_at is None or not _pinned(image):
        return _LONG_AGO
    if registry is None or registry.refresh is None or "@" in registry.reference:
        return None
    return datetime.fromisoformat(status.resolved_at) + timedelta(seconds=seconds(registry.refresh.interval))


def _pinned(image: Image) -> bool:
    """Whether the digest answers to what spec asks for. An image may call its platform by another name than spec: arm64 is arm64/v8."""
    status, registry = image.status, image.spec.registry
    asked = None if registry is None else registry.platform
    return status.digest is not None and status.reference == source_text(image) and asked in (None, status.platform, status.asked_platform)


def _asked(image: Image) -> ImageSource:
    """What is pinned is looked up again for its own platform, whichever node is asked."""
    source = image_source(image)
    if source.platform is None and image.spec.registry is not None and _pinned(image):
        return replace(source, platform=image.status.platform)
    return source


def wanted_by(image: Image, nodes: Iterable[NodeView]) -> frozenset[str]:
    """The nodes that should have the image before a task needs it (spec.prefetch)."""
    prefetch = image.spec.prefetch
    if prefetch is None or image.status.digest is None:
        return frozenset()
    chosen = (node for node in nodes if prefetch.node_selector.items() <= node.labels.items())
    return frozenset(node.name for node in chosen if not node.given_up and _allowed(image, node) and _right_platform(image, node))


def _able(image: Image, nodes: Iterable[NodeView]) -> list[NodeView]:
    archive = image.spec.archive
    only = archive.node_path.node_ref.name if archive is not None and archive.node_path is not None else None
    ready = (node for node in nodes if node.ready and not node.given_up and only in (None, node.name))
    return [node for node in ready if _allowed(image, node) and _asked_platform(image, node)]


def _allowed(image: Image, node: NodeView) -> bool:
    return node.allowed_namespaces is None or image.metadata.namespace in node.allowed_namespaces


def _asked_platform(image: Image, node: NodeView) -> bool:
    """Any node can look up a platform that spec names; without one the node's own is looked up."""
    return image.spec.registry is None or image.spec.registry.platform is not None or bool(node.arch)


def _right_platform(image: Image, node: NodeView) -> bool:
    platform = image.status.platform
    return platform is None or architecture(platform.split("/")[1]) == architecture(node.arch)


def _nobody(image: Image) -> str:
    archive = image.spec.archive
    if archive is not None and archive.node_path is not None:
        return f"waits for Node {archive.node_path.node_ref.name}, which has the archive, to be ready"
    return f"waits for a ready Node that allows namespace {image.metadata.namespace}"


def _hash(image: Image, node: NodeView) -> int:
    """Different Images ask different nodes."""
    return crc32(f"{image.metadata.uid}/{node.name}".encode())


def _tries(node: NodeView, attempts: Sequence[Attempt]) -> int:
    return sum(attempt.node == node.name for attempt in attempts)


def _not_before(able: Sequence[NodeView], attempts: Sequence[Attempt]) -> datetime:
    """The next node is asked at once; when all have failed there is a pause that doubles, and is no shorter than the registry asked for."""
    rounds = _tries(able[0], attempts)
    if rounds == 0:
        return _LONG_AGO
    last = max(attempts, key=lambda attempt: attempt.at)
    pause = min(RETRY_MOST, RETRY_FIRST * (1 << min(rounds - 1, 10)))
    return last.at + max(pause, timedelta(seconds=last.retry_after_s or 0))
