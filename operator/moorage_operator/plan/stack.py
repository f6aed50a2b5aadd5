"""From a Stack to its Services: which to create, to change, to delete. Pure.

A change is a merge patch of exactly what differs. Server-side apply would not do: a field that is left out of a later apply is either
removed (then replicas falls to its default under an autoscaler's hands) or, where somebody else wrote it too, never removed (then Stack
and Service differ for ever). A patch touches replicas only when it means to, and takes back what was changed by hand.

What `kubectl scale`, an autoscaler, a restart or a suspension by hand wrote into a Service must last, so HANDED_OVER fields are written
only when the Stack's own value changed. The Stack's last value of each is remembered as an annotation of the Service.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from moorage_operator.api import API_VERSION, GROUP, STACK_LABEL, Service, Stack, StackService, owner_reference

HANDED_OVER: Final = ("replicas", "restartToken", "suspend")
REMEMBERED: Final = f"{GROUP}/stack-values"
MAX_NAME: Final = 63

Json = dict[str, Any]


@dataclass(frozen=True)
class CreateService:
    """`body` is the whole object."""

    name: str
    body: Json

    def describe(self) -> str:
        return f"create Service {self.name}"


@dataclass(frozen=True)
class PatchService:
    """`patch` is a merge patch (RFC 7386). Only the object with this uid is meant."""

    name: str
    uid: str
    patch: Json

    def describe(self) -> str:
        return f"change Service {self.name}: {', '.join(_leaves(self.patch))}"


@dataclass(frozen=True)
class DeleteService:
    """Only the object with this uid is meant."""

    name: str
    uid: str
    reason: str

    def describe(self) -> str:
        return f"delete Service {self.name}: {self.reason}"


@dataclass(frozen=True)
class Hindrance:
    """A service of the Stack that cannot be brought about. `stalled`: only a person can help."""

    service: str
    reason: str
    message: str
    stalled: bool = True

    def describe(self) -> str:
        return f"{self.service}: {self.reason}: {self.message}"


@dataclass(frozen=True)
class StackPlan:
    """`kept` are names of Services that left the list of a Stack which does not prune."""

    creates: tuple[CreateService, ...] = ()
    patches: tuple[PatchService, ...] = ()
    deletes: tuple[DeleteService, ...] = ()
    hindrances: tuple[Hindrance, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def writes(self) -> tuple[CreateService | PatchService | DeleteService, ...]:
        """In the order in which they are made: what is deleted makes room first."""
        return (*self.deletes, *self.patches, *self.creates)

    def describe(self) -> str:
        return "\n".join(step.describe() for step in (*self.writes, *self.hindrances))


def plan_stack(stack: Stack, services: Iterable[Service]) -> StackPlan:
    """`services` are those of the Stack's namespace, or at least those it owns and those whose names it needs."""
    if stack.metadata.deletion_timestamp is not None:
        return StackPlan()
    found = {service.metadata.name: service for service in services if service.metadata.namespace == stack.metadata.namespace}
    wanted = {service_name(stack, entry): entry for entry in stack.spec.services}
    steps = [_step(stack, entry, name, found.get(name)) for name, entry in wanted.items()]
    left = [service for name, service in sorted(found.items()) if name not in wanted and owns(stack, service)]
    removed = [_removed(service) for service in left if stack.spec.prune and not _is_going(service)]
    return StackPlan(
        creates=tuple(step for step in steps if isinstance(step, CreateService)),
        patches=tuple(step for step in steps if isinstance(step, PatchService)),
        deletes=tuple(step for step in (*removed, *steps) if isinstance(step, DeleteService)),
        hindrances=tuple(step for step in steps if isinstance(step, Hindrance)),
        kept=() if stack.spec.prune else tuple(service.metadata.name for service in left if not _is_going(service)),
    )


def service_name(stack: Stack, entry: StackService) -> str:
    return f"{stack.metadata.name}-{entry.name}"


def owns(stack: Stack, service: Service) -> bool:
    """By uid: a Stack that was deleted and made anew does not own what the first one left behind."""
    owner = service.metadata.controller
    return owner is not None and owner.uid == stack.metadata.uid


# --- one service


