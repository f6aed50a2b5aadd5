"""What a Service says about itself, seen through a swarm in memory."""

from __future__ import annotations

from datetime import timedelta

from moorage_operator.api import Service, ServiceStatus, Task
from moorage_operator.api.condition import Condition, find
from moorage_operator.errors import InvalidSpec
from moorage_operator.plan.placement_outcome import Unplaceable
from moorage_operator.plan.service_status import refused_status, service_status

from tests.operator.plan.service_world import World


class Watched(World):
    """A swarm whose Service keeps its status, as the API server would."""

    status: ServiceStatus = ServiceStatus()

    @property
    def service(self) -> Service:
        return super().service.model_copy(update={"status": self.status})

    def look(self, *unplaceable: Unplaceable) -> ServiceStatus:
        tasks = [Task.parse(task) for task in self.tasks.values()]
        self.status = service_status(self.service, tasks, self.plan(), image=self.image, unplaceable=unplaceable, now=self.now)
        return self.status

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            self.operate()
            self.work()
            self.look()
            self.later(1)


def world(replicas: int = 3, **spec: object) -> Watched:
    made = Watched({"replicas": replicas, **spec})
    for name in ("n1", "n2", "n3"):
        made.add_host(name)
    return made


def condition(status: ServiceStatus, kind: str) -> Condition:
    found = find(status.conditions, kind)
    assert found is not None
    assert found.observed_generation == 1
    return found


def test_a_new_service_is_on_its_way() -> None:
    status = world().look()
    assert (status.replicas_ready, status.desired_replicas, status.selector) == ("0/3", 3, "moorage.dev/service=web")
    assert condition(status, "Ready").status == "False"
    assert condition(status, "Ready").message == "0 of 3 tasks are ready"
    assert condition(status, "Progressing").status == "True"
    assert condition(status, "Stalled").status == "False"
    assert status.update is None


def test_a_service_with_all_its_tasks_is_ready_and_at_rest() -> None:
    swarm = world()
    swarm.settle()
    status = swarm.look()
    assert (status.replicas, status.ready_replicas, status.updated_replicas, status.replicas_ready) == (3, 3, 3, "3/3")
    assert (condition(status, "Ready").status, condition(status, "Ready").reason) == ("True", "AllTasksReady")
    assert (condition(status, "Progressing").status, condition(status, "Progressing").reason) == ("False", "Settled")
    assert status.image == "registry/app:1"


def test_ready_means_that_the_new_version_has_arrived() -> None:
    swarm = world(update={"order": "StartFirst", "parallelism": 3})
    swarm.settle()
    swarm.look()
    swarm.release("2")
    swarm.run(1)
    status = swarm.look()
    assert status.replicas_ready == "3/3"
    assert (condition(status, "Ready").status, condition(status, "Ready").reason) == ("False", "Updating")


def test_an_update_has_a_beginning_a_middle_and_an_end() -> None:
    swarm = world()
    swarm.settle()
    swarm.look()
    swarm.release("2")
    begun = swarm.now
    swarm.run(5)
    update = swarm.look().update
    assert update is not None
    assert (update.state, update.message, update.started_at) == ("Updating", "1 of 3 slots have the new version", begun)
    swarm.settle()
    update = swarm.look().update
    assert update is not None
    assert (update.state, update.message, update.started_at, update.completed_at) == ("Completed", None, begun, swarm.now)
    assert condition(swarm.status, "Ready").last_transition_time == swarm.now


def test_a_stopped_update_says_which_task_failed_and_how_to_go_on() -> None:
    swarm = world()
    swarm.settle()
    swarm.look()
    swarm.rejects.add("2")
    swarm.release("2")
    swarm.run(4)
    status = swarm.look()
    update = status.update
    assert update is not None
    assert update.state == "Paused"
    for what in (update.message or "", condition(status, "Ready").message):
        assert "is Rejected (NotFound) image 2 not found" in what
        assert "the update goes on once the new tasks stay up" in what
    assert condition(status, "Ready").reason == condition(status, "Progressing").reason == "UpdatePaused"
    assert status.replicas_ready == "3/3"


def test_a_missing_secret_stalls_and_names_its_remedy() -> None:
    swarm = world(task={"image": "registry/app:1", "envFrom": [{"secretRef": {"name": "db"}}]})
    status = swarm.look()
    stalled = condition(status, "Stalled")
    assert (stalled.status, stalled.reason) == ("True", "SecretMissing")
    assert stalled.message == "Secret db does not exist in namespace shop; envFrom needs it: create it"
    assert condition(status, "Ready").reason == "SecretMissing"
    assert condition(status, "Progressing").status == "False"


def test_what_placement_says_is_passed_on() -> None:
    status = world().look(Unplaceable("web-1", "NoSuitableNode", "no suitable node: insufficient memory on 3 nodes"))
    assert condition(status, "Ready").reason == "NoSuitableNode"
    assert condition(status, "Ready").message == "no suitable node: insufficient memory on 3 nodes"
    assert condition(status, "Stalled").status == "False"


def test_an_image_that_cannot_be_pulled_is_quoted_with_its_task() -> None:
    swarm = world(replicas=1)
    swarm.rejects.add("1")
    swarm.run(3)
    ready = condition(swarm.look(), "Ready")
    assert ready.reason == "TaskFailing"
    assert "on node n1 is Rejected (NotFound) image 1 not found" in ready.message


def test_used_up_attempts_stall() -> None:
    swarm = world(replicas=1, task={"image": "registry/app:1", "restart": {"maxAttempts": 2}})
    swarm.crashes.add("1")
    swarm.run(12)
    status = swarm.look()
    assert (condition(status, "Stalled").status, condition(status, "Stalled").reason) == ("True", "TaskFailed")
    assert "all 2 of restart.maxAttempts are used up" in condition(status, "Ready").message


def test_a_service_whose_work_is_done_is_ready() -> None:
    swarm = world(replicas=2, task={"image": "registry/app:1", "restart": {"condition": "OnFailure"}})
    swarm.finishes.add("1")
    swarm.settle()
    status = swarm.look()
    assert (condition(status, "Ready").status, condition(status, "Ready").reason) == ("True", "Completed")
    assert status.replicas_ready == "0/2"


def test_a_task_on_a_silent_node_does_not_count_as_ready_and_the_service_says_what_it_waits_for() -> None:
    kept = world(unreachable={"policy": "Keep"})
    kept.run(20)
    assert kept.look().replicas_ready == "3/3"
    lost = next(iter(kept.hosts.values()))
    lost.silent_since = kept.now
    kept.later(60)
    status = kept.look()
    assert status.replicas_ready == "2/3"
    ready = condition(status, "Ready")
    assert (ready.status, ready.reason) == ("False", "NodeAway")
    assert f"set spec.outOfService on Node {lost.name}" in ready.message
    lost.silent_since = None
    assert kept.look().replicas_ready == "3/3"


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    swarm = world()
    first = condition(swarm.look(), "Ready").last_transition_time
    swarm.now += timedelta(minutes=5)
    assert condition(swarm.look(), "Ready").last_transition_time == first


def test_a_refused_spec_leaves_the_counts_alone() -> None:
    swarm = world()
    swarm.settle()
    swarm.look()
    status = refused_status(swarm.service, InvalidSpec("task: write an image", reason="InvalidTask"), now=swarm.now)
    assert status.replicas_ready == "3/3"
    assert (condition(status, "Stalled").status, condition(status, "Stalled").message) == ("True", "task: write an image")
