"""When to probe a container and what the answers mean. Pure; probes are run elsewhere.

Docker's rules decide failure: a probe every interval, unhealthy after `retries` failures in a row, failures inside the start period do not
count. Success is not made to wait for them: until the first one there are early probes in between, whose failures never count.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from moorage_agent.protocol import Healthcheck, ImageConfig, TaskSpec

KEPT_OUTPUT = 4096
FIRST_PROBE_S = 0.25


@dataclass(frozen=True)
class Probe:
    """One answer. `output` is kept for people, at most 4 KiB."""

    ok: bool
    output: str = ""


@dataclass(frozen=True)
class Health:
    """healthy None: no verdict yet. `counts_at`: seconds after the start from which the next failure counts."""

    healthy: bool | None = None
    failures: int = 0
    probes: int = 0
    counts_at: float = 0.0
    output: str = ""


def check_of(task: TaskSpec, image: ImageConfig | None) -> Healthcheck | None:
    """The health check in force: the task's, else the image's; None when there is none or it is switched off."""
    check = task.container.healthcheck or (image.healthcheck if image else None)
    if check is None or check.disabled or (check.exec is None and check.http_port is None and check.tcp_port is None):
        return None
    return check


def begun(check: Healthcheck, *, was_healthy: bool) -> Health:
    """The health of a run nobody probed yet. was_healthy: an earlier daemon had seen this run healthy."""
    return Health(healthy=True if was_healthy else None, counts_at=max(check.interval_s, check.start_period_s))


def next_probe_s(health: Health, check: Healthcheck, *, age_s: float) -> float:
    """Seconds until the next probe of a container that started `age_s` ago."""
    if health.healthy is not None:
        return check.interval_s
    early = min(FIRST_PROBE_S * 2.0 ** min(health.probes, 16), check.start_interval_s, check.interval_s)
    return min(early, max(health.counts_at - age_s, 0.0)) if health.counts_at > age_s else early


def judge(health: Health, probe: Probe, check: Healthcheck, *, age_s: float) -> Health:
    """The health after one more answer."""
    seen = dataclasses.replace(health, probes=health.probes + 1, output=probe.output[-KEPT_OUTPUT:])
    if probe.ok:
        return dataclasses.replace(seen, healthy=True, failures=0)
    if age_s < health.counts_at and health.healthy is None:
        return seen
    failures = health.failures + 1
    verdict = False if failures >= max(check.retries, 1) else health.healthy
    return dataclasses.replace(seen, healthy=verdict, failures=failures, counts_at=age_s + check.interval_s)
