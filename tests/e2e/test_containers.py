"""What a container gets, may and must: health, limits, restarts, stopping, mounts, rights, network, output."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.looking import agent, host_of, inside, is_ready, only_task, programs, running, said, told, uids
from tests.fleet import BareHost
from tests.fleet.traces import Process
from tests.swarm import Swarm, service

pytestmark = pytest.mark.e2e

Manifest = dict[str, Any]

# A web server that is healthy while /tmp/ok is there. Each check finds that out in its own way.
WATCHED = (
    "mkdir -p /www; while true; do if test -f /tmp/ok; then touch /www/ok; else rm -f /www/ok; fi; sleep 0.1; done & "
    "exec httpd -f -p 8080 -h /www"
)
CHECKS: dict[str, Manifest] = {
    "exec": {"exec": {"command": ["test", "-f", "/tmp/ok"]}},
    "http": {"http": {"port": 8080, "path": "/ok"}},
}
OFTEN = {"interval": "1s", "timeout": "5s", "retries": 2, "startPeriod": "60s", "startInterval": "1s"}


# --- health


@pytest.mark.parametrize("kind", CHECKS)
def test_a_container_counts_once_it_is_healthy_and_is_restarted_when_it_no_longer_is(
    kind: str, swarm: Swarm, namespace: str, app: str
) -> None:
    swarm.apply(service("web", app, "sh", "-c", WATCHED, namespace=namespace, task={"healthcheck": {**CHECKS[kind], **OFTEN}}))
    told(swarm, "ssvc", "web", namespace, "waits for its health check")
    assert swarm.states("web", namespace) == {"Starting": 1}
    first = the_process(swarm, namespace, "httpd")
    inside(first, "/tmp/ok").touch()
    is_ready(swarm, "ssvc", "web", namespace)

    inside(first, "/tmp/ok").unlink()
    told(swarm, "ssvc", "web", namespace, "Unhealthy")
    swarm.eventually("it runs anew", lambda: status(swarm, namespace).get("restarts") == 1)
    assert status(swarm, namespace)["lastExits"][0]["reason"] == "Unhealthy"
    swarm.eventually("the new one is there", lambda: the_process(swarm, namespace, "httpd").pid != first.pid)
    inside(the_process(swarm, namespace, "httpd"), "/tmp/ok").touch()
    is_ready(swarm, "ssvc", "web", namespace)


def test_a_connection_accepted_is_health_enough_for_a_tcp_check(swarm: Swarm, namespace: str, app: str) -> None:
    late = "until test -f /tmp/ok; do sleep 0.1; done; exec httpd -f -p 8080 -h /tmp"
    swarm.apply(service("web", app, "sh", "-c", late, namespace=namespace, task={"healthcheck": {"tcp": {"port": 8080}, **OFTEN}}))
    told(swarm, "ssvc", "web", namespace, "waits for its health check")
    inside(the_process(swarm, namespace, "until test"), "/tmp/ok").touch()
    is_ready(swarm, "ssvc", "web", namespace)


def test_an_update_that_is_never_healthy_stops_at_the_first_task(swarm: Swarm, namespace: str, app: str) -> None:
    swarm.apply(service("web", app, "sleep", "36021", namespace=namespace, replicas=3))
    is_ready(swarm, "ssvc", "web", namespace)
    sick = {"healthcheck": {"exec": {"command": ["false"]}, "interval": "1s", "retries": 1, "startInterval": "1s"}}
    swarm.apply(service("web", app, "sleep", "36021", namespace=namespace, replicas=3, task=sick))
    told(swarm, "ssvc", "web", namespace, "the update to version", "stopped, 2 of 3 slots are not touched")
    assert swarm.states("web", namespace)["Running"] == 2
    swarm.apply(service("web", app, "sleep", "36022", namespace=namespace, replicas=3))
    is_ready(swarm, "ssvc", "web", namespace)
    assert running(swarm, "sleep 36022") == 3


# --- limits


def test_memory_processes_and_cpu_are_limited_on_the_host(swarm: Swarm, namespace: str, app: str) -> None:
    limits = {"memory": "64Mi", "pids": 20, "cpu": "500m"}
    swarm.apply(service("web", app, "sleep", "36023", namespace=namespace, task={"resources": {"limits": limits}}))
    is_ready(swarm, "ssvc", "web", namespace)
    assert group(swarm, namespace, "memory", "memory.limit_in_bytes") == str(64 << 20)
    assert group(swarm, namespace, "pids", "pids.max") == "20"
    assert int(group(swarm, namespace, "cpu", "cpu.cfs_quota_us")) * 2 == int(group(swarm, namespace, "cpu", "cpu.cfs_period_us"))


def test_who_takes_more_memory_than_allowed_is_killed_and_that_is_told(swarm: Swarm, namespace: str, app: str) -> None:
    swarm.apply(
        service("web", app, "sh", "-c", "exec tail /dev/zero", namespace=namespace, task={"resources": {"limits": {"memory": "16Mi"}}})
    )
    told(swarm, "ssvc", "web", namespace, "exited with code 137", "out of memory")
    found = status(swarm, namespace)
    assert (found["oomKilled"], found["exitCode"], found["lastExits"][0]["oomKilled"]) == (True, 137, True)


def test_who_starts_too_many_processes_cannot(swarm: Swarm, namespace: str, app: str) -> None:
    bomb = "exec 2>&1; for i in $(seq 30); do sleep 36024 & done; wait"
    swarm.apply(service("web", app, "sh", "-c", bomb, namespace=namespace, task={"resources": {"limits": {"pids": 10}}}))
    swarm.eventually("it failed to fork", lambda: any("can't fork" in said(swarm, task) for task in swarm.tasks("web", namespace)))
    assert running(swarm, "sleep 36024") <= 10


# --- restarts


@pytest.mark.parametrize(
    ("command", "restart", "state", "words", "remedy"),
    [
        ("exit 0", {"condition": "OnFailure"}, "Complete", "", ""),
        ("exit 0", {"condition": "None"}, "Complete", "", ""),
        ("exit 4", {"condition": "None"}, "Failed", "exited with code 4", "restart.condition is None"),
        (
            "exit 5",
            {"condition": "Any", "delay": "100ms", "maxAttempts": 2},
            "Failed",
            "all 2 restart attempts are used up",
            "restart.maxAttempts",
        ),
    ],
)
def test_what_ends_for_good_says_so(
    command: str, restart: Manifest, state: str, words: str, remedy: str, swarm: Swarm, namespace: str, app: str
) -> None:
    swarm.apply(service("job", app, "sh", "-c", command, namespace=namespace, task={"restart": restart}))
    swarm.eventually(f"it is {state}", lambda: swarm.states("job", namespace) == {state: 1})
    assert words in only_task(swarm, "job", namespace)["status"]["message"]
    if state == "Failed":
        told(
            swarm, "ssvc", "job", namespace, "TaskFailed", words.replace("restart attempts", "of restart.maxAttempts").split(" of ")[0][:5]
        )
        assert swarm.condition("ssvc", "job", "Stalled", namespace)["status"] == "True"
    before = uids(swarm, "job", namespace)
    time.sleep(2)
    assert uids(swarm, "job", namespace) == before


def test_a_failing_container_is_restarted_only_on_failure_and_ever_more_slowly(swarm: Swarm, namespace: str, app: str) -> None:
    swarm.apply(
        service("web", app, "sh", "-c", "exit 7", namespace=namespace, task={"restart": {"condition": "OnFailure", "delay": "200ms"}})
    )
    swarm.eventually("four restarts", lambda: swarm.tasks("web", namespace) and status(swarm, namespace).get("restarts", 0) >= 4)
    task = only_task(swarm, "web", namespace)
    exits = json.loads(agent(host_of(swarm, task), "report"))["tasks"]
    times = next(each["lastExits"] for each in exits if each["uid"] == task["metadata"]["uid"])
    gaps = [later["at"] - earlier["at"] for earlier, later in itertools.pairwise(times)]
    assert gaps[-1] > gaps[0]
    assert {one["code"] for one in status(swarm, namespace)["lastExits"]} == {7}


# --- stopping


def test_a_container_may_end_in_its_own_way(swarm: Swarm, namespace: str, app: str) -> None:
    polite = "trap 'echo asked > /data/end; exit 0' USR1; echo up; while true; do sleep 0.1; done"
    task = {"stopSignal": "SIGUSR1", "stopGracePeriod": "30s", "mounts": [{"target": "/data", "volume": {"name": "data"}}]}
    swarm.apply(service("web", app, "sh", "-c", polite, namespace=namespace, task=task))
    is_ready(swarm, "ssvc", "web", namespace)
    swarm.eventually("it is up", lambda: "up" in said(swarm, only_task(swarm, "web", namespace)))
    host, began = host_of(swarm, only_task(swarm, "web", namespace)), time.monotonic()
    swarm.kubectl("delete", "ssvc/web", "-n", namespace)
    swarm.wait_running("web", 0, namespace=namespace)
    assert time.monotonic() - began < 25
    assert volume(host, namespace, "web", "data").joinpath("end").read_text() == "asked\n"


def test_a_container_that_does_not_end_is_killed_after_its_grace(swarm: Swarm, namespace: str, app: str) -> None:
    task = {"stopSignal": "SIGTERM", "stopGracePeriod": "2s"}
    swarm.apply(service("web", app, "sleep", "36025", namespace=namespace, task=task))
    is_ready(swarm, "ssvc", "web", namespace)
    began = time.monotonic()
    swarm.kubectl("delete", "ssvc/web", "-n", namespace)
    swarm.wait_running("web", 0, namespace=namespace)
    assert 2 <= time.monotonic() - began < 20
    assert running(swarm, "sleep 36025") == 0


# --- files


def test_what_is_mounted_is_there_as_asked_for(swarm: Swarm, namespace: str, app: str) -> None:
    host = swarm.hosts[0]
    host.run("mkdir", "-p", f"/srv/{namespace}")
    host.path(f"/srv/{namespace}/given").write_text("by the host")
    mounts = [
        {"target": "/host", "bind": {"path": f"/srv/{namespace}"}},
        {"target": "/fixed", "bind": {"path": f"/srv/{namespace}"}, "readOnly": True},
        {"target": "/data", "volume": {"name": "data"}},
        {"target": "/memory", "tmpfs": {"size": "8Mi"}},
    ]
    script = (
        "cat /host/given; echo; echo written > /host/back; echo x > /fixed/no || echo fixed; echo x > /no || echo root; "
        "echo x > /memory/yes && echo memory; echo kept >> /data/log; grep /memory /proc/mounts; echo end; sleep 3600"
    )
    swarm.apply(
        service(
            "web", app, "sh", "-c", script, namespace=namespace,
            task={"readOnly": True, "mounts": mounts}, placement={"constraints": [f"node.name == {host.name}"]},
        )
    )  # fmt: skip
    text = said_up_to_end(swarm, namespace)
    assert text.startswith("by the host\n")
    assert [word for word in ("fixed", "root", "memory") if word in text.splitlines()] == ["fixed", "root", "memory"]
    assert "tmpfs /memory tmpfs rw" in text
    assert "size=8192k" in text
    assert host.path(f"/srv/{namespace}/back").read_text() == "written\n"


def test_a_volume_keeps_its_data_over_replacement_and_deletion(swarm: Swarm, namespace: str, app: str) -> None:
    def applied(number: str) -> None:
        script = f"echo {number} >> /data/log; sleep 3600"
        task = {"mounts": [{"target": "/data", "volume": {"name": "data"}}]}
        swarm.apply(service("db", app, "sh", "-c", script, namespace=namespace, task=task))
        is_ready(swarm, "ssvc", "db", namespace)

    applied("1")
    host = host_of(swarm, only_task(swarm, "db", namespace))
    applied("2")
    assert host_of(swarm, only_task(swarm, "db", namespace)) == host
    swarm.kubectl("delete", "ssvc/db", "-n", namespace)
    swarm.wait_running("db", 0, namespace=namespace)
    assert volume(host, namespace, "db", "data").joinpath("log").read_text() == "1\n2\n"
    applied("3")
    assert host_of(swarm, only_task(swarm, "db", namespace)) == host
    swarm.eventually("it goes on", lambda: volume(host, namespace, "db", "data").joinpath("log").read_text() == "1\n2\n3\n")


# --- who and what it is


def test_a_container_is_who_and_where_the_manifest_says(swarm: Swarm, namespace: str, app: str) -> None:
    security = {
        "capAdd": ["NET_ADMIN"],
        "capDrop": ["CHOWN"],
        "sysctls": [{"name": "net.core.somaxconn", "value": "77"}],
        "ulimits": [{"name": "nofile", "soft": 123, "hard": 456}],
        "shmSize": "1Mi",
    }
    task = {"user": "1234:4321", "groups": ["5555"], "workingDir": "/tmp", "hostname": "my-host", "init": True, "security": security}
    script = (
        "id -u; id -g; id -G; pwd; hostname; cat /proc/1/comm; cat /proc/sys/net/core/somaxconn; ulimit -Sn; ulimit -Hn; "
        "grep shm /proc/mounts; grep NoNewPrivs /proc/self/status; grep CapBnd /proc/self/status; echo end; sleep 3600"
    )
    swarm.apply(service("web", app, "sh", "-c", script, namespace=namespace, task={**task, "stopSignal": "SIGKILL"}))
    lines = said_up_to_end(swarm, namespace).splitlines()
    assert lines[:2] == ["1234", "4321"]
    assert set(lines[2].split()) == {"4321", "5555"}
    assert lines[3:5] == ["/tmp", "my-host"]
    assert lines[5] != "sh"  # an init is process 1
    assert lines[6:9] == ["77", "123", "456"]
    assert "size=1024k" in lines[9]
    assert lines[10].split() == ["NoNewPrivs:", "1"]
    bounding = int(lines[11].split()[1], 16)
    assert bounding >> 12 & 1  # NET_ADMIN, capabilities(7)
    assert not bounding & 1  # CHOWN


@pytest.mark.parametrize(("mode", "expected"), [("Isolated", {"lo"}), ("Host", {"lo", "eth0"})])
def test_the_network_is_the_containers_own_or_the_hosts(mode: str, expected: set[str], swarm: Swarm, namespace: str, app: str) -> None:
    script = "cat /proc/net/dev; echo end; sleep 3600"
    swarm.apply(service("web", app, "sh", "-c", script, namespace=namespace, network={"mode": mode}))
    text = said_up_to_end(swarm, namespace)
    names = {line.split(":")[0].strip() for line in text.splitlines() if ":" in line and "|" not in line}
    assert names == expected
    process = the_process(swarm, namespace, "sleep 3600")
    assert "LOWER_UP" in link_of(process)
    own = Path(f"/proc/{process.pid}/ns/net").readlink()
    assert (own == Path(f"/proc/{host_of(swarm, only_task(swarm, 'web', namespace)).pid}/ns/net").readlink()) == (mode == "Host")


# --- output, and the host's own tools


def test_output_is_kept_within_its_bounds_and_read_on_the_host(swarm: Swarm, namespace: str, app: str) -> None:
    script = "for i in $(seq 20000); do echo line $i of a long story; done; echo oops >&2; echo end; sleep 3600"
    swarm.apply(service("web", app, "sh", "-c", script, namespace=namespace, task={"logs": {"maxSize": "64Ki", "maxFiles": 2}}))
    text = said_up_to_end(swarm, namespace)
    assert text.splitlines()[-2:] == ["line 20000 of a long story", "end"]
    assert "line 1 of" not in text
    task = only_task(swarm, "web", namespace)
    host, name = host_of(swarm, task), task["metadata"]["name"]
    kept = list(host.path(f"/var/lib/moorage/tasks/{task['metadata']['uid']}/log").iterdir())
    assert len(kept) <= 2
    assert sum(file.stat().st_size for file in kept) <= 2 * (64 << 10) + (64 << 10)
    # "oops" goes where it came from; which of two streams is read first is not said
    assert agent(host, "logs", name, "--tail", "2") in ("end\n", "line 20000 of a long story\nend\n")
    assert "oops" not in agent(host, "logs", name)

    assert name in agent(host, "ps")
    (reported,) = [each for each in json.loads(agent(host, "report"))["tasks"] if each["uid"] == task["metadata"]["uid"]]
    assert reported["state"] == "Running"
    assert "containers can be started here" in agent(host, "doctor")


# --- how


def status(swarm: Swarm, namespace: str) -> Manifest:
    found: Manifest = only_task(swarm, "web", namespace).get("status", {})
    return found


def the_process(swarm: Swarm, namespace: str, marker: str) -> Process:
    """The first process with the marker in the container of the only task of `web`."""
    task = only_task(swarm, "web", namespace)
    host = host_of(swarm, task)

    def ours() -> list[Process]:
        return [process for process in programs(host, marker) if task["metadata"]["uid"] in Path(f"/proc/{process.pid}/cgroup").read_text()]

    found: Process = swarm.eventually(f"{marker} runs", ours)[0]
    return found


def group(swarm: Swarm, namespace: str, controller: str, file: str) -> str:
    """What a control file of the only task says on its host."""
    task = only_task(swarm, "web", namespace)
    folder = host_of(swarm, task).path(f"/sys/fs/cgroup/{controller}/moorage/std")
    (own,) = folder.glob(f"{task['metadata']['uid']}.*")
    return (own / file).read_text().strip()


def volume(host: BareHost, namespace: str, service: str, name: str) -> Path:
    return host.path(f"/var/lib/moorage/volumes/{namespace}/Service.{service}/{name}")


def said_up_to_end(swarm: Swarm, namespace: str) -> str:
    """The output of the only task of `web`, once it said `end`."""
    is_ready(swarm, "ssvc", "web", namespace)

    def text() -> str:
        found = said(swarm, only_task(swarm, "web", namespace))
        return found if found.endswith("end\n") else ""

    found: str = swarm.eventually("it said all", text)
    return found


def link_of(process: Process) -> str:
    """Flags of the loopback interface the process sees."""
    command = ["nsenter", f"--net=/proc/{process.pid}/ns/net", "ip", "link", "show", "lo"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
