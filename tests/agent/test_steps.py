from __future__ import annotations

import asyncio
import dataclasses
import errno
import itertools
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moorage_agent.errors import AgentError, ImageError, StartFailed
from moorage_agent.health import Health
from moorage_agent.protocol import Container, Healthcheck, ImageConfig, ImageSource, ImageSpec, Mount, NodeSpec, Port, Restart, TaskSpec
from moorage_agent.steps import Start, Wait
from moorage_agent.task_state import Trouble

from tests.agent.fake_host import IMAGE, Died, document, task, uid
from tests.agent.simulation import Simulation, simulation


@pytest.fixture
def node(tmp_path: Any) -> Iterator[Simulation]:
    with simulation(tmp_path) as made:
        yield made


# --- the good life


def test_a_task_is_pulled_prepared_and_started(node: Simulation) -> None:
    node.apply(document(task(1)))
    node.settle()
    assert node.runtime.alive() == {uid(1)}
    assert node.images.pulled == [IMAGE]
    assert node.report(uid(1)).state == "Running"


def test_a_second_run_has_nothing_to_do(node: Simulation) -> None:
    node.apply(document(task(1), task(2)))
    node.settle()
    node.apply(document(task(1), task(2), revision=2))
    assert node.all_steps() == []


def test_a_task_that_left_the_document_is_stopped_with_grace_and_removed(node: Simulation) -> None:
    node.apply(document(task(1, "deaf", grace_s=3.0)))
    node.settle()
    before = node.clock.time
    node.apply(document(revision=2))
    container = node.runtime.containers[uid(1)]
    node.settle()
    assert container.signals == [15, 9]
    assert node.clock.time - before == pytest.approx(3.0, abs=0.1)
    assert node.runtime.containers == {}
    assert node.store.known() == []


def test_the_grace_is_the_tasks_own_even_when_the_daemon_died_after_the_document_forgot_it(node: Simulation) -> None:
    node.apply(document(task(1, "deaf", grace_s=33.0)))
    node.settle()
    before = node.clock.time
    node.apply(document(revision=2))
    node.crash()
    node.settle()
    assert node.clock.time - before == pytest.approx(33.0, abs=0.1)


@pytest.mark.parametrize(
    ("told", "sent"), [("SIGRTMAX-1", 63), ("SIGSTKFLT", 16), ("SIGQUIT", 3), ("$SIG", 15), ("SIGTREM", 15), ("0", 15), (None, 15)]
)
def test_a_task_is_stopped_whatever_signal_its_image_names(node: Simulation, told: str | None, sent: int) -> None:
    node.images.config = ImageConfig(command=("run",), stop_signal=told)
    node.apply(document(task(1)))
    node.settle()
    container = node.runtime.containers[uid(1)]
    node.apply(document(revision=2))
    node.settle()
    assert container.signals == [sent]
    assert node.store.known() == []


def test_a_task_that_shall_only_be_ready_is_prepared_and_not_started(node: Simulation) -> None:
    node.apply(document(task(1, desired_state="Ready")))
    node.settle()
    assert node.runtime.starts == []
    assert node.report(uid(1)).state == "Ready"
    node.apply(document(task(1), revision=2))
    node.settle()
    assert node.runtime.alive() == {uid(1)}


# --- ends


def test_a_crashing_task_waits_longer_each_time_and_says_so(node: Simulation) -> None:
    node.apply(document(task(1, "exit", "3", restart=Restart(delay_s=1.0, max_delay_s=300.0))))
    starts = []
    for _ in range(60):
        node.observe()
        ready = [step for step in node.due() if not isinstance(step, Wait)]
        if ready:
            starts += [node.clock.time for step in ready if isinstance(step, Start)]
            node.perform(ready[0])
        else:
            report = node.report(uid(1))
            assert report.state == "Starting"
            assert report.reason == ("CrashLoop" if len(report.last_exits) >= 5 else "CrashLoopBackOff")
            assert report.exit_code == 3
            if len(starts) == 7:
                break
            node.sleep_to_next()
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    for gap, ideal in zip(gaps, (1, 2, 4, 8, 16, 32), strict=False):
        assert ideal * 0.8 - 0.01 <= gap <= ideal * 1.2 + 0.01


