"""Operators of another version take over: agents follow in waves, containers notice nothing, a broken agent stops after one node."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import image_manifest
from tests.swarm import Swarm, service

pytestmark = pytest.mark.e2e

AGENT = Path(__file__).parents[2] / "agent" / "moorage_agent"


def changed_agent(folder: Path, file: str, text: str) -> dict[str, str]:
    """The environment of an operator that ships this agent with `text` added to one of its files."""
    shutil.copytree(AGENT, folder / "moorage_agent", ignore=shutil.ignore_patterns("__pycache__"))
    with open(folder / "moorage_agent" / file, "a") as out:
        out.write(text)
    return {"PYTHONPATH": str(folder)}


def containers(swarm: Swarm) -> dict[str, tuple[int, str]]:
    """Pid and start of each container, by Task."""
    return {
        f"{task['metadata']['name']}": (task["status"]["restarts"], task["status"]["startedAt"])
        for task in swarm.tasks("web")
        if task.get("status", {}).get("state") == "Running"
    }


def processes(swarm: Swarm) -> set[tuple[str, int]]:
    return {(host.name, process.pid) for host in swarm.hosts for process in host.processes() if "sleep 98765" in process.command}


def versions(swarm: Swarm) -> set[str]:
    return {node["status"]["agentVersion"] for node in swarm.items("snode")}


def test_agents_are_upgraded_in_waves_and_a_broken_one_stops_after_the_first_node(own_swarm: Swarm, tmp_path: Path) -> None:
    swarm = own_swarm
    swarm.add_hosts(3)
    swarm.apply(image_manifest("app", swarm.image("busybox:1"), "default"))
    swarm.apply(service("web", "image/app", "sleep", "98765", replicas=6))
    swarm.wait_running("web", 6)
    before, running, old = containers(swarm), processes(swarm), versions(swarm)
    assert len(running) == 6
    assert len(old) == 1

    first = swarm.operator
    swarm.start_operator(environment=changed_agent(tmp_path / "new", "version.py", "\n# another build\n"))
    first.stop()
    swarm.kubectl("scale", "ssvc/web", "--replicas=9")
    swarm.eventually("every agent is current", lambda: len(versions(swarm)) == 1 and versions(swarm) != old, timeout_s=120, every_s=1)
    swarm.wait_running("web", 9)
    assert {name: containers(swarm)[name] for name in before} == before
    assert running <= processes(swarm)

    new, second = versions(swarm), swarm.operator
    swarm.start_operator(environment=changed_agent(tmp_path / "broken", "serve.py", "\nraise SystemExit('this build is broken')\n"))
    second.stop()
    failed = swarm.eventually("one node says what happened", lambda: _failed(swarm), timeout_s=120, every_s=1)
    assert len(failed) == 1
    assert "this build is broken" in failed[0]["message"]
    swarm.eventually("all nodes are served by the version before", lambda: versions(swarm) == new and _ready(swarm) == 3, timeout_s=60)
    assert {name: containers(swarm)[name] for name in before} == before
    assert running <= processes(swarm)
    swarm.kubectl("scale", "ssvc/web", "--replicas=3")
    swarm.wait_running("web", 3)


def _failed(swarm: Swarm) -> list[dict[str, str]]:
    conditions = [swarm.condition("snode", host.name, "AgentCurrent") for host in swarm.hosts]
    return [each for each in conditions if each.get("reason") == "UpgradeFailed"]


def _ready(swarm: Swarm) -> int:
    return sum(swarm.condition("snode", host.name).get("status") == "True" for host in swarm.hosts)
