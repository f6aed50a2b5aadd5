"""What a task needs of its host beyond what every container does. Pure. A limit that cannot be kept is not silently dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from moorage_agent.errors import HostLacks
from moorage_agent.protocol import Feature, TaskSpec


def check_needs(task: TaskSpec, features: Iterable[Feature]) -> None:
    """Raises HostLacks naming the first feature the task needs and the host lacks."""
    absent = {feature.name: feature.detail for feature in features if not feature.present}
    for name, wish, remedy in _needs(task):
        if name in absent:
            raise HostLacks("HostLacksFeature", f"{wish} needs {name}, which this host lacks ({absent[name]}); {remedy}")


def _needs(task: TaskSpec) -> Iterator[tuple[str, str, str]]:
    resources, security = task.container.resources, task.container.security
    without = "place the task on another host, or leave the limit out"
    if resources.memory_limit is not None or resources.swap_limit is not None:
        yield "memory", "limits.memory", without
    if resources.cpu_limit is not None:
        yield "cpu", "limits.cpu", without
    if resources.pids_limit is not None:
        yield "pids", "limits.pids", without
    if security.oom_score_adj is not None and security.oom_score_adj < 0:
        yield "SYS_RESOURCE", f"oomScoreAdj {security.oom_score_adj}", "only scores from 0 on can be given here"
    if security.seccomp == "RuntimeDefault" and not security.privileged:
        yield "seccomp", "seccomp RuntimeDefault", "set security.seccomp to Unconfined to run without a filter"
