from __future__ import annotations

import pytest
from moorage_agent.health import Health, Probe, begun, check_of, judge, next_probe_s
from moorage_agent.protocol import Container, Healthcheck, ImageConfig

from tests.agent.fake_host import task

CHECK = Healthcheck(exec=("check",), interval_s=30, retries=3)
BAD, GOOD = Probe(False, "no"), Probe(True, "yes")


def life(check: Healthcheck, answer_at: float | None, until: float) -> tuple[float | None, float | None]:
    """When a container whose probes succeed from `answer_at` on becomes healthy, and when unhealthy."""
    health, age, healthy_at = begun(check, was_healthy=False), 0.0, None
    while age < until:
        age += next_probe_s(health, check, age_s=age)
        health = judge(health, GOOD if answer_at is not None and age >= answer_at else BAD, check, age_s=age)
        if health.healthy is False:
            return healthy_at, age
        if health.healthy and healthy_at is None:
            healthy_at = age
    return healthy_at, None


def test_a_quick_container_is_healthy_long_before_the_first_interval() -> None:
    healthy_at, _ = life(CHECK, answer_at=0.2, until=100)
    assert healthy_at == 0.25


def test_a_slow_container_has_as_long_as_docker_gives_it() -> None:
    healthy_at, unhealthy_at = life(CHECK, answer_at=85, until=200)
    assert healthy_at is not None
    assert healthy_at <= 91
    assert unhealthy_at is None


def test_a_container_that_never_answers_is_unhealthy_after_its_retries() -> None:
    _, unhealthy_at = life(CHECK, answer_at=None, until=500)
    assert unhealthy_at is not None
    assert 90 <= unhealthy_at <= 95


def test_failures_inside_the_start_period_do_not_count() -> None:
    _, unhealthy_at = life(Healthcheck(exec=("x",), interval_s=10, retries=2, start_period_s=60), answer_at=None, until=500)
    assert unhealthy_at is not None
    assert 70 <= unhealthy_at <= 75


def test_a_healthy_container_is_unhealthy_after_failures_in_a_row_only() -> None:
    health = Health(healthy=True)
    for probe in (BAD, BAD, GOOD, BAD, BAD):
        health = judge(health, probe, CHECK, age_s=1000)
        assert health.healthy is True
    assert judge(health, BAD, CHECK, age_s=1000).healthy is False


def test_a_run_that_was_healthy_stays_so_for_the_next_daemon() -> None:
    assert begun(CHECK, was_healthy=True).healthy is True


@pytest.mark.parametrize(
    ("own", "images", "found"),
    [
        (None, None, None),
        (None, CHECK, CHECK),
        (Healthcheck(disabled=True), CHECK, None),
        (Healthcheck(tcp_port=80), CHECK, Healthcheck(tcp_port=80)),
        (Healthcheck(), None, None),
    ],
)
def test_the_tasks_check_goes_before_the_images(own: Healthcheck | None, images: Healthcheck | None, found: Healthcheck | None) -> None:
    one = task(container=Container(command=("run",), healthcheck=own))
    assert check_of(one, ImageConfig(healthcheck=images)) == found
