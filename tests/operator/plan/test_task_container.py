"""Tasks of one version hold one container between them, and whatever is not shared is still read right."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from moorage_agent.protocol import Container, ProtocolError, to_wire
from moorage_operator.api import Task
from moorage_operator.plan.placement_needs import ServiceKey
from moorage_operator.plan.task_container import KEPT, Containers

WEB, DB = ServiceKey("shop", "web"), ServiceKey("shop", "db")


def container(command: str = "serve") -> Container:
    return Container(args=(command,), stop_grace_s=3.0)


def obj(name: str = "web-1", *, of: ServiceKey = WEB, runs: Container | None = None) -> dict[str, Any]:
    """A Task as it arrives: with a container of its own."""
    return {
        "metadata": {"namespace": of.namespace, "name": name, "uid": f"uid-{name}"},
        "spec": {"service": of.name, "slot": "1", "version": "v1", "container": to_wire(runs or container())},
    }


def shared(containers: Containers, task: dict[str, Any]) -> dict[str, Any]:
    containers.share(task)
    return task


def held(task: dict[str, Any]) -> object:
    return task["spec"]["container"]


def test_tasks_that_run_the_same_hold_one_container() -> None:
    containers = Containers()
    one, other = shared(containers, obj("web-1")), shared(containers, obj("web-2"))
    assert held(one) is held(other)


def test_a_task_that_runs_something_else_keeps_its_own() -> None:
    containers = Containers()
    containers.share(obj("web-1"))
    other = shared(containers, obj("web-2", runs=container("migrate")))
    assert held(other) == to_wire(container("migrate"))


def test_a_shared_container_is_read_once_for_all_its_tasks() -> None:
    containers = Containers()
    one, other = (Task.parse(shared(containers, obj(name))) for name in ("web-1", "web-2"))
    assert containers.of(one) == container()
    assert containers.of(one) is containers.of(other)


def test_each_task_is_told_its_own_container() -> None:
    containers = Containers()
    commands = ["serve", "migrate"]
    tasks = [Task.parse(shared(containers, obj(command, runs=container(command)))) for command in commands]
    assert [containers.of(task).args for task in tasks] == [("serve",), ("migrate",)]


def test_a_task_whose_container_is_not_kept_is_read_all_the_same() -> None:
    assert Containers().of(Task.parse(obj())) == container()


def test_a_container_the_operator_did_not_compile_is_refused() -> None:
    task = obj()
    task["spec"]["container"] = {"args": "not a list"}
    containers = Containers()
    containers.share(task)
    with pytest.raises(ProtocolError):
        containers.of(Task.parse(task))


def test_objects_without_a_container_are_left_as_they_are() -> None:
    containers, task = Containers(), obj()
    del task["spec"]["container"]
    assert [shared(containers, deepcopy(task)) for _ in range(2)] == [task, task]


def test_a_service_with_many_versions_keeps_the_newest_and_tasks_of_the_others_lose_nothing() -> None:
    containers = Containers()
    tasks = [shared(containers, obj(f"web-{number}", runs=container(f"v{number}"))) for number in range(KEPT + 1)]
    later = [shared(containers, obj(f"again-{number}", runs=container(f"v{number}"))) for number in range(1, KEPT + 1)]
    assert [held(task) for task in later] == [held(task) for task in tasks[1:]]
    assert all(held(one) is held(other) for one, other in zip(later, tasks[1:], strict=True))
    oldest = shared(containers, obj("again-0", runs=container("v0")))
    assert held(oldest) is not held(tasks[0])
    assert containers.of(Task.parse(tasks[0])) == containers.of(Task.parse(oldest)) == container("v0")


def test_nothing_is_kept_of_a_service_without_tasks() -> None:
    containers = Containers()
    gone, staying = shared(containers, obj()), shared(containers, obj("db-1", of=DB))
    containers.forget(WEB)
    assert held(shared(containers, obj())) is not held(gone)
    assert held(shared(containers, obj("db-2", of=DB))) is held(staying)


def test_forgetting_a_service_nobody_knows_is_harmless() -> None:
    Containers().forget(WEB)
