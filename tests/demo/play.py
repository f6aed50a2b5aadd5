"""The story of the demo, one line of explanation per step."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.demo.shop import shop_registry
from tests.fleet import Bridge, HostSpec
from tests.kube import ControlPlane, binary
from tests.machine import cache_dir
from tests.machine.scratch import scratch_folder
from tests.swarm import Swarm

EXAMPLE = Path(__file__).parents[2] / "examples" / "shop.yaml"
ZONES = ("eu", "us", "ap")


def play(stay: Callable[[], None] | None) -> None:
    """From nothing to a swarm and back. `stay` is called before the end when the swarm shall be kept."""
    _announce()
    with ExitStack() as things:
        swarm = _set_up(things)
        _deploy(swarm)
        _look(swarm)
        _change(swarm)
        _lose_a_host(swarm)
        if stay is not None:
            _keep(swarm)
            stay()
        _take_down(swarm)
    say("everything the demo started has ended", done=True)


def say(text: str, *, done: bool = False) -> None:
    print(f"{'✔' if done else '▸'} {text}", flush=True)


def _announce() -> None:
    say("Moorage demo: a Kubernetes API server, the operator, and three bare hosts with nothing but sshd and python3")
    say(f"what it changes: builds and unpacks into {cache_dir()}, uses temporary folders, namespaces, mounts and cgroups;")
    say("                 no package is installed, no service enabled, no port opened beyond this machine. Ctrl-C ends it all")


def _set_up(things: ExitStack) -> Swarm:
    for name in ("kubectl", "etcd", "kube-apiserver", "kube-controller-manager"):
        binary(name)
    bridge = things.enter_context(Bridge())
    say(f"a network of its own: {bridge.network}, which ends at this machine")
    plane = things.enter_context(ControlPlane(address=bridge.address))
    say(f"a real control plane, without nodes: {plane.url}", done=True)
    folder = scratch_folder("demo")
    things.callback(shutil.rmtree, folder, ignore_errors=True)
    registry, trust = shop_registry(bridge.address, folder)
    things.callback(registry.close)
    say("a registry, registry.example, with three images made of BusyBox just now", done=True)
    swarm = things.enter_context(Swarm(bridge=bridge, plane=plane, registry=registry))
    say("CRDs installed, the operator runs as a process beside (on a cluster: helm install)", done=True)
    started = time.monotonic()
    for zone in ZONES:
        swarm.add_hosts(1, HostSpec(read_only=trust), ready=False, labels={"zone": zone})
    say("three hosts booted, a Node applied for each: the operator logs in and puts its agent there")
    show(swarm, "wait", "snode", "--all", "--for=condition=Ready", "--timeout=60s")
    say(f"three bare hosts joined {time.monotonic() - started:.1f} s after their power-on", done=True)
    return swarm


def _deploy(swarm: Swarm) -> None:
    say(f"kubectl apply -f {EXAMPLE.name}: a Stack of a web server (3 tasks), a worker with a secret (2), a collector on every node")
    started = time.monotonic()
    show(swarm, "apply", "-f", EXAMPLE)
    show(swarm, "wait", "sstk/shop", "-n", "shop", "--for=condition=Ready", "--timeout=120s")
    say(f"all healthy {time.monotonic() - started:.1f} s after the apply began", done=True)


def _look(swarm: Swarm) -> None:
    show(swarm, "get", "swarm", "-n", "shop")
    worker = next(task for task in swarm.tasks("shop-worker", "shop"))
    host = next(host for host in swarm.hosts if host.name == worker["spec"]["nodeName"])
    say(f"what {worker['metadata']['name']} says, read on {host.name} with moorage-agent logs:")
    print(indented(host.run("/var/lib/moorage/agent/current/moorage-agent", "logs", worker["metadata"]["name"], "--tail", "3").stdout))
    say("the web server answers:")
    print(indented(ask(swarm.hosts[0].address)))


def _change(swarm: Swarm) -> None:
    say("kubectl scale: five workers")
    show(swarm, "scale", "ssvc/shop-worker", "-n", "shop", "--replicas=5")
    swarm.wait_running("shop-worker", 5, namespace="shop")
    show(swarm, "get", "ssvc", "-n", "shop")


def _lose_a_host(swarm: Swarm) -> None:
    victim = swarm.hosts[2]
    say(f"{victim.name} loses its power. After 15 s of silence its Node is Unknown, after 30 s its tasks are replaced elsewhere")
    victim.kill()
    started = time.monotonic()
    swarm.eventually("the workers run elsewhere", lambda: _workers_elsewhere(swarm, victim.name) == 5, timeout_s=120)
    say(f"five workers run on the other hosts {time.monotonic() - started:.0f} s after the power cut", done=True)
    show(swarm, "get", "snode")
    say(f"{victim.name} is back: what it ran before is stopped, its own collector runs again")
    victim.boot()
    swarm.wait_node(victim.name)
    swarm.eventually("its collector runs", lambda: swarm.states("shop-metrics", "shop").get("Running") == 3, timeout_s=120)
    show(swarm, "get", "snode")


def _workers_elsewhere(swarm: Swarm, lost: str) -> int:
    tasks = swarm.tasks("shop-worker", "shop")
    return sum(task.get("status", {}).get("state") == "Running" and task["spec"].get("nodeName") != lost for task in tasks)


def _keep(swarm: Swarm) -> None:
    say("KEEP=1: the swarm stays until make demo-clean. Look around with", done=True)
    print(f"    export KUBECONFIG={swarm.plane.kubeconfig}\n    {binary('kubectl')} get swarm -A", flush=True)


def _take_down(swarm: Swarm) -> None:
    say("kubectl delete: the Stack goes, with every process on every host")
    show(swarm, "delete", "sstk/shop", "-n", "shop")
    swarm.eventually("no task is left", lambda: not swarm.tasks(namespace="shop"), timeout_s=60)
    show(swarm, "get", "swarm", "-n", "shop")


def show(swarm: Swarm, *args: str | Path) -> None:
    """A kubectl command as the user would type it, and what it prints."""
    print(f"  $ kubectl {' '.join(arg.name if isinstance(arg, Path) else arg for arg in args)}", flush=True)
    command = [str(binary("kubectl")), f"--kubeconfig={swarm.plane.kubeconfig}", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"], "HOME": str(swarm.plane.folder)})
    print(indented(done.stdout + done.stderr), flush=True)
    assert done.returncode == 0, f"kubectl {' '.join(map(str, args))} ended with {done.returncode}\n{swarm.story()}"


def ask(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}:8080/", timeout=5) as answer:
        return str(answer.read().decode())


def indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.rstrip().splitlines())