@pytest.mark.parametrize(
    ("program", "condition", "state"),
    [
        (("exit", "0"), "OnFailure", "Complete"),
        (("exit", "0"), "None", "Complete"),
        (("exit", "1"), "None", "Failed"),
    ],
)
def test_a_policy_that_is_satisfied_or_used_up_ends_the_task(
    node: Simulation, program: tuple[str, ...], condition: str, state: str
) -> None:
    node.apply(document(task(1, *program, restart=Restart(condition=condition))))
    node.settle()
    assert node.report(uid(1)).state == state
    assert len(node.runtime.starts) == 1


@pytest.mark.parametrize(("limit", "used", "starts"), [(3, 0, 4), (3, 2, 2), (3, 3, 1), (0, 0, 1)])
def test_max_attempts_count_those_of_earlier_tasks_of_the_slot(node: Simulation, limit: int, used: int, starts: int) -> None:
    policy = Restart(max_attempts=limit, attempts_used=used)
    node.apply(document(task(1, "exit", "1", restart=policy)))
    node.settle()
    assert len(node.runtime.starts) == starts
    assert (node.report(uid(1)).state, node.report(uid(1)).reason) == ("Failed", "MaxAttempts")


def test_a_program_that_does_not_exist_is_rejected_with_the_reason(node: Simulation) -> None:
    node.apply(document(task(1, "absent")))
    node.settle()
    report = node.report(uid(1))
    assert (report.state, report.reason) == ("Rejected", "CommandNotFound")
    assert "PATH" in report.message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StartFailed(125, "clone", errno.ENOMEM, "cannot clone: ENOMEM"), 125),
        (StartFailed(125, "supervise", errno.ECHILD, "the supervisor was killed"), 125),
        (StartFailed(125, "fork", errno.EAGAIN, "Resource temporarily unavailable"), 125),
        (StartFailed(126, "exec", errno.EAGAIN, "its user has too many processes"), 126),
        (AgentError("NoZygote", "not within 60 seconds"), 125),
    ],
)
def test_a_start_that_fails_for_what_may_pass_is_tried_again(node: Simulation, error: AgentError, code: int) -> None:
    node.runtime.start_error = error
    node.apply(document(task(1)))
    for _ in range(10):
        for step in node.due():
            node.perform(step)
    report = node.report(uid(1))
    assert (report.state, report.reason, report.message) == ("Starting", error.code, error.message)
    assert [(one.code, one.reason) for one in report.last_exits] == [(code, error.code)]
    assert node.world.tasks[uid(1)].record.attempts == 0
    node.runtime.start_error = None
    node.settle()
    assert node.runtime.alive() == {uid(1)}


@pytest.mark.parametrize("policy", [Restart(condition="None"), Restart(condition="OnFailure", max_attempts=1)])
def test_what_may_pass_uses_up_no_restart_and_is_waited_for_longer_each_time(node: Simulation, policy: Restart) -> None:
    node.runtime.start_error = StartFailed(125, "fork", errno.EAGAIN, "Resource temporarily unavailable")
    node.apply(document(task(1, "exit", "0", restart=policy)))
    starts: list[float] = []
    while len(starts) < 6:
        ready = [step for step in node.due() if not isinstance(step, Wait)]
        starts += [node.clock.time for step in ready if isinstance(step, Start)]
        if ready:
            node.perform(ready[0])
        else:
            assert node.sleep_to_next()
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert all(ideal * 0.8 - 0.01 <= gap <= ideal * 1.2 + 0.01 for gap, ideal in zip(gaps, (1, 2, 4, 8, 16), strict=True)), gaps
    node.runtime.start_error = None
    node.settle()
    assert (node.report(uid(1)).state, node.report(uid(1)).exit_code) == ("Complete", 0)
    assert len(node.runtime.starts) == 1


