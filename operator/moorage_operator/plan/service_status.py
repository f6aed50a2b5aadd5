"""How a Service stands: counts, the update, and the conditions Ready, Progressing and Stalled. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from moorage_operator.api import SERVICE_LABEL, Condition, Image, Service, ServiceStatus, Task, UpdateStatus, is_true, stamped
from moorage_operator.api.condition import Truth
from moorage_operator.errors import InvalidSpec
from moorage_operator.plan.placement_outcome import Unplaceable
from moorage_operator.plan.service_plan import Problem, Progress, ServicePlan
from moorage_operator.plan.task import ENDED, task_state

MAX_MESSAGE: Final = 1024
UPDATING, PAUSED, COMPLETED = "Updating", "Paused", "Completed"


def service_status(
    service: Service,
    tasks: Iterable[Task],
    plan: ServicePlan,
    *,
    image: Image | None,
    unplaceable: Sequence[Unplaceable] = (),
    now: datetime,
) -> ServiceStatus:
    """`tasks` as they are after the plan was carried out; `unplaceable`: those that found no node."""
    live = [task for task in tasks if task.metadata.deletion_timestamp is None and task_state(task) not in ENDED]
    ready = [task for task in live if is_true(task.status.conditions, "Ready") and task.spec.slot not in plan.progress.unheard]
    slots, wanted = len({task.spec.slot for task in ready}), plan.progress.wanted
    updated = len({task.spec.slot for task in ready if task.spec.version == plan.version})
    update = _update(service, plan, now=now)
    troubles = _troubles(live, plan, unplaceable)
    return ServiceStatus(
        observed_generation=service.metadata.generation,
        replicas=len(live),
        ready_replicas=slots,
        updated_replicas=plan.progress.updated,
        desired_replicas=wanted,
        replicas_ready=f"{slots}/{wanted}",
        selector=f"{SERVICE_LABEL}={service.metadata.name}",
        image=_image(service, image),
        ports=_ports(service),
        version=plan.version or service.status.version,
        update=update,
        conditions=stamped(
            _conditions(plan, slots, updated, troubles),
            service.status.conditions,
            generation=service.metadata.generation,
            now=now,
        ),
    )


def refused_status(service: Service, error: InvalidSpec, *, now: datetime) -> ServiceStatus:
    """A spec that cannot be acted on: what runs goes on, and the status says what to change."""
    wanted = (
        _condition("Ready", "False", error.reason, str(error)),
        _condition("Progressing", "False", error.reason),
        _condition("Stalled", "True", error.reason, str(error)),
    )
    conditions = stamped(wanted, service.status.conditions, generation=service.metadata.generation, now=now)
    return service.status.model_copy(update={"observed_generation": service.metadata.generation, "conditions": conditions})


# --- conditions


def _conditions(plan: ServicePlan, ready: int, updated: int, troubles: Sequence[Problem]) -> tuple[Condition, ...]:
    """`ready` slots serve, `updated` ones with the wished version: Ready after a change means that the change has arrived."""
    progress, stalled = plan.progress, next((problem for problem in troubles if problem.stalled), None)
    whole = plan.version is not None and updated + progress.done >= progress.wanted
    moving = not whole and stalled is None and progress.paused is None
    first = troubles[0] if troubles else _under_way(progress, ready)
    message = "; ".join(problem.message for problem in troubles[:3]) or first.message
    return (
        _condition("Ready", "True", _fulfilled(progress)) if whole else _condition("Ready", "False", first.reason, message),
        _condition("Progressing", "True", first.reason, message) if moving else _condition("Progressing", "False", _at_rest(plan, whole)),
        _condition("Stalled", "True", stalled.reason, stalled.message) if stalled else _condition("Stalled", "False", "NotStalled"),
    )


def _under_way(progress: Progress, ready: int) -> Problem:
    if ready + progress.done >= progress.wanted:
        return Problem("Updating", _updated(progress))
    return Problem("TasksNotReady", f"{ready + progress.done} of {progress.wanted} tasks are ready")


def _fulfilled(progress: Progress) -> str:
    return "Completed" if progress.wanted and progress.done == progress.wanted else "AllTasksReady"


def _at_rest(plan: ServicePlan, whole: bool) -> str:
    if whole:
        return "Settled"
    return plan.progress.paused.reason if plan.progress.paused is not None else "Stalled"


def _troubles(tasks: Sequence[Task], plan: ServicePlan, unplaceable: Sequence[Unplaceable]) -> list[Problem]:
    """What keeps the Service from being whole, the most telling first."""
    progress = plan.progress
    found = list(plan.problems)
    if progress.paused is not None:
        found.append(progress.paused)
    found += [Problem("TaskFailed", text, stalled=True) for text in progress.over]
    found += [Problem(one.reason, one.message, stalled=one.reason == "InvalidPlacement") for one in unplaceable[:1]]
    found += [Problem("NodeAway", text) for text in progress.waiting]
    found += [Problem("TaskFailing", text) for text in progress.failing if progress.paused is None]
    found += [Problem(task.status.reason or task_state(task), _of_task(task)) for task in tasks if _has_news(task)][:3]
    return list(dict.fromkeys(found))


def _has_news(task: Task) -> bool:
    return not is_true(task.status.conditions, "Ready") and bool(task.status.message) and task_state(task) != "Pending"


def _of_task(task: Task) -> str:
    return f"{task.metadata.name} on node {task.spec.node_name}: {task.status.message}"


def _condition(kind: str, status: Truth, reason: str, message: str = "") -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message[:MAX_MESSAGE])


# --- the update


def _update(service: Service, plan: ServicePlan, *, now: datetime) -> UpdateStatus | None:
    """An update lasts from the first stale slot until every slot has the new version and is proven."""
    before, progress = service.status.update, plan.progress
    under_way = bool(progress.stale or (before is not None and before.state != COMPLETED and (progress.replacing or progress.unsettled)))
    if plan.version is None or (before is None and not under_way):
        return before
    if not under_way:
        return _completed(before, plan.version, now)
    begun = before is not None and before.version == plan.version and before.state != COMPLETED
    started = before.started_at if begun and before is not None else now.replace(microsecond=0)
    message = progress.paused.message if progress.paused else _updated(progress)
    return UpdateStatus(
        state=PAUSED if progress.paused else UPDATING,
        message=message[:MAX_MESSAGE],
        version=plan.version,
        started_at=started,
    )


def _updated(progress: Progress) -> str:
    return f"{progress.updated} of {progress.wanted} slots have the new version"


def _completed(before: UpdateStatus | None, version: str, now: datetime) -> UpdateStatus | None:
    if before is None or before.state == COMPLETED:
        return before
    return before.model_copy(update={"state": COMPLETED, "message": None, "version": version, "completed_at": now.replace(microsecond=0)})


# --- for people


def _image(service: Service, image: Image | None) -> str | None:
    if service.spec.task.image is not None:
        return service.spec.task.image
    if image is not None and image.spec.registry is not None:
        return image.spec.registry.reference
    return None if service.spec.task.image_ref is None else f"Image {service.spec.task.image_ref.name}"


def _ports(service: Service) -> str | None:
    return ", ".join(f"{port.target}/{port.protocol.lower()}" for port in service.spec.ports) or None
