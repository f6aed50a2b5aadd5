"""What is a new version, and what is not: a version that changes restarts every container."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage_operator.api import ServiceSpec
from moorage_operator.api.container import TaskTemplate
from moorage_operator.plan.version import version_of
from pydantic import Field

DIGEST = "sha256:" + "1" * 64
BASE: dict[str, Any] = {
    "task": {
        "image": "app:1",
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        "args": ["x", "y"],
        "resources": {"limits": {"memory": "1Gi", "cpu": "500m"}},
        "security": {"capAdd": ["CHOWN", "NET_ADMIN"]},
        "stopGracePeriod": "90s",
    }
}


def version(spec: dict[str, Any], *, data: dict[str, str] | None = None, digest: str = DIGEST) -> str:
    return version_of(ServiceSpec.parse(spec), data=data or {}, digest=digest)


def with_task(**task: Any) -> dict[str, Any]:
    return {**BASE, "task": {**BASE["task"], **task}}


SAME = {
    "more replicas": {**BASE, "replicas": 7},
    "suspended": {**BASE, "suspend": True},
    "other update settings": {**BASE, "update": {"parallelism": 5, "order": "StartFirst", "delay": "1m"}},
    "a constraint": {**BASE, "placement": {"constraints": ["node.labels.zone == eu"], "maxReplicasPerNode": 2}},
    "unreachable policy": {**BASE, "unreachable": {"policy": "Keep"}},
    "defaults written out": {**BASE, "network": {"mode": "Isolated"}, "restartToken": "", "ports": []},
    "task defaults written out": with_task(tty=False, restart={"condition": "Any", "delay": "1s"}, logs={"maxFiles": 3}),
    "variables in another order": with_task(env=[{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]),
    "capabilities in another order": with_task(security={"capAdd": ["NET_ADMIN", "CHOWN"]}),
    "quantities written otherwise": with_task(resources={"limits": {"memory": "1024Mi", "cpu": "0.5"}}),
    "a duration written otherwise": with_task(stopGracePeriod="1m30s"),
    "fields unknown here": {**with_task(fromTheFuture={"x": 1}), "alsoUnknown": True},
    "an empty reservation": with_task(resources={**BASE["task"]["resources"], "reservations": {}}),
}
OTHER = {
    "another restart token": {**BASE, "restartToken": "2026-03-01"},
    "another tag": with_task(image="app:2"),
    "arguments in another order": with_task(args=["y", "x"]),
    "no arguments instead of the image's": with_task(args=[]),
    "another variable": with_task(env=[{"name": "A", "value": "1"}]),
    "the host's network": {**BASE, "network": {"mode": "Host"}},
    "a port": {**BASE, "network": {"mode": "Host"}, "ports": [{"name": "http", "target": 80}]},
    "stopAfter": {**BASE, "onDisconnect": {"stopAfter": "1m"}},
    "another limit": with_task(resources={"limits": {"memory": "2Gi", "cpu": "500m"}}),
}


@pytest.mark.parametrize("what", SAME)
def test_is_the_same_version_with(what: str) -> None:
    assert version(SAME[what]) == version(BASE)


@pytest.mark.parametrize("what", OTHER)
def test_is_another_version_with(what: str) -> None:
    others = [version(BASE), *(version(spec) for name, spec in OTHER.items() if name != what)]
    assert version(OTHER[what]) not in others


def test_other_content_of_a_secret_is_another_version() -> None:
    one, other = {"secret/shop/db/password": "a" * 16}, {"secret/shop/db/password": "b" * 16}
    assert len({version(BASE), version(BASE, data=one), version(BASE, data=other)}) == 3


def test_another_digest_is_another_version() -> None:
    assert version(BASE) != version(BASE, digest="sha256:" + "2" * 64)


def test_an_operator_that_knows_more_fields_restarts_nothing() -> None:
    class TaskOfTheFuture(TaskTemplate):
        warp: str = "off"
        lanes: tuple[str, ...] = ()
        shield: dict[str, int] = Field(default_factory=dict)

    class SpecOfTheFuture(ServiceSpec):
        task: TaskOfTheFuture
        orbit: int = 3

    future = SpecOfTheFuture.parse(BASE)
    assert version_of(future, data={}, digest=DIGEST) == version(BASE)


def test_versions_are_these_for_ever() -> None:
    """If this fails, every container of every user would be restarted by the next upgrade: raise FORMAT and keep the old one readable."""
    assert version({"task": {"image": "app:1"}}) == "1-dcfeaaa46142569f"
    assert version(BASE, data={"secret/shop/db/password": "a" * 16}) == "1-ce0fcd3034e40c95"


@given(st.permutations(list(BASE["task"].items())), st.permutations(BASE["task"]["env"]))
def test_order_of_maps_has_no_meaning(items: list[tuple[str, Any]], env: list[dict[str, str]]) -> None:
    assert version({**BASE, "task": {**dict(items), "env": env}}) == version(BASE)
