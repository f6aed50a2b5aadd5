"""Image.status: what the reference means, and how far the nodes that want the image have it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from moorage_agent.protocol import Healthcheck, ImageReport, ResolvedImage
from moorage_agent.protocol import ImageConfig as SeenConfig

from moorage_operator.api import Condition, Image, ImageConfig, ImageStatus, is_true, memory_text, rfc3339, stamped
from moorage_operator.api.condition import Truth
from moorage_operator.api.image_status import (
    MAX_FAILURES,
    MAX_LABELS,
    MAX_LAYERS,
    MAX_PLATFORMS,
    MAX_PORTS,
    MAX_TEXT,
    MAX_TEXTS,
    ImageHealthcheck,
    LayerStatus,
    NodeCounts,
    Progress,
    PullFailure,
)
from moorage_operator.api.scalars import MAX_LINE
from moorage_operator.plan.image import Attempt, ImagePlan
from moorage_operator.plan.image_source import source_text

MAX_MESSAGE: Final = 1024
NEWS_EVERY: Final = timedelta(seconds=2)

# The agent's words for what is wrong with the manifest or the image itself, so that no retry can help.
_FOR_GOOD: Final = frozenset(("InvalidReference", "InvalidImage", "NoMatchingPlatform", "UnsupportedCompression"))


@dataclass(frozen=True, slots=True)
class Holders:
    """`wanted`: the nodes that should have the image; `reports`: what nodes said about its digest, by name."""

    wanted: frozenset[str] = frozenset()
    reports: Mapping[str, ImageReport] | None = None


def resolved_status(image: Image, answer: ResolvedImage, *, now: datetime) -> ImageStatus:
    """The status with a node's answer. A tag that moved is pinned anew only with refresh.rollout Auto; a changed spec always is."""
    if _only_available(image, answer):
        return image.status.model_copy(update={"available_digest": answer.digest, "resolved_at": rfc3339(now)})
    changes: dict[str, Any] = {
        "reference": source_text(image),
        "digest": answer.digest,
        "short_digest": answer.digest.removeprefix("sha256:")[:12],
        "platform": answer.platform,
        "asked_platform": None if image.spec.registry is None else image.spec.registry.platform,
        "platforms": tuple(platform[:MAX_LINE] for platform in answer.platforms[:MAX_PLATFORMS]),
        "size": memory_text(answer.size),
        "size_bytes": answer.size,
        "layer_count": len(answer.layers),
        "layers": tuple(LayerStatus(digest=layer.digest, size=layer.size) for layer in answer.layers[:MAX_LAYERS]),
        "config": _config(answer.config),
        "resolved_at": rfc3339(now),
        "available_digest": None,
    }
    return image.status.model_copy(update=changes)


def image_status(image: Image, plan: ImagePlan, attempts: Sequence[Attempt], holders: Holders, *, now: datetime) -> ImageStatus | None:
    """The status with conditions and the nodes' progress; None when it says all this already. `image.status` may be a resolved_status."""
    reports = {name: report for name, report in (holders.reports or {}).items() if name in holders.wanted}
    counts = _counts(holders.wanted, reports.values())
    failures = _failures(reports)
    conditions = stamped(
        _conditions(image, plan, attempts, failures), image.status.conditions, generation=image.metadata.generation, now=now
    )
    changes: dict[str, Any] = {
        "observed_generation": image.metadata.generation,
        "nodes": counts,
        "nodes_ready": f"{counts.ready}/{counts.wanted}",
        "failures": failures[:MAX_FAILURES],
        "progress": _progress(reports.values()),
        "conditions": conditions,
    }
    status = image.status.model_copy(update=changes)
    return None if status == image.status else status


def write_at(before: ImageStatus, after: ImageStatus, *, first_seen: datetime) -> datetime:
    """When `after` is worth a write: at once for a pin or a condition, every 2 s for the nodes' progress."""
    return first_seen + (NEWS_EVERY if _essence(before) == _essence(after) else timedelta())


def _only_available(image: Image, answer: ResolvedImage) -> bool:
    status, registry = image.status, image.spec.registry
    pinned = status.digest is not None and status.reference == source_text(image) and status.platform == answer.platform
    return (
        pinned
        and status.digest != answer.digest
        and registry is not None
        and registry.refresh is not None
        and registry.refresh.rollout != "Auto"
    )


