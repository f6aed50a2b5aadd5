"""Whatever users, hosts and a dying operator do: no slot runs twice, no more are replaced at once than allowed, and all ends as wished."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from moorage_operator.plan.service_plan import TaskDraft

from tests.operator.plan.service_world import ENDED, World

GOOD = ("1", "2", "3")
BAD = ("rejected", "crashing")


class ServiceMachine(RuleBasedStateMachine):
    """One Service; `world` is the swarm it lives in."""

    world: World

    @initialize(
        order=st.sampled_from(["StopFirst", "StartFirst"]),
        parallelism=st.integers(1, 3),
        delay=st.sampled_from(["0s", "7s"]),
        mode=st.sampled_from(["Replicated", "Replicated", "Global"]),
        sticky=st.sampled_from([None, True]),
        hosts=st.integers(1, 4),
        grace_s=st.sampled_from([0, 2]),
    )
    def begin(self, order: str, parallelism: int, delay: str, mode: str, sticky: bool | None, hosts: int, grace_s: float) -> None:
        spec: dict[str, Any] = {"mode": mode, "update": {"order": order, "parallelism": parallelism, "delay": delay}}
        spec |= {"placement": {"sticky": sticky}} if sticky is not None else {}
        self.world = World(spec | ({"replicas": 3} if mode == "Replicated" else {}))
        self.world.grace_s = grace_s
        self.world.rejects, self.world.crashes = {"rejected"}, {"crashing"}
        for number in range(hosts):
            self.world.add_host(f"n{number}")
        self.parallelism, self.start_first = parallelism, order == "StartFirst"
        self.world.settle()

    # --- what happens

    @rule(image=st.sampled_from(GOOD + BAD))
    def release(self, image: str) -> None:
        self.world.release(image)

    @rule(replicas=st.integers(0, 5), suspend=st.sampled_from([False, False, True]), image_ready=st.sampled_from([True, True, False]))
    def change(self, replicas: int, suspend: bool, image_ready: bool) -> None:
        self.world.change(suspend=suspend, **({"replicas": replicas} if self.world.spec["mode"] == "Replicated" else {}))
        self.world.image_ready = image_ready

    @rule(data=st.data(), event=st.sampled_from(["Active", "Pause", "Drain", "Drain", "silent", "silent", "back", "given up"]))
    def happen_to_host(self, data: st.DataObject, event: str) -> None:
        host = self.world.hosts[data.draw(st.sampled_from(sorted(self.world.hosts)))]
        if event in ("Active", "Pause", "Drain"):
            host.availability = event
        elif event == "silent":
            host.silent_since = host.silent_since or self.world.now
        else:
            host.out_of_service = event == "given up" and host.silent_since is not None
            host.silent_since = host.silent_since if host.out_of_service else None

    @precondition(lambda self: self.world.tasks)
    @rule(data=st.data())
    def delete_task(self, data: st.DataObject) -> None:
        self.world.delete(data.draw(st.sampled_from(sorted(self.world.tasks))))

    @rule(seconds=st.sampled_from([3, 20, 70]))
    def wait(self, seconds: float) -> None:
        self.world.later(seconds)

    @rule(writes=st.integers(0, 3))
    def die_after(self, writes: int) -> None:
        """The operator dies after so many writes of a plan, and the hosts go on meanwhile."""
        self.world.operate(writes=writes)
        self.check()
        self.world.work()

    @rule(rounds=st.integers(1, 8))
    def carry_on(self, rounds: int) -> None:
        self._rounds(rounds)

    @rule(rounds=st.integers(1, 8))
    def carry_on_too(self, rounds: int) -> None:
        self._rounds(rounds)

    @rule(rounds=st.integers(8, 16))
    def carry_on_long(self, rounds: int) -> None:
        self._rounds(rounds)

    def _rounds(self, rounds: int) -> None:
        for _ in range(rounds):
            self.world.place_pending()
            self.world.operate()
            self.check()
            self.world.work()
            self.check()
            self.world.later(1)

    def check(self) -> None:
        self.never_twice()
        self.never_more_than_parallelism()

    # --- what always holds

    @invariant()
    def never_twice(self) -> None:
        for slot in self.world.slots():
            running = self.world.running(slot)
            assert len(running) <= (2 if self.start_first else 1), f"slot {slot} runs on {running}:\n{self.world.show()}"

    @invariant()
    def never_more_than_parallelism(self) -> None:
        under_way = [slot for slot in self.world.slots() if self._replaces_what_serves(slot)]
        assert len(under_way) <= self.parallelism, f"{under_way} are replaced at once:\n{self.world.show()}"

    def _replaces_what_serves(self, slot: str) -> bool:
        """A Task that serves and never crashed, beside a younger one of the wished version, the first in this slot."""
        alive = sorted((task for task in self.world.alive() if task["spec"]["slot"] == slot), key=lambda task: task["spec"]["attempt"])
        retried = any(task["status"]["state"] == "Rejected" for task in self.world.slot(slot))
        if len(alive) < 2 or retried or alive[-1]["spec"]["version"] != self.world.version:
            return False
        return any(_served(task, alive[-1]["metadata"]["creationTimestamp"]) for task in alive[:-1])

    @invariant()
    def same_plan_for_any_order(self) -> None:
        assert self.world.plan() == self.world.plan(backwards=True)

    def teardown(self) -> None:
        """The world becomes friendly; then the wish comes true, and there is nothing left to do."""
        world = self.world
        for host in world.hosts.values():
            host.availability, host.silent_since, host.out_of_service = "Active", None, False
        world.change(suspend=False)
        world.image_ready = True
        if world.spec["task"]["image"].rpartition(":")[2] in BAD:
            world.release("2")
        world.settle()
        wanted = len(world.hosts) if world.spec["mode"] == "Global" else world.spec["replicas"]
        alive = world.alive()
        assert len(alive) == len({task["spec"]["slot"] for task in alive}) == wanted == world.ready(), world.show()
        assert all(task["spec"]["version"] == world.version for task in alive), world.show()
        assert all(len(world.running(slot)) == 1 for slot in {task["spec"]["slot"] for task in alive}), world.show()
        for slot in world.slots():
            assert sum(task["status"]["state"] in ENDED for task in world.slot(slot)) <= 2, world.show()
        assert not [step for step in world.plan().steps() if not (isinstance(step, TaskDraft) and step.optional)]


def _served(task: dict[str, Any], then: str) -> bool:
    ready = task["status"]["conditions"][0]
    return ready["status"] == "True" and ready["lastTransitionTime"] < then and "lastExits" not in task["status"]


TestService = ServiceMachine.TestCase
TestService.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=timedelta(seconds=20), suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
