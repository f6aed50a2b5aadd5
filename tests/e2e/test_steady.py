"""A swarm in which nothing happens does nothing: no writes, no looks, no processor time."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from tests.e2e.looking import daemons, is_ready, shims, zygotes
from tests.fleet import BareHost
from tests.swarm import Swarm, service

pytestmark = pytest.mark.e2e

SECONDS = float(os.environ.get("MOORAGE_STEADY_SECONDS", "60"))
SETTLE_S = 35.0  # hosts look every 30 s at what earlier tests changed on them: volumes, listeners
TICKS = os.sysconf("SC_CLK_TCK")
WRITES = ("create", "update", "patch", "apply", "delete", "post", "put")


@pytest.mark.timeout(SECONDS + 240)
def test_twenty_tasks_at_rest_cost_nothing_but_the_lease(swarm: Swarm, namespace: str, app: str) -> None:
    at_rest = max(SECONDS - SETTLE_S, 20.0)
    swarm.apply(service("web", app, "sleep", "36041", namespace=namespace, replicas=20))
    is_ready(swarm, "ssvc", "web", namespace)
    time.sleep(SETTLE_S)

    writes, looks, cpu = api_writes(swarm), reconciles(swarm), cpu_seconds(swarm)
    time.sleep(at_rest)
    wrote = {call: count - writes.get(call, 0) for call, count in api_writes(swarm).items() if count != writes.get(call, 0)}
    looked = {queue: count - looks.get(queue, 0) for queue, count in reconciles(swarm).items() if count != looks.get(queue, 0)}
    spent = {name: (seconds - cpu[name]) / at_rest * 100 for name, seconds in cpu_seconds(swarm).items()}

    print(f"\nin {at_rest:g} s at rest: writes {wrote}, looks {looked}, percent of a core {spent}")
    assert {resource for _, resource in wrote} <= {"leases"}
    assert sum(looked.values()) <= at_rest / 2, "something is looked at again and again"
    assert spent["operator"] < 10
    assert all(percent < 3 for name, percent in spent.items() if name != "operator")


def api_writes(swarm: Swarm) -> dict[tuple[str, str], float]:
    """Calls of the operator that write, by verb and resource."""
    found: dict[tuple[str, str], float] = {}
    for labels, value in series(swarm, "moorage_api_calls_total"):
        if labels["verb"].lower() in WRITES:
            key = labels["verb"], labels["resource"]
            found[key] = found.get(key, 0) + value
    return found


def reconciles(swarm: Swarm) -> dict[str, float]:
    found: dict[str, float] = {}
    for labels, value in series(swarm, "moorage_reconciles_total"):
        found[labels["queue"]] = found.get(labels["queue"], 0) + value
    return found


def series(swarm: Swarm, name: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each line of one metric."""
    lines = [line for line in swarm.operator.page("/metrics").splitlines() if line.startswith(f"{name}{{")]
    return [(dict(re.findall(r'(\w+)="([^"]*)"', line)), float(line.rsplit(" ", 1)[1])) for line in lines]


def cpu_seconds(swarm: Swarm) -> dict[str, float]:
    """Processor time so far of the operator, and of what we run on each host, containers aside."""
    return {"operator": spent_by(swarm.operator.pid), **{host.name: sum(map(spent_by, pids_of(host))) for host in swarm.hosts}}


def pids_of(host: BareHost) -> list[int]:
    dials = [process for process in host.processes() if process.command.endswith(" dial")]
    return [process.pid for process in (*daemons(host), *zygotes(host), *shims(host), *dials)]


def spent_by(pid: int) -> float:
    """utime and stime, proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
