"""Plans of a Service as a table: cases/service.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from moorage_operator.api import Image, Service
from moorage_operator.plan.container_data import DataVersions
from moorage_operator.plan.fleet_view import Fleet, NodeView
from moorage_operator.plan.loss import Losses
from moorage_operator.plan.service import plan_slots
from moorage_operator.plan.service_plan import Advance, Orphan, ServicePlan, Stop, TaskDraft
from moorage_operator.plan.service_wish import Wish, wish_of
from moorage_operator.plan.slot_task import SlotTask
from moorage_operator.plan.slots import global_slot

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CASES = {case["name"]: case for case in yaml.safe_load((Path(__file__).parent / "cases" / "service.yaml").read_text())}
FIELDS = {"plan", "paused", "waiting", "over", "problem", "again"} | {"name", "why", "spec", "hosts", "tasks"}


@pytest.mark.parametrize("name", CASES)
def test_plan(name: str) -> None:
    case = CASES[name]
    assert case.keys() <= FIELDS
    plan = plan_of(case)
    assert list(lines(plan)) == [_named(line) for line in case["plan"]]
    assert_said(case.get("paused"), [plan.progress.paused.message] if plan.progress.paused else [])
    assert_said(case.get("waiting"), plan.progress.waiting, silent_is_fine=True)
    assert_said(case.get("over"), plan.progress.over)
    assert_said(case.get("problem"), [f"{problem.reason}: {problem.message}" for problem in plan.problems])
    if "again" in case:
        assert plan.requeue_at == ago(-case["again"])


def assert_said(expected: str | None, said: Any, *, silent_is_fine: bool = False) -> None:
    if expected is None:
        assert silent_is_fine or not said
    else:
        assert any(expected in text for text in said), said


def plan_of(case: Mapping[str, Any]) -> ServicePlan:
    spec = {"task": {"image": "registry/app:1"}, **case.get("spec", {})}
    service = Service.parse({"metadata": {"name": "web", "namespace": "shop", "uid": "service-uid"}, "spec": spec})
    status = {"digest": f"sha256:{'0' * 64}", "reference": "registry/app:1"}
    image = Image.parse(
        {"metadata": {"name": "i", "namespace": "shop"}, "spec": {"registry": {"reference": "registry/app:1"}}, "status": status}
    )
    wish = wish_of(service, image, DataVersions())
    hosts = case.get("hosts", {}) if spec.get("mode") == "Global" else {"n1": {}, "n2": {}, "n3": {}, **case.get("hosts", {})}
    return plan_slots(wish, [slot_task(task, wish) for task in case["tasks"]], fleet(hosts), losses(hosts), now=NOON)


def lines(plan: ServicePlan) -> Iterator[str]:
    for step in plan.steps():
        if isinstance(step, TaskDraft):
            yield _created(step)
        else:
            verb = {Stop: "stop", Orphan: "orphan", Advance: "run"}[type(step)]
            yield f"{verb} {step.name}"


def _created(draft: TaskDraft) -> str:
    used = draft.container.get("restart", {}).get("attemptsUsed", 0)
    words = [
        f"create {draft.slot}#{draft.attempt} {draft.desired_state}",
        f"for {draft.replaces}" if draft.replaces else "",
        f"home {draft.needs.home.node}" if draft.needs.home else "",
        f"leaves {draft.leaves}" if draft.leaves else "",
        f"used {used}" if used else "",
    ]
    return " ".join(filter(None, words))


def slot_task(task: Mapping[str, Any], wish: Wish) -> SlotTask:
    state, node = task.get("state", "Running"), task.get("node", "n1")
    runs = state == "Running"
    version = wish.version if task.get("version", "new") == "new" else task["version"]
    return SlotTask(
        name=task["name"],
        uid=f"uid-{task['name']}",
        slot=_slot(str(task.get("slot", 1))),
        attempt=task.get("attempt", 1),
        version=version or "unknown",
        created=ago(task.get("age", 300)),
        node=node,
        home=node,
        replaces=f"uid-{task['replaces']}" if "replaces" in task else None,
        start_first=task.get("handover") == "StartFirst",
        wants_run=task.get("wants", "Running") == "Running",
        leaving=task.get("leaving", False),
        state=state,
        reason=task.get("reason", ""),
        message=task.get("message", ""),
        ready_since=ago(task.get("ready", 300)) if runs else None,
        restarts=task.get("restarts", 0),
        exits=tuple(ago(seconds) for seconds in task.get("exits", ())),
        ended_at=ago(task["ended"]) if "ended" in task else None,
        attempts_used=task.get("used", 0),
    )


def fleet(hosts: Mapping[str, Any]) -> Fleet:
    return Fleet.of(
        NodeView(
            name=name,
            uid=f"node-{name}",
            ready=not host.keys() & {"silent", "refuses"},
            availability=host.get("availability", "Active"),
            out_of_service=host.get("outOfService", False),
            labels=host.get("labels", {}),
        )
        for name, host in hosts.items()
        if not host.get("unreadable")
    )


def losses(hosts: Mapping[str, Any]) -> Losses:
    return Losses(
        known=frozenset(hosts),
        silent={name: ago(host["silent"]) for name, host in hosts.items() if "silent" in host},
        given_up=frozenset(name for name, host in hosts.items() if host.get("outOfService")),
    )


def ago(seconds: float) -> datetime:
    return NOON - timedelta(seconds=seconds)


def _slot(text: str) -> str:
    """ "@n1" is the slot of node n1 in a Global service."""
    return global_slot(NodeView(name=text[1:], uid=f"node-{text[1:]}")) if text.startswith("@") else text


def _named(line: str) -> str:
    verb, _, rest = line.partition(" ")
    if not rest.startswith("@"):
        return line
    slot, _, more = rest.partition("#")
    return f"{verb} {_slot(slot)}#{more}"
