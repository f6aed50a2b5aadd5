"""How tests of the whole path look at things: at a task from inside its container, at the agent's processes, at what a condition says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.fleet import BareHost
from tests.fleet.traces import Process
from tests.swarm import Swarm

AGENT = "/var/lib/moorage/agent/current/moorage-agent"


# --- the agent on a host


def agent(host: BareHost, *words: str, check: bool = True) -> str:
    """What `moorage-agent …` prints on the host."""
    return host.run(AGENT, *words, check=check).stdout


def daemons(host: BareHost) -> list[Process]:
    return [process for process in host.processes() if " serve " in process.command and "moorage/agent" in process.command]


def zygotes(host: BareHost) -> list[Process]:
    return [process for process in host.processes() if process.name == "moorage-zygote"]


def shims(host: BareHost) -> list[Process]:
    return [process for process in host.processes() if process.name == "moorage-shim"]


# --- containers


def programs(host: BareHost, marker: str) -> list[Process]:
    """Processes of a host whose command line holds the marker, the agent's own aside."""
    return [process for process in host.processes() if marker in process.command and "moorage" not in process.command]


def running(swarm: Swarm, marker: str) -> int:
    """How many processes with the marker there really are, on all hosts."""
    return sum(len(programs(host, marker)) for host in swarm.hosts)


def host_of(swarm: Swarm, task: dict[str, Any]) -> BareHost:
    return next(host for host in swarm.hosts if host.name == task["spec"]["nodeName"])


def said(swarm: Swarm, task: dict[str, Any]) -> str:
    """The task's output so far; nothing while its host does not know it."""
    return agent(host_of(swarm, task), "logs", task["metadata"]["name"], check=False)


def a_while(namespace: str) -> str:
    """Seconds to sleep, like those of no other namespace: by them its processes are told apart."""
    return f"36{namespace.rpartition('-')[2].zfill(5)}"


def environment(process: Process) -> dict[str, str]:
    entries = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    return dict(entry.decode().split("=", 1) for entry in entries if entry)


def inside(process: Process, path: str) -> Path:
    """A path of the container the process runs in."""
    return Path(f"/proc/{process.pid}/root{path}")


def only_task(swarm: Swarm, service: str, namespace: str) -> dict[str, Any]:
    (task,) = swarm.tasks(service, namespace)
    return task


def uids(swarm: Swarm, service: str, namespace: str) -> set[str]:
    return {task["metadata"]["uid"] for task in swarm.tasks(service, namespace)}


# --- what is said


def told(swarm: Swarm, kind: str, name: str, namespace: str, *words: str, condition: str = "Ready", timeout_s: float = 20.0) -> float:
    """Waits until the condition is not True and its reason and message hold all the words; returns how many seconds that took."""
    began = time.monotonic()

    def holds() -> bool:
        found = swarm.condition(kind, name, condition, namespace)
        text = f"{found.get('reason', '')}: {found.get('message', '')}"
        return bool(found) and found["status"] != "True" and all(word in text for word in words)

    swarm.eventually(f"{kind} {name} says {', '.join(words)}", holds, timeout_s=timeout_s, every_s=0.05)
    return time.monotonic() - began


def is_ready(swarm: Swarm, kind: str, name: str, namespace: str, *, timeout_s: float = 60.0) -> None:
    """Until Ready is True for the present generation."""

    def holds() -> bool:
        found = swarm.get(kind, name, namespace)
        conditions = {each["type"]: each for each in found.get("status", {}).get("conditions", [])}
        ready = conditions.get("Ready", {})
        return bool(ready) and (ready["status"], ready.get("observedGeneration")) == ("True", found["metadata"]["generation"])

    swarm.eventually(f"{kind} {name} is Ready", holds, timeout_s=timeout_s, every_s=0.1)
