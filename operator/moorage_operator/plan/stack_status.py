"""How a Stack stands, told from its Services. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from moorage_operator.api import Condition, Service, Stack, StackService, StackServiceStatus, StackStatus, find, is_true, stamped
from moorage_operator.api.condition import Truth
from moorage_operator.plan.stack import CreateService, Hindrance, StackPlan, owns, service_name

MAX_LISTED: Final = 128


@dataclass(frozen=True)
class Standing:
    """One service of the Stack. `ready` None: not known yet, since its object is new or was just changed."""

    name: str
    ready: bool | None
    message: str = ""
    replicas_ready: str | None = None
    moving: bool = False
    stalled: str = ""


def stack_status(
    stack: Stack, services: Iterable[Service], plan: StackPlan, *, now: datetime, failures: Mapping[str, str] | None = None
) -> StackStatus:
    """`services` as the plan saw them or newer. `failures`: what the API server said to writes of the plan, by name of the Service."""
    found = {service.metadata.name: service for service in services if owns(stack, service)}
    standings = [_standing(stack, entry, found.get(service_name(stack, entry)), plan, failures or {}) for entry in stack.spec.services]
    ready = sum(1 for standing in standings if standing.ready)
    return StackStatus(
        observed_generation=stack.metadata.generation,
        services_ready=f"{ready}/{len(standings)}",
        services=tuple([*map(_row, standings), *_kept(stack, plan, found)][:MAX_LISTED]),
        conditions=stamped(
            (_ready(standings), _progressing(standings, plan), _stalled(standings)),
            stack.status.conditions,
            generation=stack.metadata.generation,
            now=now,
        ),
    )


# --- one service


def _standing(stack: Stack, entry: StackService, service: Service | None, plan: StackPlan, failures: Mapping[str, str]) -> Standing:
    name = service_name(stack, entry)
    hindrance = next((one for one in plan.hindrances if one.service == entry.name), None)
    if hindrance is not None:
        return _hindered(entry, hindrance)
    if name in failures:
        return Standing(entry.name, ready=False, message=failures[name], moving=True)
    if service is None:
        return Standing(entry.name, ready=None, message="its Service is being created", moving=True)
    if service.status.observed_generation != service.metadata.generation or _is_written(name, plan):
        return Standing(entry.name, None, "a change is being taken up", service.status.replicas_ready, moving=True)
    return _observed(entry, service)


def _hindered(entry: StackService, hindrance: Hindrance) -> Standing:
    stalled = hindrance.reason if hindrance.stalled else ""
    return Standing(entry.name, ready=False, message=hindrance.message, moving=not hindrance.stalled, stalled=stalled)


def _is_written(name: str, plan: StackPlan) -> bool:
    return any(write.name == name for write in plan.writes if not isinstance(write, CreateService))


def _observed(entry: StackService, service: Service) -> Standing:
    conditions = service.status.conditions
    ready = find(conditions, "Ready")
    stalled = find(conditions, "Stalled")
    is_stalled = stalled is not None and stalled.status == "True"
    known = None if ready is None or ready.status == "Unknown" else ready.status == "True"
    why = stalled if is_stalled else ready
    return Standing(
        name=entry.name,
        ready=known,
        message="" if known or why is None else why.message,
        replicas_ready=service.status.replicas_ready,
        moving=is_true(conditions, "Progressing"),
        stalled="ServiceStalled" if is_stalled else "",
    )


# --- all of them


def _ready(standings: Sequence[Standing]) -> Condition:
    waiting = [standing for standing in standings if not standing.ready]
    if not waiting:
        return Condition(type="Ready", status="True", reason="ServicesReady", message=f"{_count(len(standings))} ready")
    status: Truth = "False" if any(standing.ready is False for standing in waiting) else "Unknown"
    usual = "ServicesNotReady" if status == "False" else "ServicesChanging"
    reason = next((standing.stalled for standing in waiting if standing.stalled), usual)
    message = f"{len(waiting)} of {_count(len(standings))} not ready: {'; '.join(map(_sentence, waiting[:5]))}{_more(waiting)}"
    return Condition(type="Ready", status=status, reason=reason, message=message)


def _progressing(standings: Sequence[Standing], plan: StackPlan) -> Condition:
    moving = [standing.name for standing in standings if standing.moving]
    if not moving and not plan.deletes:
        return Condition(type="Progressing", status="False", reason="Settled", message="nothing is being changed")
    texts = [f"changing {', '.join(moving)}"] if moving else []
    texts += [f"removing {', '.join(delete.name for delete in plan.deletes)}"] if plan.deletes else []
    return Condition(type="Progressing", status="True", reason="ServicesChanging", message="; ".join(texts))


def _stalled(standings: Sequence[Standing]) -> Condition:
    stalled = [standing for standing in standings if standing.stalled]
    if not stalled:
        return Condition(type="Stalled", status="False", reason="NotStalled", message="nothing waits for a person")
    message = "; ".join(map(_sentence, stalled[:5])) + _more(stalled)
    return Condition(type="Stalled", status="True", reason=stalled[0].stalled, message=message)


def _sentence(standing: Standing) -> str:
    return f"{standing.name}: {standing.message or 'not ready'}"


def _more(standings: Sequence[Standing]) -> str:
    return f"; and {len(standings) - 5} more" if len(standings) > 5 else ""


def _count(number: int) -> str:
    return f"{number} service{'' if number == 1 else 's'}"


def _row(standing: Standing) -> StackServiceStatus:
    return StackServiceStatus(
        name=standing.name, replicas_ready=standing.replicas_ready, ready=standing.ready, message=standing.message or None
    )


def _kept(stack: Stack, plan: StackPlan, found: Mapping[str, Service]) -> list[StackServiceStatus]:
    return [
        StackServiceStatus(
            name=name.removeprefix(f"{stack.metadata.name}-"),
            replicas_ready=found[name].status.replicas_ready,
            message=f"left the Stack and is kept, as spec.prune is false: kubectl delete ssvc {name} removes it",
        )
        for name in plan.kept
        if name in found
    ]