def _conditions(image: Image, plan: ImagePlan, attempts: Sequence[Attempt], failures: Sequence[PullFailure]) -> tuple[Condition, ...]:
    ready, stalled = _ready(image, plan, attempts, failures)
    available = image.status.available_digest
    remedy = f"write spec.registry.reference with @{available} to take it, or refresh.rollout: Auto" if available else ""
    return (
        ready,
        _condition("Stalled", "True" if stalled else "False", ready.reason, ready.message if stalled else ""),
        _condition("UpdateAvailable", "True" if available else "False", "TagMoved" if available else "UpToDate", remedy),
    )


def _ready(image: Image, plan: ImagePlan, attempts: Sequence[Attempt], failures: Sequence[PullFailure]) -> tuple[Condition, bool]:
    if image.status.digest is None or image.status.reference != source_text(image):
        return _unresolved(plan, attempts)
    if failures:
        first = failures[0]
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        return _condition("Ready", "False", first.reason or "PullFailed", f"node {first.node}{more}: {first.message}"), False
    return _condition("Ready", "True", "Resolved"), False


def _unresolved(plan: ImagePlan, attempts: Sequence[Attempt]) -> tuple[Condition, bool]:
    if attempts:
        last = max(attempts, key=lambda attempt: attempt.at)
        return _condition("Ready", "False", last.code, f"node {last.node}: {last.message}"), last.code in _FOR_GOOD
    if plan.waits:
        return _condition("Ready", "False", "NoNode", plan.waits), False
    return _condition("Ready", "Unknown", "Resolving", "a node is asked what the reference means"), False


def _counts(wanted: frozenset[str], reports: Iterable[ImageReport]) -> NodeCounts:
    states = [report.state for report in reports]
    pulling = states.count("Queued") + states.count("Pulling")
    return NodeCounts(wanted=len(wanted), ready=states.count("Ready"), pulling=pulling, failed=states.count("Failed"))


def _failures(reports: Mapping[str, ImageReport]) -> tuple[PullFailure, ...]:
    failed = ((name, report) for name, report in sorted(reports.items()) if report.state == "Failed")
    return tuple(PullFailure(node=name, reason=one.reason or "PullFailed", message=one.message[:MAX_MESSAGE]) for name, one in failed)


def _progress(reports: Iterable[ImageReport]) -> Progress | None:
    pulling = [report for report in reports if report.state == "Pulling" and report.total]
    if not pulling:
        return None
    return Progress(done=sum(report.done for report in pulling), total=sum(report.total for report in pulling))


def _config(seen: SeenConfig) -> ImageConfig:
    """For people, and no longer than the API server takes it: what runs is what the image says, not this."""
    return ImageConfig(
        entrypoint=_texts(seen.entrypoint),
        command=_texts(seen.command),
        env=_texts(seen.env),
        user=seen.user[:MAX_LINE] or None,
        working_dir=seen.working_dir[:MAX_TEXT] or None,
        ports=tuple(port[:MAX_LINE] for port in seen.ports[:MAX_PORTS]),
        volumes=_texts(seen.volumes),
        stop_signal=None if seen.stop_signal is None else seen.stop_signal[:MAX_LINE],
        healthcheck=None if seen.healthcheck is None else _healthcheck(seen.healthcheck),
        labels={name: text[:MAX_TEXT] for name, text in islice(seen.labels.items(), MAX_LABELS) if len(name) <= MAX_LINE},
    )


def _texts(said: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(text[:MAX_TEXT] for text in (said or ())[:MAX_TEXTS])


def _healthcheck(seen: Healthcheck) -> ImageHealthcheck:
    return ImageHealthcheck(
        command=_texts(seen.exec),
        interval=f"{seen.interval_s:g}s",
        timeout=f"{seen.timeout_s:g}s",
        retries=seen.retries,
        start_period=f"{seen.start_period_s:g}s",
    )


def _condition(kind: str, status: Truth, reason: str, message: str = "") -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message[:MAX_MESSAGE])


def _essence(status: ImageStatus) -> tuple[Any, ...]:
    return (
        status.digest,
        status.available_digest,
        status.observed_generation,
        [(one.type, is_true((one,), one.type), one.reason) for one in status.conditions],
    )
