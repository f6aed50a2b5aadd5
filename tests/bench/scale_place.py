"""Figure scale_place_20000_s: 20,000 tasks of 1,000 Services find their places on 1,000 nodes.

CPU seconds, because the machine is shared. Questions that are harder than usual have figures of their own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from moorage_agent.protocol import Port
from moorage_operator.plan.fleet_view import Fleet, NodeView
from moorage_operator.plan.fleet_view_load import Amount
from moorage_operator.plan.placement import Placement, place_all
from moorage_operator.plan.placement_needs import Demand, ServiceKey, TaskNeeds

NODES, TASKS, RUNS = 1_000, 20_000, 3
GIB = 2**30


def fleet() -> Fleet:
    return Fleet.of(
        NodeView(
            name=f"n{index:04}",
            uid=f"uid-{index}",
            arch="amd64",
            labels={"zone": f"z{index % 3}", "rack": f"r{index % 40}"},
            allocatable=Amount(32_000, 64 * GIB),
        )
        for index in range(NODES)
    )


def batch(services: int, **changes: Any) -> list[TaskNeeds]:
    spec: dict[str, Any] = {"cpu_millis": 100, "memory_bytes": GIB // 8, "platforms": ("linux/amd64",)} | changes
    demands = [Demand(ServiceKey("shop", f"s{index}"), "v1", **spec) for index in range(services)]
    return [TaskNeeds(f"{demand.service.name}-{slot}", demand) for demand in demands for slot in range(TASKS // services)]


QUESTIONS: dict[str, tuple[Callable[[], list[TaskNeeds]], int]] = {
    "scale_place_20000_s": (lambda: batch(1_000), TASKS),
    "scale_place_20000_one_service_s": (lambda: batch(1), TASKS),
    "scale_place_20000_services_s": (lambda: batch(20_000), TASKS),
    "scale_place_20000_ports_s": (lambda: batch(1_000, ports=(Port(8080),)), NODES),
    "scale_place_20000_spread_s": (lambda: batch(1_000, preferences=("node.labels.zone", "node.labels.rack")), TASKS),
    "scale_place_20000_nowhere_s": (lambda: batch(1_000, memory_bytes=65 * GIB), 0),
}


def figures() -> list[dict[str, Any]]:
    swarm, found = fleet(), []
    for figure, (question, expected) in QUESTIONS.items():
        tasks, times = question(), []
        for _ in range(RUNS):
            began = time.process_time()
            outcome = place_all(tasks, swarm, now=datetime(2026, 1, 1, tzinfo=UTC))
            times.append(time.process_time() - began)
            assert sum(isinstance(one, Placement) for one in outcome) == expected
        found.append({"figure": figure, "ours": round(min(times), 3), "unit": "s", "n": RUNS, "load": os.getloadavg()[0]})
    return found


def main() -> None:
    for figure in figures():
        print(json.dumps(figure))


if __name__ == "__main__":
    main()
