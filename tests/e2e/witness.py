"""Looks at a swarm several times a second while things happen to it, so that a test can say what was never so."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.kube import ControlPlane

TASKS = "/apis/moorage.dev/v1alpha1/swarmtasks"
NODES = "/apis/moorage.dev/v1alpha1/swarmnodes"
SERVICES = "/apis/moorage.dev/v1alpha1/swarmservices"


@dataclass(frozen=True)
class Sight:
    """What was there at one moment; `at` is monotonic."""

    at: float
    tasks: list[dict[str, Any]]
    nodes: dict[str, dict[str, str]]
    """The condition Ready of each Node."""

    services: dict[str, dict[str, str]]
    """The condition Ready of each Service."""

    def running(self) -> Counter[tuple[str, str, str]]:
        """Tasks in state Running by namespace, Service and slot."""
        return Counter(
            (task["metadata"]["namespace"], task["spec"]["service"], task["spec"]["slot"])
            for task in self.tasks
            if task.get("status", {}).get("state") == "Running"
        )

    def ready(self, service: str) -> int:
        return sum(task["spec"]["service"] == service and condition_of(task)["status"] == "True" for task in self.tasks)

    def uids(self, service: str) -> frozenset[str]:
        return frozenset(task["metadata"]["uid"] for task in self.tasks if task["spec"]["service"] == service)


class Witness:
    """Between entering and leaving, where it looks once more. What the API server does not answer is not seen."""

    def __init__(self, plane: ControlPlane, *, every_s: float = 0.25) -> None:
        self.began = 0.0
        self.sights: list[Sight] = []
        self._plane, self._every_s = plane, every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="witness")

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def doubly_running(self) -> set[tuple[str, str, str]]:
        """Slots that two tasks ran in at once."""
        return {slot for sight in self.sights for slot, count in sight.running().items() if count > 1}

    def least_ready(self, service: str) -> int:
        return min(sight.ready(service) for sight in self.sights)

    def tasks_of(self, service: str) -> frozenset[str]:
        """Uids of all its Tasks that there ever were."""
        return frozenset(uid for sight in self.sights for uid in sight.uids(service))

    def said_of(self, node: str) -> list[tuple[str, str]]:
        """What the Node's condition Ready went through: status and reason."""
        said: list[tuple[str, str]] = []
        for sight in self.sights:
            ready = sight.nodes.get(node)
            if ready is not None and said[-1:] != [(ready["status"], ready["reason"])]:
                said.append((ready["status"], ready["reason"]))
        return said

    def messages_of(self, service: str) -> set[str]:
        """Why the Service was not ready."""
        return {sight.services[service].get("message", "") for sight in self.sights if service in sight.services}

    def seconds_until(self, so: Callable[[Sight], object]) -> float:
        """From the beginning to the first sight for which it was so."""
        return next(sight.at for sight in self.sights if so(sight)) - self.began

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        try:
            answers = [self._plane.request("GET", path, timeout_s=3) for path in (TASKS, NODES, SERVICES)]
        except OSError:
            return
        if all(answer.ok for answer in answers):
            tasks, nodes, services = (answer.body["items"] for answer in answers)
            self.sights.append(Sight(time.monotonic(), tasks, conditions_of(nodes), conditions_of(services)))


def conditions_of(things: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    return {thing["metadata"]["name"]: condition_of(thing) for thing in things}


def condition_of(thing: dict[str, Any], kind: str = "Ready") -> dict[str, str]:
    return next(_conditions(thing, kind), {"type": kind, "status": "Unknown", "reason": "", "message": ""})


def _conditions(thing: dict[str, Any], kind: str) -> Iterator[dict[str, str]]:
    return (each for each in thing.get("status", {}).get("conditions", []) if each["type"] == kind)
