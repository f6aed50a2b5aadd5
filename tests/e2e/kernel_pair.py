"""A swarm of two hosts with kernels of their own, and what can be asked of such a host: by SSH, its processes are not this machine's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.e2e.conftest import image_manifest
from tests.e2e.containers import agent
from tests.fleet import Bridge, KernelHost
from tests.swarm import Swarm, node, service
from tests.swarm.manifests import Manifest

PATIENCE_S = 120.0
WEB = "sleep 400001"
QUICK = {"stopGracePeriod": "2s"}
"""`sleep` as process 1 ignores SIGTERM."""
STATE = """
import glob, json, os
tasks = {}
for path in glob.glob("/var/lib/moorage/tasks/*/"):
    uid = path.split("/")[-2]
    tasks[uid] = {name: json.load(open(path + name + ".json")) for name in ("task", "record")}
    tasks[uid]["roots"] = sorted(os.path.basename(root) for root in glob.glob(path + "root-*"))
print(json.dumps({"tasks": tasks, "making": os.listdir("/var/lib/moorage/images/making")}))
"""
DISTRESS = """
ps axo pid,ppid,stat,wchan:30,etimes,args | grep -v ' \\['
for pid in $(pgrep -f moorage); do echo "$pid"; cat /proc/$pid/stack /proc/$pid/syscall; ls -l /proc/$pid/fd; done
ss -xap | grep moorage
tail -n 40 /var/lib/moorage/state/agent.log
"""
LEFT = """
systemctl list-units --all --plain --no-legend 'moorage*'
find /sys/fs/cgroup /etc /run /var/lib /tmp -name '*moorage*'
grep moorage /proc/mounts
pgrep -fa '[m]oorage_agent'
find /var/lib/moorage -type f
"""


class Pair:
    """`web` runs on both, from the first test to the last."""

    def __init__(self, swarm: Swarm, one: KernelHost, two: KernelHost) -> None:
        self.swarm, self.one, self.two, self.hosts = swarm, one, two, (one, two)

    def settled(self) -> None:
        for host in self.hosts:
            try:
                self.swarm.wait_node(host.name, timeout_s=PATIENCE_S)
            except AssertionError as error:
                raise AssertionError(f"{error}\n--- {host.name}\n{distress(host)}") from None
        self.swarm.wait_running("web", 2, timeout_s=PATIENCE_S)

    def run(self, name: str, host: KernelHost, *command: str, **fields: Any) -> None:
        """A Service of one task on that host, until it runs."""
        self.swarm.apply(at(host, name, *command, **fields))
        self.swarm.wait_running(name, 1, timeout_s=PATIENCE_S)

    def remove(self, *names: str) -> None:
        self.swarm.kubectl("delete", *(f"ssvc/{name}" for name in names))
        for name in names:
            self.swarm.wait_running(name, 0, timeout_s=PATIENCE_S)

    def logs(self, name: str) -> str:
        (task,) = self.swarm.tasks(name)
        host = next(host for host in self.hosts if host.name == task["spec"]["nodeName"])
        return agent(host, "logs", task["metadata"]["name"])

    def status(self, name: str) -> dict[str, Any]:
        (task,) = self.swarm.tasks(name)
        status: dict[str, Any] = task.get("status", {})
        return status

    def restarts(self, name: str) -> int:
        """As the Tasks of the Service say, all together."""
        return sum(int(task.get("status", {}).get("restarts", 0)) for task in self.swarm.tasks(name))

    def came_back(self, name: str) -> bool:
        return self.swarm.states(name) == {"Running": 1} and self.restarts(name) == 1

    def await_restarts(self, name: str, more: int) -> None:
        least = self.restarts(name) + more
        self.swarm.eventually(f"{name} restarts {more} times", lambda: self.restarts(name) >= least, timeout_s=PATIENCE_S)


@contextmanager
def pair_on(bridge: Bridge, swarm: Swarm) -> Iterator[Pair]:
    """The hosts boot beside each other. Raises MissingOnMachine."""
    one, two = hosts = [bridge.kernel_host(boot=False) for _ in range(2)]
    try:
        for host in hosts:
            host.power_on()
        swarm.apply(image_manifest("app", swarm.image("busybox:own-kernel"), "default"))
        for host in hosts:
            host.wait_for_sshd(PATIENCE_S)
            swarm.apply(node(host))
        swarm.apply(service("web", "image/app", *WEB.split(), mode="Global", task=QUICK))
        yield Pair(swarm, one, two)
    finally:
        for host in hosts:
            host.close()


def at(host: KernelHost, name: str, *command: str, image: str = "image/app", **fields: Any) -> Manifest:
    """A Service of that host's alone."""
    task = {**QUICK, **fields.pop("task", {})}
    return service(name, image, *command, placement={"constraints": [f"node.name == {host.name}"]}, task=task, **fields)


def containers(host: KernelHost, command: str) -> frozenset[str]:
    """Process id and start time of each process with exactly this command line: equal sets mean that nothing restarted."""
    script = "for pid in $(pgrep -fx \"$0\"); do cut -d ' ' -f 1,22 /proc/$pid/stat; done"
    return frozenset(host.run("sh", "-c", script, command).stdout.splitlines())


def cgroup_of(host: KernelHost, command: str) -> str:
    return host.run("sh", "-c", 'cat /proc/$(pgrep -fx "$0")/cgroup', command).stdout.strip()


def kept(host: KernelHost) -> dict[str, Any]:
    """What the agent keeps on the disk; fails when a part of it cannot be read."""
    found: dict[str, Any] = json.loads(host.run("python3", "-c", STATE).stdout)
    return found


def distress(host: KernelHost) -> str:
    """What may explain an agent that does not answer on a host that lives."""
    try:
        seen = host.run("sh", "-c", DISTRESS, check=False).stdout
    except (AssertionError, subprocess.TimeoutExpired) as error:
        seen = str(error)
    return f"{seen}\n{host.console()[-3000:]}"


def remains(host: KernelHost) -> list[str]:
    """Whatever is on the host that Moorage brought."""
    return host.run("sh", "-c", LEFT, check=False).stdout.splitlines()