def test_a_host_that_keeps_hindering_a_task_is_a_crash_loop_so_that_another_may_have_it(node: Simulation) -> None:
    node.runtime.start_error = StartFailed(125, "fork", errno.EAGAIN, "Resource temporarily unavailable")
    node.apply(document(task(1, "exit", "0", restart=Restart(condition="None"))))
    said: list[tuple[str, str]] = []
    while not said or said[-1][1] != "CrashLoop":
        ready = [step for step in node.due() if not isinstance(step, Wait)]
        if ready:
            node.perform(ready[0])
        else:
            said.append((node.report(uid(1)).state, node.report(uid(1)).reason))
            assert node.sleep_to_next()
    assert said == [("Starting", "StartFailed")] * 4 + [("Starting", "CrashLoop")]
    assert "Resource temporarily unavailable" in node.report(uid(1)).message
    assert node.report(uid(1)).restarts == 0


def test_a_task_that_comes_back_in_place_of_its_heir_waits_for_the_heirs_end(node: Simulation) -> None:
    """As when the store behind the operator is restored from a snapshot."""
    heir = task(2, "deaf", replaces=uid(1))
    node.apply(document(heir))
    node.settle()
    assert node.runtime.alive() == {uid(2)}
    node.apply(document(task(1)))
    node.settle()  # every step is checked: at no moment do both run
    assert node.runtime.alive() == {uid(1)}


def test_a_program_that_was_reached_after_all_is_not_run_twice(node: Simulation) -> None:
    node.apply(document(task(1, restart=Restart(condition="None"))))
    while not node.runtime.starts:
        node.perform(node.due()[0])
    node.runtime.end(uid(1), 0)
    node.observe()
    node.world.tasks[uid(1)].trouble = Trouble("StartFailed", "the zygote did not answer", permanent=False)
    node.settle()
    assert node.report(uid(1)).state == "Complete"
    assert len(node.runtime.starts) == 1


@pytest.mark.parametrize("desired", ["Ready", "Running"])
def test_a_disk_that_takes_no_volume_is_waited_for(node: Simulation, desired: str) -> None:
    os.makedirs(node.paths.root)
    blocked = Path(node.paths.volumes)
    blocked.write_text("not a directory")
    container = Container(command=("run",), mounts=(Mount("/data", "volume", "default/shop/data"),), restart=Restart(condition="None"))
    node.apply(document(task(1, container=container, desired_state=desired)))
    for _ in range(10):
        for step in node.due():
            node.perform(step)
    report = node.report(uid(1))
    assert (report.state, report.reason) == ("Preparing", "HostError")
    assert str(blocked) in report.message
    assert isinstance(node.due()[0], Wait)
    blocked.unlink()
    os.makedirs(node.paths.volume("default/shop/data"))
    node.settle()
    assert (node.report(uid(1)).state, node.report(uid(1)).reason) == (desired, "")


@pytest.mark.parametrize("happens", ["gone", "unheard", "host stops"])
def test_a_start_that_waited_asks_again_whether_the_task_shall_run(node: Simulation, happens: str) -> None:
    node.apply(document(task(1, stop_after_s=30.0)))
    while not isinstance(step := next(step for step in node.due()), Start):
        node.perform(step)
    node.runtime.waits = asyncio.Event()
    start = node.loop.create_task(node.executor.start(step))
    node.loop.run_until_complete(asyncio.sleep(0))
    if happens == "gone":
        node.apply(document(revision=2))
    elif happens == "unheard":
        node.clock.time += 31.0
    else:
        node.world.host_stops = True
    node.loop.call_soon(node.runtime.waits.set)
    node.loop.run_until_complete(start)
    assert node.runtime.starts == []
    if happens != "gone":
        assert node.due() == []
        assert node.report(uid(1)).last_exits == ()
        node.world.heard_at, node.world.host_stops = node.clock.time, False
        node.perform(node.due()[0])
        assert node.runtime.alive() == {uid(1)}