def _step(
    stack: Stack, entry: StackService, name: str, service: Service | None
) -> CreateService | PatchService | DeleteService | Hindrance | None:
    if len(name) > MAX_NAME:
        return Hindrance(entry.name, "NameTooLong", f"Service {name} would have more than {MAX_NAME} characters: shorten {entry.name}")
    if service is None:
        return CreateService(name, _body(stack, entry, name))
    if not owns(stack, service):
        return Hindrance(entry.name, "NameConflict", _taken(stack, service))
    if _is_going(service):
        return Hindrance(entry.name, "BeingDeleted", f"Service {name} is being deleted; it is created anew once it is gone", stalled=False)
    if service.spec.mode != entry.mode:
        return DeleteService(name, service.metadata.uid, f"it is {service.spec.mode} and becomes {entry.mode}, which needs a new object")
    patch = _patch(stack, entry, service)
    return PatchService(name, service.metadata.uid, patch) if patch else None


def _body(stack: Stack, entry: StackService, name: str) -> Json:
    return {
        "apiVersion": API_VERSION,
        "kind": Service.KIND.name,
        "metadata": {
            "name": name,
            "namespace": stack.metadata.namespace,
            "labels": {STACK_LABEL: stack.metadata.name},
            "annotations": {REMEMBERED: _values(entry)},
            "ownerReferences": [owner_reference(Stack.KIND.name, stack.metadata)],
        },
        "spec": _without(entry.wire(), "name"),
    }


def _patch(stack: Stack, entry: StackService, service: Service) -> Json:
    have, want = service.spec.canonical(), _without(entry.canonical(), "name")
    spec = merge_patch(_without(have, *HANDED_OVER), _without(want, *HANDED_OVER)) | _taken_up(entry, service)
    metadata: Json = {}
    if service.metadata.annotations.get(REMEMBERED) != _values(entry):
        metadata["annotations"] = {REMEMBERED: _values(entry)}
    if service.metadata.labels.get(STACK_LABEL) != stack.metadata.name:
        metadata["labels"] = {STACK_LABEL: stack.metadata.name}
    return {key: value for key, value in (("metadata", metadata), ("spec", spec)) if value}


def _taken_up(entry: StackService, service: Service) -> Json:
    """The handed-over fields whose value changed in the Stack.

    A field that leaves the Stack is left to whoever writes it now: an autoscaler takes over at the present number. Without the annotation
    nothing is known, and nothing is touched.
    """
    remembered = service.metadata.annotations.get(REMEMBERED)
    if remembered is None:
        return {}
    before, now = _read(remembered), _given(entry)
    have = {"replicas": service.spec.replicas, "restartToken": service.spec.restart_token, "suspend": service.spec.suspend}
    return {field: value for field, value in now.items() if before.get(field) != value and have[field] != value}


def _given(entry: StackService) -> Json:
    """What the Stack itself says about the handed-over fields. To say nothing about suspend is to say no: nobody else would ever end it."""
    given = {"replicas": entry.replicas, "restartToken": entry.restart_token or None, "suspend": entry.suspend}
    return {field: value for field, value in given.items() if value is not None}


def _values(entry: StackService) -> str:
    return json.dumps(_given(entry), separators=(",", ":"), sort_keys=True)


def _read(remembered: str) -> Json:
    """A damaged annotation counts as the memory of nothing: then the Stack's values hold."""
    try:
        values = json.loads(remembered)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _removed(service: Service) -> DeleteService:
    return DeleteService(service.metadata.name, service.metadata.uid, "it left the Stack")


def _is_going(service: Service) -> bool:
    return service.metadata.deletion_timestamp is not None


def _taken(stack: Stack, service: Service) -> str:
    owner = service.metadata.controller
    whose = f"belongs to {owner.kind} {owner.name}" if owner is not None else "belongs to no Stack"
    name = service.metadata.name
    remedy = f"delete it (kubectl delete ssvc {name}), or rename the service in Stack {stack.metadata.name}"
    return f"Service {name} exists and {whose}: {remedy}"


# --- merge patches


def merge_patch(have: Mapping[str, Any], want: Mapping[str, Any]) -> Json:
    """The merge patch that makes `want` of `have`. Empty when they are the same; null removes; lists are replaced."""
    patch: Json = {key: None for key in have if key not in want}
    for key, value in want.items():
        inner = have.get(key)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            change: Any = merge_patch(inner, value)
            if change:
                patch[key] = change
        elif key not in have or inner != value:
            patch[key] = value
    return patch


def _without(value: Mapping[str, Any], *keys: str) -> Json:
    return {key: item for key, item in value.items() if key not in keys}


def _leaves(patch: Mapping[str, Any], where: str = "") -> Iterator[str]:
    for key, value in patch.items():
        path = f"{where}.{key}".lstrip(".")
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, path)
        else:
            yield path
