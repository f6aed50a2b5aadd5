"""What a Service needs done: Tasks to create, to let run, to give up, to stop. Frozen values that can describe themselves.

The writes of a plan are safe to make in the order of `steps()`, to repeat, and to stop after any of them: the next plan goes on from
what is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from moorage_operator.plan.placement_needs import TaskNeeds

STOP_FIRST = "StopFirst"
START_FIRST = "StartFirst"


@dataclass(frozen=True, slots=True)
class TaskDraft:
    """A Task to be placed, then created. `container` is the wire form of protocol.Container.

    `leaves`: the node to get away from, for a task that keeps crashing there. That is an improvement, not a duty: see `worth_it`. Any other
    draft without a node is created as Pending, with the reasons. `reason` says why there is a new Task, for an Event.
    """

    name: str
    slot: str
    attempt: int
    version: str
    container: Mapping[str, Any]
    needs: TaskNeeds
    reason: str
    replaces: str | None = None
    desired_state: str = "Running"
    handover: str = STOP_FIRST
    stop_after: str | None = None
    leaves: str | None = None

    @property
    def optional(self) -> bool:
        return self.leaves is not None

    def worth_it(self, node: str | None) -> bool:
        """Whether to create it, given the node that was found for it."""
        return self.leaves is None or node not in (None, self.leaves)

    def describe(self) -> str:
        behind = f" in place of {self.replaces}" if self.replaces else ""
        return f"create {self.name}{behind}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Orphan:
    """The node of this Task is lost: its status becomes Orphaned and nothing waits for it any more."""

    name: str
    uid: str
    node: str
    message: str

    def describe(self) -> str:
        return f"orphan {self.name}: {self.message}"


@dataclass(frozen=True, slots=True)
class Advance:
    """Its predecessor is out of the way, or the agent will see to that: desiredState becomes Running."""

    name: str
    uid: str

    def describe(self) -> str:
        return f"let {self.name} run"


@dataclass(frozen=True, slots=True)
class Stop:
    """Deleting a Task means: stop it."""

    name: str
    uid: str
    reason: str

    def describe(self) -> str:
        return f"stop {self.name}: {self.reason}"


Step = Orphan | Stop | Advance | TaskDraft


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that keeps the Service from what it should be. `reason` becomes a condition's reason, `message` names object and remedy.

    `stalled`: no retry will help, a person has to change something.
    """

    reason: str
    message: str
    stalled: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the Service stands, in slots, with texts for people.

    `done`: their work is done (restart.condition), there will be no further task. `replacing`: under way, or in the pause after it.
    `unsettled`: ready, but not yet for as long as update.monitor. `failing`: how tasks of the wished version fail. `over`: why there
    will be no further task of that version. `waiting`: what cannot be worked on now. `unheard`: slots whose node is silent.
    """

    wanted: int = 0
    done: int = 0
    updated: int = 0
    stale: int = 0
    replacing: int = 0
    unsettled: int = 0
    failing: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    unheard: frozenset[str] = frozenset()
    paused: Problem | None = None


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """`version` is None while it cannot be told (image not pinned, data missing): then nothing new is created and nothing replaced."""

    version: str | None
    orphan: tuple[Orphan, ...] = ()
    stop: tuple[Stop, ...] = ()
    advance: tuple[Advance, ...] = ()
    create: tuple[TaskDraft, ...] = ()
    problems: tuple[Problem, ...] = ()
    progress: Progress = field(default_factory=Progress)
    requeue_at: datetime | None = None

    def steps(self) -> Iterator[Step]:
        """The writes in their order: what frees a place comes before what takes one."""
        yield from self.orphan
        yield from self.stop
        yield from self.advance
        yield from self.create

    def describe(self) -> str:
        return "\n".join(
            [*(step.describe() for step in self.steps()), *(f"{problem.reason}: {problem.message}" for problem in self.problems)]
        )