@pytest.mark.parametrize("number", [None, errno.EINVAL])
def test_a_start_that_fails_for_what_the_task_says_is_not(node: Simulation, number: int | None) -> None:
    node.runtime.start_error = StartFailed(125, "user", number, "no user 'web' in the image's /etc/passwd")
    node.apply(document(task(1)))
    node.settle()
    assert (node.report(uid(1)).state, node.report(uid(1)).message) == ("Rejected", "no user 'web' in the image's /etc/passwd")


def test_an_image_that_does_not_exist_rejects_the_task_and_touches_nothing_that_runs(node: Simulation) -> None:
    node.apply(document(task(1)))
    node.settle()
    bad = "sha256:" + "b" * 64
    node.images.broken[bad] = ImageError("NotFound", "the registry answered 404")
    node.apply(document(task(1), task(2, digest=bad, replaces=uid(1), desired_state="Ready"), revision=2))
    node.settle()
    assert node.report(uid(2)).state == "Rejected"
    assert node.runtime.alive() == {uid(1)}


def test_a_registry_that_cannot_be_reached_is_tried_again_later(node: Simulation) -> None:
    node.images.broken[IMAGE] = ImageError("RegistryUnreachable", "no route", retry_after_s=5.0)
    node.apply(document(task(1)))
    for _ in range(3):
        for step in node.due():
            node.perform(step)
    assert (node.report(uid(1)).state, node.report(uid(1)).reason) == ("Preparing", "RegistryUnreachable")
    node.images.broken.clear()
    node.settle()
    assert node.runtime.alive() == {uid(1)}


# --- replacing


def test_stop_first_stops_the_old_before_it_starts_the_new(node: Simulation) -> None:
    node.apply(document(task(1)))
    node.settle()
    node.apply(document(task(1), task(2, replaces=uid(1), desired_state="Ready"), revision=2))
    node.settle()
    assert node.runtime.alive() == {uid(1)}
    node.apply(document(task(1), task(2, replaces=uid(1)), revision=3))
    node.settle()
    assert node.runtime.alive() == {uid(2)}
    assert (node.report(uid(1)).state, node.report(uid(1)).reason) == ("Complete", "Replaced")


def test_start_first_leaves_the_old_to_the_operator(node: Simulation) -> None:
    node.apply(document(task(1)))
    node.settle()
    node.apply(document(task(1), task(2, replaces=uid(1), handover="StartFirst"), revision=2))
    node.settle()
    assert node.runtime.alive() == {uid(1), uid(2)}


def test_a_task_with_host_ports_waits_for_the_one_it_replaces_even_when_told_to_start_first(node: Simulation) -> None:
    container = Container(command=("run",), network="Host", ports=(Port(80),))
    node.apply(document(task(1, container=container)))
    node.settle()
    node.apply(document(task(1, container=container), task(2, container=container, replaces=uid(1), handover="StartFirst"), revision=2))
    node.settle()
    assert node.runtime.alive() == {uid(2)}


def test_a_replacement_waits_for_an_old_task_the_document_no_longer_has(node: Simulation) -> None:
    node.apply(document(task(1, "deaf", grace_s=7.0)))
    node.settle()
    before = node.clock.time
    node.apply(document(task(2, replaces=uid(1)), revision=2))
    node.settle()
    assert node.clock.time - before >= 7.0
    assert node.runtime.alive() == {uid(2)}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("effects", range(3))
def test_a_container_is_always_asked_before_it_is_killed(node: Simulation, effects: int, after: bool) -> None:
    node.apply(document(task(1, "deaf", grace_s=5.0)))
    node.settle()
    node.apply(document(revision=2))
    container = node.runtime.containers[uid(1)]
    node.doom.effects_left, node.doom.after = effects, after
    with suppress(Died):
        node.perform(node.due()[0])
    node.doom.effects_left = None
    node.crash()
    node.settle()
    assert container.signals[0] == 15
    assert container.signals[-1] == 9


def test_an_operator_crash_between_stop_and_start_costs_no_replica(node: Simulation) -> None:
    node.apply(document(task(1)))
    node.settle()
    node.apply(document(task(1), task(2, replaces=uid(1)), revision=2))
    while uid(1) in node.runtime.alive():
        node.observe()
        node.perform(node.due()[0])
    node.crash()
    node.settle()
    assert node.runtime.alive() == {uid(2)}


