"""Whatever is killed, in turn or together: what was asked for runs once, no exit code is invented, and nothing is left behind."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import image_manifest, swarm_on
from tests.e2e.looking import a_while, daemons, inside, is_ready, programs, running, shims, uids, zygotes
from tests.fleet import BareHost, Bridge
from tests.fleet.traces import Process
from tests.kube import Registry
from tests.swarm import Swarm, service

pytestmark = pytest.mark.e2e

Find = Callable[[BareHost], list[Process]]
VICTIMS: dict[str, tuple[Find, ...]] = {
    "daemons": (daemons,),
    "zygotes": (zygotes,),
    "shims": (shims,),
    "daemons and zygotes": (daemons, zygotes),
    "zygotes and shims": (zygotes, shims),
    "all of the agent": (daemons, zygotes, shims),
}


@pytest.fixture(scope="module")
def swarm(bridge: Bridge, registry: Registry) -> Iterator[Swarm]:
    """Of its own: its operator is killed."""
    with swarm_on(bridge, registry) as swarm:
        swarm.add_hosts(3)
        yield swarm


def kill(processes: list[Process]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def blow(swarm: Swarm, marker: str, *finds: Find, operator: bool = False) -> None:
    """Kill, then wait until something moved again: the next blow shall hit work, not ruins."""
    before = running(swarm, marker)
    if operator:
        swarm.operator.kill()
        swarm.operator.start(wait=False)
    kill_on(swarm, *finds)
    with suppress(AssertionError):
        swarm.eventually("work goes on", lambda: running(swarm, marker) != before, timeout_s=3)


def kill_on(swarm: Swarm, *finds: Find) -> None:
    for host in swarm.hosts:
        kill([process for find in finds for process in find(host)])


# --- kills in the middle of work


def test_a_scale_up_through_every_crash_ends_with_each_container_once(swarm: Swarm, namespace: str, app: str) -> None:
    swarm.apply(service("web", app, "sleep", "36031", namespace=namespace, replicas=3))
    swarm.wait_running("web", 3, namespace=namespace)
    swarm.kubectl("scale", "ssvc/web", "--replicas=30", "-n", namespace)
    blow(swarm, "sleep 36031", operator=True)
    for finds in VICTIMS.values():
        blow(swarm, "sleep 36031", *finds)
    blow(swarm, "sleep 36031", daemons, zygotes, shims, operator=True)

    swarm.wait_running("web", 30, namespace=namespace, timeout_s=120)
    is_ready(swarm, "ssvc", "web", namespace)
    # What the API says may lag behind a crash of everybody who could tell, but only until somebody can.
    swarm.eventually(
        "each runs once", lambda: processes_by_task(swarm, "sleep 36031") == dict.fromkeys(uids(swarm, "web", namespace), 1), timeout_s=30
    )


@pytest.mark.parametrize("victims", VICTIMS)
def test_no_container_ends_when_its_keepers_do(victims: str, swarm: Swarm, namespace: str, app: str) -> None:
    swarm.apply(service("web", app, "sleep", a_while(namespace), namespace=namespace, replicas=6))
    swarm.wait_running("web", 6, namespace=namespace)
    marker = f"sleep {a_while(namespace)}"
    before = {process.pid for host in swarm.hosts for process in programs(host, marker)}
    kill_on(swarm, *VICTIMS[victims])
    swarm.eventually("the daemons are back", lambda: all(len(daemons(host)) == 1 and zygotes(host) for host in swarm.hosts))
    swarm.eventually("all are Ready again", lambda: all(is_ready_node(swarm, host) for host in swarm.hosts))
    assert {process.pid for host in swarm.hosts for process in programs(host, marker)} == before
    assert swarm.states("web", namespace) == {"Running": 6}
    assert all(task["status"].get("restarts", 0) == 0 for task in swarm.tasks("web", namespace))


# --- exit codes


@pytest.mark.parametrize("victims", ["nobody", *VICTIMS])
def test_an_exit_code_is_known_while_one_keeper_lives_and_never_invented(victims: str, swarm: Swarm, namespace: str, app: str) -> None:
    """Containers wait for a file and end with 7; by then their keepers are dead. Whose code nobody saw is unknown."""
    script = f"until test -f /go; do sleep 0.1; done; exit 7 # {a_while(namespace)}"
    swarm.apply(service("web", app, "sh", "-c", script, namespace=namespace, replicas=3, task={"restart": {"condition": "None"}}))
    swarm.wait_running("web", 3, namespace=namespace)
    killed = VICTIMS.get(victims, ())
    kill_on(swarm, *killed)
    for host in swarm.hosts:
        for process in programs(host, f"# {a_while(namespace)}"):
            inside(process, "/go").touch()
    swarm.eventually("all ended", lambda: swarm.states("web", namespace) == {"Failed": 3})
    codes = [task["status"].get("exitCode") for task in swarm.tasks("web", namespace)]
    if set(killed) == {daemons, zygotes, shims}:
        assert set(codes) <= {7, None}
        assert all(
            "unknown exit code" in task["status"]["message"] for task in swarm.tasks("web", namespace) if "exitCode" not in task["status"]
        )
    else:
        assert codes == [7, 7, 7]


# --- nothing is left


def test_two_hundred_tasks_leave_their_hosts_as_they_were(swarm: Swarm, namespace: str, app: str) -> None:
    swarm.apply(*(service(f"s{number}", app, "sleep", "36033", namespace=namespace) for number in range(10)))
    swarm.eventually("ten run", lambda: swarm.states(namespace=namespace) == {"Running": 10})
    scale_all(swarm, namespace, 0)
    swarm.eventually("none is there", lambda: not swarm.tasks(namespace=namespace))
    before = [(host.traces(), files(host)) for host in swarm.hosts]
    for _ in range(19):
        scale_all(swarm, namespace, 1)
        swarm.eventually("ten run", lambda: swarm.states(namespace=namespace) == {"Running": 10}, every_s=0.05)
        scale_all(swarm, namespace, 0)
        swarm.eventually("none is there", lambda: not swarm.tasks(namespace=namespace), every_s=0.05)
    for host, (traces, paths) in zip(swarm.hosts, before, strict=True):
        swarm.eventually(f"{host.name} is as before", lambda host=host, traces=traces: not host.traces().since(traces), timeout_s=10)  # type: ignore[misc]
        assert files(host) - paths == set()


# --- how


@pytest.fixture
def app(swarm: Swarm, namespace: str) -> str:
    reference = swarm.image("busybox:1", config={"StopSignal": "SIGKILL"})
    swarm.apply(image_manifest("app", reference, namespace))
    return "image/app"


def processes_by_task(swarm: Swarm, marker: str) -> dict[str, int]:
    """How many first processes there are for each task, by its uid: a container's control group is named by it."""
    found: Counter[str] = Counter()
    for host in swarm.hosts:
        for process in programs(host, marker):
            group = Path(f"/proc/{process.pid}/cgroup").read_text().split("/std/", 1)[1]
            found[group[:36]] += 1
    return dict(found)


def is_ready_node(swarm: Swarm, host: BareHost) -> bool:
    return swarm.condition("snode", host.name).get("status") == "True"


def scale_all(swarm: Swarm, namespace: str, replicas: int) -> None:
    swarm.kubectl("scale", "ssvc", "--all", f"--replicas={replicas}", "-n", namespace)


def files(host: BareHost) -> set[str]:
    """What the agent keeps of this boot and of tasks, on the disk and in memory."""
    found: set[str] = set()
    for top in ("/run/moorage", "/var/lib/moorage/tasks", "/var/lib/moorage/state", "/var/lib/moorage/volumes"):
        base = host.path(top)
        found |= {f"{top}/{path.relative_to(base)}" for path in base.rglob("*")}
    return found
