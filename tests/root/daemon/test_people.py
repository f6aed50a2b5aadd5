from __future__ import annotations

import json
import subprocess

import pytest
from moorage_agent.protocol import Container, NodeReport, NodeSpec, from_wire, to_wire

from tests.root.daemon.agent_host import NODE, SWARM, AgentHost

pytestmark = pytest.mark.root


def say(host: AgentHost, *arguments: str, code: int = 0, text: str = "") -> str:
    done = subprocess.run(host.verb(*arguments), input=text, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_people_on_the_host_see_what_runs_and_read_its_output(host: AgentHost) -> None:
    host.start()
    operator = host.connect()
    script = "echo one; echo two >&2; echo three; exec sleep 1000"
    task = host.task(operator, container=Container(command=("sh", "-c", script), stop_grace_s=0.1))
    operator.push(task)
    operator.wait_state("Running", task)
    listed = say(host, "ps").splitlines()
    assert listed[0].split() == ["TASK", "STATE", "RESTARTS", "PID", "UP", "MESSAGE"]
    assert listed[1].split()[:3] == [task.name, "Running", "0"]
    report = from_wire(NodeReport, json.loads(say(host, "report")))
    assert [one.uid for one in report.tasks] == [task.uid]
    assert say(host, "logs", task.name, "--tail", "1") in ("two\n", "three\n")  # two pipes: their order is the kernel's
    assert sorted(say(host, "logs", task.uid).split()) == ["one", "three", "two"]
    assert "begins with 'nobody'" in say(host, "logs", "nobody", code=69)


def test_plan_prints_the_steps_and_takes_none(host: AgentHost) -> None:
    host.start()
    operator = host.connect()
    old, new = host.task(operator, "sleep", "1000", grace_s=0.1), host.task(operator, "sleep", "1")
    operator.push(old)
    operator.wait_state("Running", old)
    wish = json.dumps(to_wire(NodeSpec(SWARM, NODE, 1, 9, tasks=(new,))))
    steps = {old.uid: f"stop {old.uid} (Removed): signal 15, kill after 0.1 s", new.uid: f"prepare {new.uid}: volumes, files, root"}
    assert say(host, "plan", "-", text=wish).splitlines() == [steps[uid] for uid in sorted(steps)]
    assert operator.state(old) == "Running"
    assert "cannot be read" in say(host, "plan", "-", text="{}", code=69)


def test_doctor_says_what_the_host_has_and_lacks(host: AgentHost) -> None:
    told = say(host, "doctor")
    assert "kernel" in told.splitlines()[0]
    assert "has overlay" in told
    assert told.splitlines()[-1] == "containers can be started here"


def test_without_a_daemon_the_verbs_say_how_to_get_one(host: AgentHost) -> None:
    assert "`dial` starts one" in say(host, "ps", code=69)


def test_an_unknown_verb_prints_the_usage(host: AgentHost) -> None:
    assert "dial" in say(host, "dance", code=64)


def test_uninstall_asks_to_be_meant(host: AgentHost) -> None:
    assert "--yes" in say(host, "uninstall", code=69)