# --- health, silence, reboot


def test_an_unhealthy_container_is_stopped_and_counts_as_a_failed_exit(node: Simulation) -> None:
    container = Container(command=("run",), healthcheck=Healthcheck(exec=("check",)), restart=Restart(condition="OnFailure"))
    node.apply(document(task(1, container=container)))
    node.settle()
    assert (node.report(uid(1)).state, node.report(uid(1)).reason) == ("Starting", "HealthCheck")
    state = node.world.tasks[uid(1)]
    state.health = Health(healthy=True)
    node.executor.note_health(uid(1))
    assert node.report(uid(1)).state == "Running"
    state.health = Health(healthy=False)
    node.settle()
    assert [ended.reason for ended in state.record.exits] == ["Unhealthy"]
    assert node.runtime.starts == [(uid(1), 1), (uid(1), 2)]


def test_a_singleton_stops_by_itself_when_no_operator_is_heard_and_starts_when_one_is(node: Simulation) -> None:
    node.apply(document(task(1, stop_after_s=20.0), task(2)))
    node.settle()
    assert node.runtime.alive() == {uid(2)}
    assert node.report(uid(1)).reason == "Disconnected"
    node.world.heard_at = node.clock.time
    node.perform(node.due()[0])
    assert node.runtime.alive() == {uid(1), uid(2)}


def test_after_a_reboot_everything_comes_back_and_says_why_it_was_gone(node: Simulation) -> None:
    node.apply(document(task(1), task(2, "exit", "0", restart=Restart(condition="OnFailure"))))
    node.settle()
    node.reboot()
    node.settle()
    assert node.runtime.alive() == {uid(1)}
    report = node.report(uid(1))
    assert (report.restarts, report.last_exits[-1].reason, report.last_exits[-1].code) == (1, "HostRebooted", None)
    assert node.report(uid(2)).state == "Complete"


def test_a_reboot_is_no_failure_of_the_task(node: Simulation) -> None:
    node.apply(document(task(1, restart=Restart(max_attempts=1))))
    node.settle()
    for _ in range(5):
        node.reboot()
        node.settle()
    assert node.report(uid(1)).state == "Running"


def test_when_the_host_goes_down_tasks_are_stopped_as_they_say_and_come_back_after_it(node: Simulation) -> None:
    deaf = task(1, container=Container(command=("deaf",), stop_grace_s=3.0))
    node.apply(document(deaf, task(2, restart=Restart(condition="OnFailure", max_attempts=1))))
    node.settle()
    node.world.host_stops = True
    node.settle()
    assert not node.runtime.alive()
    assert [ended.reason for one in (1, 2) for ended in node.report(uid(one)).last_exits] == ["HostRebooted"] * 2
    node.reboot()
    node.settle()
    assert node.runtime.alive() == {uid(1), uid(2)}


def test_a_bind_source_that_is_missing_rejects_a_new_task_but_not_one_that_ran_before_a_reboot(node: Simulation, tmp_path: Any) -> None:
    container = Container(command=("run",), mounts=(Mount("/data", "bind", f"{tmp_path}/nfs"),))
    node.apply(document(task(1, container=container)))
    node.settle()
    assert (node.report(uid(1)).state, node.report(uid(1)).reason) == ("Rejected", "BindSourceMissing")
    (tmp_path / "nfs").mkdir()
    node.apply(document(task(2, container=container), revision=2))
    node.settle()
    (tmp_path / "nfs").rmdir()
    node.reboot()
    for _ in range(10):
        for step in node.due():
            node.perform(step)
    assert (node.report(uid(2)).state, node.report(uid(2)).reason) == ("Starting", "BindSourceMissing")
    (tmp_path / "nfs").mkdir()
    node.settle()
    assert node.runtime.alive() == {uid(2)}


# --- properties

policies = st.sampled_from(
    [Restart(), Restart(condition="OnFailure"), Restart(condition="None"), Restart(condition="OnFailure", max_attempts=2)]
)
programs = st.sampled_from([("run",), ("run",), ("deaf",), ("exit", "0"), ("absent",)])


