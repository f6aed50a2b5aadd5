"""Hosts with kernels of their own: cgroup v2 alone, systemd, Debian's Python. What restarts, reboots, power cuts and clocks do to them.

Fork is slow in such a kernel, so nothing here measures a start.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator

import pytest
from moorage_agent.runtime import capabilities

from tests.e2e.conftest import image_manifest, swarm_on
from tests.e2e.containers import agent
from tests.e2e.kernel_pair import PATIENCE_S, WEB, Pair, at, cgroup_of, containers, kept, pair_on, remains
from tests.fleet import Bridge, KernelHost
from tests.kube import Registry, busybox_image, make_layer
from tests.machine import MissingOnMachine
from tests.machine.waiting import eventually
from tests.swarm import stack

pytestmark = [pytest.mark.e2e, pytest.mark.uml]


@pytest.fixture(scope="module")
def all_of_it(bridge: Bridge, registry: Registry) -> Iterator[Pair]:
    try:
        with swarm_on(bridge, registry) as swarm, pair_on(bridge, swarm) as pair:
            yield pair
    except MissingOnMachine as missing:
        pytest.skip(str(missing))


@pytest.fixture
def pair(all_of_it: Pair) -> Pair:
    """As each test finds it, whatever the one before did."""
    if not all_of_it.swarm.operator.running:
        all_of_it.swarm.start_operator()
    left = [each["metadata"]["name"] for each in all_of_it.swarm.items("ssvc") if each["metadata"]["name"] != "web"]
    if left:
        all_of_it.remove(*left)
    all_of_it.settled()
    return all_of_it


# --- where things are


def test_the_agent_is_a_unit_and_containers_live_in_a_delegated_scope_beside_it(pair: Pair) -> None:
    for host in pair.hosts:
        assert pair.swarm.get("snode", host.name)["status"]["cgroup"] == "v2"
        assert host.run("systemctl", "is-enabled", "moorage-agent.service").stdout == "enabled\n"
        assert host.run("systemctl", "is-active", "moorage-agent.service").stdout == "active\n"
        assert host.run("stat", "-c", "%a", "/etc/systemd/system/moorage-agent.service").stdout == "644\n"
        path = cgroup_of(host, WEB)
        assert path.startswith("0::/moorage.slice/moorage-runtime-")
        scope = path.split("/")[2]
        assert host.run("systemctl", "show", "-P", "Delegate", scope).stdout == "yes\n"
        assert host.run("systemctl", "is-system-running", check=False).stdout == "running\n"
        assert agent(host, "doctor")


def test_an_agent_that_is_restarted_killed_or_without_its_zygote_touches_no_container(pair: Pair) -> None:
    host = pair.one
    before = containers(host, WEB)
    assert len(before) == 1
    host.run("systemctl", "restart", "moorage-agent.service")
    host.run("systemctl", "kill", "--signal=KILL", "moorage-agent.service")
    host.run("sh", "-c", "kill -9 $(pgrep -x moorage-zygote)")
    pair.settled()
    pair.run("after", host, "sleep", "400002")
    assert containers(host, WEB) == before
    probed = {"exec": {"command": ["true"]}, "interval": "1s"}
    pair.run("probed", host, "sleep", "400003", task={"healthcheck": probed})
    pair.remove("after", "probed")
    assert containers(host, WEB) == before


# --- limits and confinement

INSIDE = {
    "cgroup": "cat /proc/self/cgroup",
    "limits": "cd /sys/fs/cgroup; cat memory.max memory.swap.max pids.max cpu.max",
    "read-only": "echo 5 > /sys/fs/cgroup/pids.max",
    "null": "echo lost > /dev/null && echo works",
    "kmsg": "mknod /dev/kmsg c 1 11 && head -c 1 /dev/kmsg",
    "mem": "mknod /dev/mem c 1 1 && head -c 1 /dev/mem",
    "status": "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t ' ' '",
    "masked": "cat /proc/kcore /proc/keys /proc/timer_list | wc -c; ls -A /sys/firmware",
    "sysctl": "echo 1 > /proc/sys/kernel/panic",
    "throttled": "timeout 2 sh -c 'while :; do :; done'; sed -n 's/^nr_throttled //p' /sys/fs/cgroup/cpu.stat",
    "forks": "for each in $(seq 40); do sleep 2 & done",
}
LIMITS = {"memory": "64Mi", "cpu": "200m", "pids": 20}


def asked_inside() -> str:
    """The last one uses up the forks: what follows must need none."""
    return "\n".join(f"echo '== {name}'; ({command}) 2>&1" for name, command in INSIDE.items()) + "\necho '== end'; exec sleep 400004"


def answers(text: str) -> dict[str, str]:
    parts = (part.partition("\n") for part in text.split("== ")[1:])
    return {name: answer.strip() for name, _, answer in parts}


def test_limits_hold_and_a_container_sees_its_own_cgroup_and_may_not_change_it(pair: Pair) -> None:
    guest = "id -u; cat /sys/fs/cgroup/memory.max; exec sleep 400005"
    pair.swarm.apply(
        stack(
            "limits",
            at(pair.one, "inside", "sh", "-c", asked_inside(), task={"resources": {"limits": LIMITS}, "security": {"capAdd": ["MKNOD"]}}),
            at(pair.one, "guest", "sh", "-c", guest, task={"resources": {"limits": LIMITS}, "user": "1000:1000"}),
            at(pair.one, "greedy", "tail", "/dev/zero", task={"resources": {"limits": LIMITS}, "restart": {"condition": "None"}}),
        )
    )
    pair.swarm.eventually("the greedy one ends", lambda: pair.swarm.states("limits-greedy") == {"Failed": 1}, timeout_s=PATIENCE_S)
    greedy = pair.status("limits-greedy")
    assert (greedy["exitCode"], greedy["oomKilled"]) == (137, True)
    pair.swarm.eventually("all is answered", lambda: containers(pair.one, "sleep 400004"), timeout_s=PATIENCE_S)
    seen = answers(pair.logs("limits-inside"))
    assert seen["cgroup"] == "0::/"
    assert seen["limits"].split("\n") == ["67108864", "0", "20", "20000 100000"]
    assert "Read-only file system" in seen["read-only"]
    assert seen["null"] == "works"
    assert seen["kmsg"].endswith("Operation not permitted")
    assert seen["mem"].endswith("Operation not permitted")
    mask = f"{capabilities.mask(['MKNOD'], []):016x}"
    assert seen["status"].split("\n") == [f"CapEff: {mask}", f"CapBnd: {mask}", "NoNewPrivs: 1", "Seccomp: 2"]
    assert seen["masked"] == "0"
    assert "Read-only file system" in seen["sysctl"]
    assert int(seen["throttled"].split("\n")[-1]) > 5
    assert "can't fork" in seen["forks"]
    assert pair.logs("limits-guest").split() == ["1000", "67108864"]
    pair.swarm.kubectl("delete", "sstk/limits")
    pair.swarm.eventually("nothing of the Stack is left", lambda: len(pair.swarm.tasks()) == 2, timeout_s=PATIENCE_S)
    groups = pair.one.run("find", "/sys/fs/cgroup/moorage.slice", "-mindepth", "4", "-type", "d").stdout.splitlines()
    assert len(groups) == 1, "a cgroup of a container that is gone"


# --- reboots and power cuts


def test_after_a_reboot_tasks_come_back_without_the_operator_and_those_with_secrets_wait_for_it(pair: Pair) -> None:
    host = pair.one
    pair.swarm.kubectl("create", "secret", "generic", "key", "--from-literal=key=4711")
    env = [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "key", "key": "key"}}}]
    pair.run("vault", host, "sleep", "400006", task={"env": env})
    goodbye = "trap 'echo asked >> /data/goodbye; exit 0' USR1; echo ready; while :; do sleep 1; done"
    mounts = [{"target": "/data", "volume": {"name": "data"}}]
    policy = {"condition": "OnFailure"}
    pair.run("polite", host, "sh", "-c", goodbye, task={"mounts": mounts, "stopSignal": "SIGUSR1", "restart": policy})
    pair.swarm.eventually("it can be asked", lambda: "ready" in pair.logs("polite"), timeout_s=PATIENCE_S)
    pair.swarm.operator.stop()
    began = time.monotonic()
    host.reboot(timeout_s=180)
    took = time.monotonic() - began
    pair.swarm.eventually("what was there is back", lambda: containers(host, WEB), timeout_s=PATIENCE_S)
    pair.swarm.eventually("with a clean end too", lambda: containers(host, f"sh -c {goodbye}"), timeout_s=PATIENCE_S)
    asked = host.run("sh", "-c", "cat /var/lib/moorage/volumes/*/*/*/goodbye", check=False).stdout
    logs = f"{host.console()[-4000:]}\n{host.run('tail', '-n', '50', '/var/lib/moorage/state/agent.log').stdout}"
    assert asked == "asked\n", f"the container was not stopped as it wishes to be\n{logs}"
    assert took < 60, f"the reboot waited {took:.0f} s, for containers that ignore SIGTERM?\n{logs}"
    assert not containers(host, "sleep 400006")
    assert "WaitingForSecrets" in agent(host, "ps")
    pair.swarm.start_operator()
    for name in ("vault", "polite"):
        pair.swarm.eventually(f"{name} came back once", lambda name=name: pair.came_back(name), timeout_s=PATIENCE_S)  # type: ignore[misc]
    pair.remove("vault", "polite")


def test_a_power_cut_under_load_amid_a_pull_or_right_after_it_leaves_nothing_half_written_in_use(pair: Pair) -> None:
    content = random.Random(7).randbytes(32 << 20)
    registry = pair.swarm.registry
    busybox_image(registry, "big:1", make_layer({"big": content}, compression="none"))
    pair.swarm.apply(image_manifest("big", f"{registry.host}/big:1", "default"))
    churn = "dd if=/dev/urandom of=/x bs=64k count=8 2>/dev/null; sleep 0.5; exit 1"
    churns = [f"churn-{number}" for number in range(3)]
    pair.swarm.apply(*(at(pair.one, name, "sh", "-c", churn, task={"restart": {"delay": "1s", "maxDelay": "1s"}}) for name in churns))
    pair.swarm.eventually("it churns", lambda: all(pair.restarts(name) >= 2 for name in churns), timeout_s=PATIENCE_S)
    before = kept_bytes(pair.two)
    pair.two.slow(5, loss=0.005, rate=2 << 20)
    pair.swarm.apply(at(pair.two, "big", "sh", "-c", "sha256sum /big; exec sleep 400007", image="image/big"))
    pair.swarm.eventually("the pull is on its way", lambda: kept_bytes(pair.two) > before + (2 << 20), timeout_s=PATIENCE_S)
    pair.swarm.eventually("which its task says", lambda: pair.swarm.states("big") == {"Preparing": 1}, timeout_s=PATIENCE_S)
    cut_the_power(pair.one, pair.two)
    pair.swarm.wait_running("big", 1, timeout_s=PATIENCE_S)
    cut_the_power(pair.two)
    pair.settled()
    pair.swarm.eventually("it is back", lambda: containers(pair.two, "sleep 400007"), timeout_s=PATIENCE_S)
    assert pair.logs("big").split()[-2] == hashlib.sha256(content).hexdigest()
    for host in pair.hosts:
        assert_whole(host)
    pair.remove("big", *churns)


def cut_the_power(*hosts: KernelHost) -> None:
    """And give it back."""
    for host in hosts:
        host.kill()
    for host in hosts:
        host.power_on()
    for host in hosts:
        host.wait_for_sshd(PATIENCE_S)
        host.heal()


def kept_bytes(host: KernelHost) -> int:
    return int(host.run("du", "-sb", "/var/lib/moorage/images").stdout.split()[0])


def assert_whole(host: KernelHost) -> None:
    """Only layers of the run that is: those of runs before the cut were volatile. While a run begins, that of the one before is removed."""

    def is_whole() -> bool:
        state = kept(host)
        assert state["making"] == []
        runs = ((task["roots"], f"root-{task['record']['run']}") for task in state["tasks"].values())
        return all(roots in ([], [root]) for roots, root in runs)

    eventually(f"what {host.name} keeps is whole", is_whole)
    assert "Traceback" not in host.run("cat", "/var/lib/moorage/state/agent.log").stdout


# --- time


def test_neither_a_frozen_host_nor_a_clock_that_jumps_restarts_anything(pair: Pair) -> None:
    frozen, skewed = pair.two, pair.one
    probed = {"exec": {"command": ["true"]}, "interval": "1s", "retries": 2}
    pair.run("probed", skewed, "sleep", "400008", task={"healthcheck": probed})
    pair.run("flaky", skewed, "sh", "-c", "sleep 1; exit 3", task={"restart": {"delay": "2s", "maxDelay": "2s"}})
    before = {host.name: containers(host, WEB) | containers(host, "sleep 400008") for host in pair.hosts}
    frozen.freeze()
    for days in (1, -2):
        skewed.run("python3", "-c", f"import time; time.clock_settime(0, time.time() + {days * 86400})")
        pair.await_restarts("flaky", 2)
    skewed.run("python3", "-c", "import time; time.clock_settime(0, time.time() + 86400)")
    pair.swarm.eventually("it is missed", lambda: pair.swarm.condition("snode", frozen.name)["status"] == "Unknown", timeout_s=PATIENCE_S)
    frozen.thaw()
    pair.settled()
    assert pair.restarts("flaky") < 60
    assert {host.name: containers(host, WEB) | containers(host, "sleep 400008") for host in pair.hosts} == before
    pair.remove("probed", "flaky")


# --- the end


def test_an_uninstalled_host_keeps_its_volumes_and_nothing_else(pair: Pair) -> None:
    host = pair.two
    mounts = [{"target": "/data", "volume": {"name": "kept"}}]
    pair.run("writer", host, "sh", "-c", "echo data > /data/file; exec sleep 400009", task={"mounts": mounts})
    pair.swarm.kubectl("delete", "ssvc/writer", "--wait=false")
    pair.swarm.kubectl("delete", "snode", host.name, f"--timeout={PATIENCE_S:.0f}s")
    file = host.run("sh", "-c", "ls /var/lib/moorage/volumes/*/*/*/file").stdout.strip()
    pair.swarm.eventually("its agent has ended", lambda: not host.run("pgrep", "-f", "moorage", check=False).stdout, timeout_s=PATIENCE_S)
    assert remains(host) == ["/var/lib/moorage", file]
    assert host.run("cat", file).stdout == "data\n"
    assert host.run("systemctl", "is-system-running").stdout == "running\n"
