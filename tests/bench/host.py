"""What a host costs: node_ready_s (alone, and twenty at once) and agent_idle_pss_mib (daemon and zygote together)."""

from __future__ import annotations

import time

from tests.bench.apply import running_swarm
from tests.bench.cpu import pss
from tests.bench.figure import figure, show
from tests.fleet import BareHost
from tests.swarm import Swarm
from tests.swarm.manifests import node

ROUNDS, MANY = 5, 20


def main() -> None:
    with running_swarm(1) as (swarm, _):
        show(figure("agent_idle_pss_mib", [agent_pss(swarm.hosts[0]) / 2**20], "MiB"))
        show(figure("node_ready_s", [seconds_until_ready(swarm, 1) for _ in range(ROUNDS)], "s"))
        show(figure("node_ready_20_s", [seconds_until_ready(swarm, MANY)], "s"))


def seconds_until_ready(swarm: Swarm, count: int) -> float:
    """From the end of `kubectl apply` of bare hosts' Nodes until the last is Ready: agent sent, unpacked and serving."""
    hosts = [swarm.bridge.host() for _ in range(count)]
    swarm.hosts += hosts
    swarm.apply(*(node(host) for host in hosts))
    applied = time.monotonic()
    names = {host.name for host in hosts}
    swarm.eventually("they are ready", lambda: names <= ready(swarm), every_s=0.02)
    return time.monotonic() - applied


def ready(swarm: Swarm) -> set[str]:
    """Asked directly: a kubectl costs 60 ms of what is measured."""
    nodes = swarm.plane.request("GET", "/apis/moorage.dev/v1alpha1/swarmnodes").body["items"]
    return {each["metadata"]["name"] for each in nodes if each.get("status", {}).get("state") == "Ready"}


def agent_pss(host: BareHost) -> int:
    return pss(process.pid for process in host.processes() if " serve " in f"{process.command} " or "zygote" in process.command)


if __name__ == "__main__":
    main()
