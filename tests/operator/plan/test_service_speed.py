"""Planning is quick, and its cost grows with the number of tasks, not with its square. Processor time, because machines are shared."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from moorage_operator.api import Image, Service, Task
from moorage_operator.plan.container_data import DataVersions
from moorage_operator.plan.fleet_view import Fleet, NodeView
from moorage_operator.plan.loss import Losses
from moorage_operator.plan.service import plan_service
from moorage_operator.plan.service_plan import ServicePlan

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FLEET = Fleet.of(NodeView(name=f"n{number}", uid=f"node-{number}") for number in range(100))
SOURCE = {"metadata": {"name": "i", "namespace": "shop"}, "spec": {"registry": {"reference": "app:1"}}}
IMAGE = Image.parse({**SOURCE, "status": {"digest": f"sha256:{'0' * 64}", "reference": "app:1"}})


def plan(service: Service, tasks: list[Task]) -> ServicePlan:
    losses = Losses(known=frozenset(FLEET.nodes))
    return plan_service(service, tasks, FLEET, losses, image=IMAGE, data=DataVersions(), now=NOON + timedelta(hours=1))


def service(replicas: int, token: str = "") -> Service:
    spec = {"replicas": replicas, "restartToken": token, "task": {"image": "app:1", "env": [{"name": "A", "value": "1"}]}}
    return Service.parse({"metadata": {"name": "web", "namespace": "shop", "uid": "service-uid"}, "spec": spec})


def running(replicas: int) -> list[Task]:
    ready = {"type": "Ready", "status": "True", "reason": "Running", "lastTransitionTime": NOON.isoformat()}
    return [
        Task.parse(
            {
                "metadata": {"name": draft.name, "namespace": "shop", "uid": f"task-{number}", "creationTimestamp": NOON.isoformat()},
                "spec": {
                    "service": "web",
                    "slot": draft.slot,
                    "version": draft.version,
                    "container": dict(draft.container),
                    "nodeName": f"n{number % 100}",
                },
                "status": {"state": "Running", "conditions": [ready]},
            }
        )
        for number, draft in enumerate(plan(service(replicas), []).create)
    ]


def cost_s(replicas: int, wish: Service) -> float:
    """The best of five."""
    tasks = running(replicas)
    times = []
    for _ in range(5):
        began = time.process_time()
        plan(wish, tasks)
        times.append(time.process_time() - began)
    return min(times)


def test_a_change_of_a_thousand_replicas_takes_milliseconds() -> None:
    """About 8 ms on a busy 2-core machine."""
    assert cost_s(1000, service(1000, token="again")) < 0.08


def test_the_cost_grows_with_the_number_of_tasks() -> None:
    for wish in (service(4000), service(4000, token="again"), service(10)):
        assert cost_s(4000, wish) < 0.4
    assert cost_s(4000, service(10)) < 12 * cost_s(1000, service(10))