@st.composite
def tasks_of_a_node(draw: st.DrawFn) -> list[TaskSpec]:
    """Up to five tasks as an operator could have made them: each replaces none, or an earlier one."""
    tasks: list[TaskSpec] = []
    for number in range(1, draw(st.integers(0, 5)) + 1):
        program, policy = draw(programs), draw(policies)
        if program[0] == "exit" and policy.condition == "Any":
            policy = Restart(condition="OnFailure")
        replaces = draw(st.sampled_from([None, *[other.uid for other in tasks]]))
        handover = draw(st.sampled_from(["StopFirst", "StartFirst"]))
        tasks.append(task(number, *program, restart=policy, replaces=replaces, handover=handover))
    return tasks


def drawn_from(tasks: list[TaskSpec], chance: random.Random, before: NodeSpec | None = None) -> NodeSpec:
    """A document with some of the tasks; a desired state only goes forward."""
    forward = {one.uid for one in before.tasks if one.desired_state == "Running"} if before else set()
    chosen = [
        one if one.uid in forward or chance.random() < 0.7 else dataclasses.replace(one, desired_state="Ready")
        for one in tasks
        if chance.random() < 0.8
    ]
    images = (ImageSpec("sha256:" + "c" * 64, ImageSource("Registry", reference="r/x:1")),) if chance.random() < 0.5 else ()
    return document(*chosen, images=images, revision=before.revision + 1 if before else 1)


def as_wished(node: Simulation, wish: NodeSpec) -> None:
    wanted = {one.uid for one in wish.tasks}
    assert set(node.runtime.containers) <= wanted
    assert set(node.store.known()) <= wanted
    for spec in wish.tasks:
        record = node.world.tasks[spec.uid].record
        if record.end is not None or (spec.desired_state == "Ready" and record.run == 0):
            assert spec.uid not in node.runtime.alive()
        else:
            assert spec.uid in node.runtime.alive()
    for image in wish.images:
        assert node.images.get(image.digest) is not None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tasks=tasks_of_a_node(), chance=st.randoms(use_true_random=False))
def test_whatever_happens_the_steps_reach_the_wish(tmp_path: Any, tasks: list[TaskSpec], chance: random.Random) -> None:
    first = drawn_from(tasks, chance)
    second = drawn_from(tasks, chance, first)
    with simulation(tmp_path, chance=chance) as node:
        node.apply(first)
        for _ in range(chance.randrange(40)):
            disturb(node, chance)
        node.apply(second)
        for _ in range(chance.randrange(40)):
            disturb(node, chance)
        node.settle()
        as_wished(node, second)
        assert [step for step in node.all_steps() if not isinstance(step, Wait)] == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tasks=tasks_of_a_node(), chance=st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(tmp_path: Any, tasks: list[TaskSpec], chance: random.Random) -> None:
    wish = document(*tasks)
    shuffled = list(wish.tasks)
    chance.shuffle(shuffled)
    with simulation(tmp_path) as one, simulation(tmp_path) as other:
        one.apply(wish)
        other.apply(dataclasses.replace(wish, tasks=tuple(shuffled)))
        assert one.all_steps() == other.all_steps()


def disturb(node: Simulation, chance: random.Random) -> None:
    """Something happens: a step, a crash of the daemon, an end of a container, a reboot, time passes."""
    event = chance.random()
    alive = sorted(node.runtime.alive())
    if event < 0.05:
        node.crash()
    elif event < 0.07:
        node.reboot()
    elif event < 0.15 and alive:
        node.runtime.end(chance.choice(alive), chance.choice([0, 1, 137]))
    elif event < 0.3:
        node.observe()
    elif event < 0.4:
        node.clock.time += chance.choice([0.01, 1.0, 70.0])
    else:
        ready = [step for step in node.due() if not isinstance(step, Wait)]
        if ready and event < 0.5:
            node.perform_and_die(chance.choice(ready))
        elif ready:
            node.perform(chance.choice(ready))
