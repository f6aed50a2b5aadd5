"""Objects are parsed once, tolerantly where a newer version may speak, and cannot be changed afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage_operator.api import Condition, Service, ServiceSpec, Task, find, is_true, rfc3339, stamped
from moorage_operator.errors import InvalidSpec
from pydantic import ValidationError

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def service(**spec: Any) -> Service:
    return Service.parse({"metadata": {"name": "web"}, "spec": {"task": {"image": "app"}, **spec}})


def test_fields_of_a_newer_version_are_ignored() -> None:
    parsed = Service.parse(
        {
            "metadata": {"name": "web", "managedFields": []},
            "spec": {"task": {"image": "app", "gpu": 1}},
            "status": {"update": {"state": "RollingBack", "x": 1}},
        }
    )
    assert parsed.status.update is not None
    assert parsed.status.update.state == "RollingBack"
    assert parsed.wire()["spec"] == {"task": {"image": "app"}}


def test_what_cannot_be_read_is_named_field_by_field() -> None:
    with pytest.raises(InvalidSpec) as refused:
        Service.parse({"metadata": {"name": "web"}, "spec": {"mode": "Sometimes", "task": {"env": [{"value": "x"}]}}})
    assert str(refused.value) == ("spec.task.env[0].name: field required; spec.mode: input should be 'Replicated' or 'Global'")


def test_a_parsed_object_cannot_be_changed() -> None:
    parsed = service()
    with pytest.raises(ValidationError, match="frozen"):
        parsed.spec.replicas = 3


def test_a_parsed_spec_can_be_a_key() -> None:
    assert len({service().spec, service(replicas=1).spec, service(replicas=2).spec}) == 2


def test_a_quantity_without_quotes_is_the_same() -> None:
    assert service(task={"image": "app", "resources": {"limits": {"cpu": 2}}}) == service(
        task={"image": "app", "resources": {"limits": {"cpu": "2"}}}
    )


def test_a_bool_is_no_quantity() -> None:
    with pytest.raises(InvalidSpec, match=r"spec\.task\.resources\.limits\.cpu"):
        service(task={"image": "app", "resources": {"limits": {"cpu": True}}})


def test_the_canonical_form_does_not_tell_defaults() -> None:
    written = service(mode="Replicated", replicas=1, update={"delay": "0s"}, placement={}, ports=[])
    assert written.canonical() == service().canonical() == {"metadata": {"name": "web"}, "spec": {"task": {"image": "app"}}}
    assert written.spec.wire() != service().spec.wire()


def test_names_on_the_wire_are_kubernetes_own() -> None:
    spec = ServiceSpec.parse({"task": {"image": "app"}, "ports": [{"name": "http", "target": 80, "hostIP": "192.0.2.1"}]})
    assert spec.ports[0].host_ip == "192.0.2.1"
    assert spec.wire()["ports"] == [{"name": "http", "target": 80, "hostIP": "192.0.2.1"}]


def test_the_container_of_a_task_is_kept_as_it_is() -> None:
    container = {"args": ["a"], "env": [{"name": "A", "key": "secret/default/a/b/0123456789abcdef"}], "of": {"a": "newer version"}}
    task = Task.parse({"metadata": {"name": "t"}, "spec": {"service": "web", "slot": "1", "version": "v", "container": container}})
    assert task.spec.container == container
    assert task.wire()["spec"]["container"] == container


# --- conditions


def condition(status: Any, **fields: Any) -> Condition:
    return Condition(type="Ready", status=status, reason="Because", **fields)


def test_a_condition_keeps_its_time_while_its_status_lasts() -> None:
    (first,) = stamped([condition("False")], (), generation=1, now=NOON)
    (second,) = stamped([condition("False", message="still")], [first], generation=2, now=NOON + timedelta(hours=1))
    (third,) = stamped([condition("True")], [second], generation=2, now=NOON + timedelta(hours=2))
    assert [one.last_transition_time for one in (first, second, third)] == [NOON, NOON, NOON + timedelta(hours=2)]
    assert [one.observed_generation for one in (first, second, third)] == [1, 2, 2]


def test_a_condition_that_is_no_longer_wanted_is_gone() -> None:
    assert stamped([], [condition("True")], generation=1, now=NOON) == ()


def test_a_condition_about_an_older_spec_does_not_count() -> None:
    told = [condition("True", observed_generation=1)]
    assert is_true(told, "Ready")
    assert is_true(told, "Ready", generation=1)
    assert not is_true(told, "Ready", generation=2)
    assert not is_true(told, "Stalled")
    assert find(told, "Stalled") is None


@given(st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)))  # noqa: DTZ001 - the zone is added below
def test_times_are_written_as_kubernetes_writes_them(moment: datetime) -> None:
    written = rfc3339(moment.replace(tzinfo=UTC))
    assert written == moment.replace(microsecond=0).isoformat() + "Z"
    read = Condition.parse({"type": "Ready", "status": "True", "reason": "R", "lastTransitionTime": written})
    assert read.wire()["lastTransitionTime"] == written
