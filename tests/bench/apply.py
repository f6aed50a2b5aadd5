"""From `kubectl apply` to running processes and back, beside Docker Swarm from Debian's packages in the same run.

Figures: apply1_p50_s, apply20_vs_swarm, apply50_vs_swarm, apply60x3_s, remove20_vs_swarm, and what each part spent on it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tests.bench.cpu import cpu_s
from tests.bench.docker import Docker
from tests.bench.figure import figure, show
from tests.bench.watching import TaskWatch
from tests.e2e.conftest import image_manifest
from tests.fleet import Bridge
from tests.kube import ControlPlane, Registry
from tests.machine.waiting import eventually
from tests.root.runtime.host import busybox_root
from tests.swarm import Swarm, service

ROUNDS, PEER_ROUNDS = 10, 3
COMMAND = ("sleep", "100000")
ZYGOTE = "moorage_agent.runtime.entry"
"""In the command line of the zygote and all it forks; it waits for them, so their CPU time becomes its own when they end."""

PEER_IMAGE = "127.0.0.1:1/bench:1"
"""Swarm asks the registry although the image is there: this one refuses at once, and nothing leaves the machine."""


class Applying:
    """One swarm; each measurement applies a Service of a new name and takes it away again."""

    def __init__(self, swarm: Swarm, image: str) -> None:
        self._swarm, self._image, self._number = swarm, image, 0

    def round(self, replicas: int) -> tuple[float, float]:
        """Seconds from the end of `kubectl apply` to all Running, and from the end of `kubectl delete` to all gone."""
        self._number += 1
        name = f"app{self._number}"
        manifest = json.dumps(service(name, self._image, *COMMAND, replicas=replicas, task={"stopSignal": "SIGKILL"}))
        with TaskWatch(self._swarm.plane) as watch:
            self._swarm.plane.kubectl("apply", "-f", "-", input=manifest)
            applied = time.monotonic()
            up = watch.wait_running(replicas) - applied
            self._swarm.plane.kubectl("delete", "ssvc", name, "--wait=false")
            deleted = time.monotonic()
            down = watch.wait_gone(replicas) - deleted
        return max(up, 0.0), max(down, 0.0)

    def spent(self, work: Callable[[], object]) -> dict[str, float]:
        """CPU seconds by part while `work` runs, which leaves no container behind."""
        parts = {
            "api_server": [self._swarm.plane.pid("kube-apiserver")],
            "etcd": [self._swarm.plane.pid("etcd")],
            "operator": [self._swarm.operator.pid],
        }
        before = {name: sum(map(cpu_s, pids)) for name, pids in parts.items()}
        hosts = self._hosts_cpu()
        work()
        spent = {name: round(sum(map(cpu_s, pids)) - before[name], 3) for name, pids in parts.items()}
        return {**spent, **{name: round(value - hosts[name], 3) for name, value in self._hosts_cpu().items()}}

    def _hosts_cpu(self) -> dict[str, float]:
        found = {"ssh": 0.0, "agent": 0.0, "starts": 0.0}
        for host in self._swarm.hosts:
            for process in host.processes():
                line = process.command
                part = "ssh" if "sshd" in line or " dial" in line else "agent" if " serve" in line else "starts" if ZYGOTE in line else ""
                if part:
                    found[part] += cpu_s(process.pid)
        return found


@contextmanager
def running_swarm(hosts: int) -> Iterator[tuple[Swarm, Applying]]:
    with ExitStack() as things:
        bridge = things.enter_context(Bridge())
        plane = things.enter_context(ControlPlane(address=bridge.address))
        registry = things.enter_context(Registry(address=bridge.address))
        swarm = things.enter_context(Swarm(bridge=bridge, plane=plane, registry=registry))
        swarm.add_hosts(hosts)
        swarm.apply(image_manifest("app", swarm.image("bench:1"), "default"))
        applying = Applying(swarm, "image/app")
        applying.round(2 * hosts)  # the image is present everywhere, as it is for the peer
        yield swarm, applying


def one_host(peer: Docker | None) -> None:
    with running_swarm(1) as (_, applying):
        ups: list[float] = []
        spent = applying.spent(lambda: ups.extend(applying.round(1)[0] for _ in range(2 * ROUNDS)))
        show(figure("apply1_p50_s", ups, "s", cpu_s_of_all=spent))
        rounds = [applying.round(20) for _ in range(ROUNDS)]
        theirs = [peer_round(peer, f"p{number}", 20) for number in range(PEER_ROUNDS)] if peer else []
        show(figure("apply20_vs_swarm", [up for up, _ in rounds], "s", [up for up, _ in theirs]))
        show(figure("remove20_vs_swarm", [down for _, down in rounds], "s", [down for _, down in theirs]))
        rounds = [applying.round(50) for _ in range(ROUNDS)]
        theirs = [peer_round(peer, f"q{number}", 50) for number in range(PEER_ROUNDS)] if peer else []
        spent = applying.spent(lambda: applying.round(50))
        show(figure("apply50_vs_swarm", [up for up, _ in rounds], "s", [up for up, _ in theirs], cpu_s=spent))


def three_hosts() -> None:
    with running_swarm(3) as (_, applying):
        show(figure("apply60x3_s", [applying.round(60)[0] for _ in range(ROUNDS)], "s"))


def peer_round(peer: Docker, name: str, replicas: int) -> tuple[float, float]:
    up = peer.apply(name, PEER_IMAGE, replicas, *COMMAND)
    return up, peer.remove(name)


def main() -> None:
    with Docker() as peer:
        peer.load(busybox_root(peer.folder / "image"), PEER_IMAGE)
        eventually("the peer's node is ready", lambda: "Ready" in peer.run("node", "ls"), timeout_s=30)
        one_host(peer)
    three_hosts()


if __name__ == "__main__":
    main()
