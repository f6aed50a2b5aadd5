"""A world of Services in memory which a plan for a Stack can be carried out in, as an API server would."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from moorage_operator.api import Service, Stack
from moorage_operator.plan.stack import CreateService, PatchService, StackPlan, plan_stack

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def stack(*services: dict[str, Any], name: str = "shop", uid: str = "stack-1", **spec: Any) -> Stack:
    metadata = {"name": name, "namespace": "default", "uid": uid, "generation": 1}
    return Stack.parse({"metadata": metadata, "spec": {"services": list(services), **spec}})


def entry(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "task": {"image": "app:1"}, **fields}


class World:
    """Holds Services as the server would: with its defaults, uids and generations."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects: dict[str, dict[str, Any]] = {one["metadata"]["name"]: one for one in objects}
        self._uids = itertools.count(1)

    @property
    def services(self) -> list[Service]:
        return [Service.parse(one) for one in self.objects.values()]

    def carry_out(self, plan: StackPlan) -> None:
        for write in plan.writes:
            if isinstance(write, CreateService):
                self.create(write.body)
            elif isinstance(write, PatchService):
                assert self.objects[write.name]["metadata"]["uid"] == write.uid
                self.patch(write.name, write.patch)
            else:
                assert self.objects[write.name]["metadata"]["uid"] == write.uid
                del self.objects[write.name]

    def create(self, body: dict[str, Any]) -> None:
        metadata = {**body["metadata"], "uid": f"service-{next(self._uids)}", "generation": 1}
        assert metadata["name"] not in self.objects
        self.objects[metadata["name"]] = {**body, "metadata": metadata, "spec": {"mode": "Replicated", "replicas": 1, **body["spec"]}}

    def patch(self, name: str, body: dict[str, Any]) -> None:
        before = self.objects[name]
        after = merged(before, body)
        after["metadata"]["generation"] += after["spec"] != before["spec"]
        self.objects[name] = after

    def settle(self, wanted: Stack) -> StackPlan:
        """Carries plans out until one changes nothing; returns that one."""
        for _ in range(4):
            plan = plan_stack(wanted, self.services)
            if not plan.writes:
                return plan
            self.carry_out(plan)
        raise AssertionError(f"the plans never end: {plan.describe()}")

    def report(self, name: str, *conditions: tuple[str, str, str], ready: str = "1/1") -> None:
        """What the Service's own reconciler would write."""
        one = self.objects[name]
        generation = one["metadata"]["generation"]
        told = [
            {"type": kind, "status": status, "reason": "Told", "message": message, "observedGeneration": generation}
            for kind, status, message in conditions
        ]
        one["status"] = {"observedGeneration": generation, "replicasReady": ready, "conditions": told}

    def ready(self, *names: str) -> None:
        for name in names or tuple(self.objects):
            self.report(name, ("Ready", "True", "all tasks are ready"), ("Progressing", "False", ""), ("Stalled", "False", ""))


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, word by word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def describe(world: World, wanted: Stack) -> list[str]:
    return plan_stack(wanted, world.services).describe().splitlines()


def names(services: Iterable[Service]) -> set[str]:
    return {service.metadata.name for service in services}
