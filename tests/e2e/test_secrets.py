"""Secrets and ConfigMaps reach containers and nothing else, and what changes in them is rolled out."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import image_manifest
from tests.e2e.looking import a_while, environment, inside, is_ready, only_task, programs, told, uids
from tests.e2e.test_images import pull_secret
from tests.fleet.traces import Process
from tests.kube import Login, Registry, busybox, push
from tests.swarm import Swarm, service

pytestmark = pytest.mark.e2e

Manifest = dict[str, Any]


def test_everything_a_manifest_can_say_arrives_in_the_container(swarm: Swarm, namespace: str, app: str) -> None:
    swarm.apply(
        data("Secret", "keys", namespace, token="s3cret", other="o"),
        data("ConfigMap", "settings", namespace, LEVEL="debug", COLOR="blue", **{"app.conf": "color = blue\n"}),
    )
    task: Manifest = {
        "hostname": "web-{{.Task.Slot}}",
        "envFrom": [{"configMapRef": {"name": "settings"}}, {"prefix": "KEY_", "secretRef": {"name": "keys"}}],
        "env": [
            {"name": "LEVEL", "value": "info"},
            {"name": "WHERE", "value": "{{.Service.Name}} on {{.Node.Hostname}}"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
            {"name": "SHADE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "COLOR"}}},
        ],
        "secrets": [{"target": "token", "secretRef": {"name": "keys", "key": "token"}, "uid": 1000, "gid": 2000, "mode": "0440"}],
        "configs": [{"target": "/etc/app/app.conf", "configMapRef": {"name": "settings", "key": "app.conf"}}],
    }
    swarm.apply(service("web", app, "sleep", "36011", namespace=namespace, task=task))
    is_ready(swarm, "ssvc", "web", namespace)
    process = the_process(swarm, "sleep 36011")

    found = environment(process)
    node = only_task(swarm, "web", namespace)["spec"]["nodeName"]
    expected = {"COLOR": "blue", "KEY_token": "s3cret", "KEY_other": "o", "LEVEL": "info", "TOKEN": "s3cret", "SHADE": "blue"}
    assert {name: found.get(name) for name in expected} == expected
    assert (found["WHERE"], found["HOSTNAME"]) == (f"web on {node}", "web-1")
    token, config = inside(process, "/run/secrets/token"), inside(process, "/etc/app/app.conf")
    assert (token.read_text(), config.read_text()) == ("s3cret", "color = blue\n")
    assert (token.stat().st_uid, token.stat().st_gid, token.stat().st_mode & 0o7777) == (1000, 2000, 0o440)
    assert config.stat().st_mode & 0o7777 == 0o444


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap"])
def test_changed_data_replaces_one_task_after_the_other(kind: str, swarm: Swarm, namespace: str, app: str) -> None:
    swarm.apply(data(kind, "settings", namespace, value="old"))
    swarm.apply(service("web", app, "sleep", a_while(namespace), namespace=namespace, replicas=3, task=with_value(kind)))
    is_ready(swarm, "ssvc", "web", namespace)
    before, least = uids(swarm, "web", namespace), 3

    swarm.apply(data(kind, "settings", namespace, value="new"))

    def replaced() -> bool:
        nonlocal least
        tasks = swarm.tasks("web", namespace)
        least = min(least, sum(is_running(task) for task in tasks))
        return not {task["metadata"]["uid"] for task in tasks} & before

    swarm.eventually("all tasks are new", replaced, every_s=0.05)
    is_ready(swarm, "ssvc", "web", namespace)
    assert least >= 2
    assert values_seen(swarm, f"sleep {a_while(namespace)}") == ["new"] * 3


def test_changed_data_that_is_to_be_ignored_waits_for_the_next_start(swarm: Swarm, namespace: str, app: str) -> None:
    swarm.apply(data("Secret", "settings", namespace, value="old"))
    swarm.apply(service("web", app, "sleep", "36013", namespace=namespace, onDataChange="Ignore", task=with_value("Secret")))
    is_ready(swarm, "ssvc", "web", namespace)
    before, process = uids(swarm, "web", namespace), the_process(swarm, "sleep 36013")

    swarm.apply(data("Secret", "settings", namespace, value="new"))
    with pytest.raises(AssertionError, match="not so within"):
        swarm.eventually("something happens", lambda: uids(swarm, "web", namespace) != before, timeout_s=3)
    assert values_seen(swarm, "sleep 36013") == ["old"]

    subprocess.run(["kill", "-9", str(process.pid)], check=True)
    swarm.eventually("it starts again with the new value", lambda: values_seen(swarm, "sleep 36013") == ["new"])
    assert uids(swarm, "web", namespace) == before


def test_a_secret_is_where_its_container_reads_it_and_nowhere_else(swarm: Swarm, namespace: str) -> None:
    canaries = {name: f"canary{secrets.token_hex(12)}" for name in ("env", "file", "password")}
    with Registry(address=swarm.bridge.address, login=Login("anna", canaries["password"])) as registry:
        push(registry, "team/app:1", busybox(config={"StopSignal": "SIGKILL"}))
        pull_secret(swarm, namespace, registry.host, canaries["password"])
        swarm.apply(
            image_manifest("app", f"{registry.host}/team/app:1", namespace, pullSecretRef={"name": "pull"}),
            data("Secret", "keys", namespace, env=canaries["env"], file=canaries["file"]),
        )
        task = {
            "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "env"}}}],
            "secrets": [{"target": "token", "secretRef": {"name": "keys", "key": "file"}, "uid": 1000}],
        }
        swarm.apply(service("web", "image/app", "sleep", "36014", namespace=namespace, replicas=3, task=task))
        is_ready(swarm, "ssvc", "web", namespace)
    canaries["key"] = key_of(swarm)
    swarm.apply(service("web", "image/app", "sleep", "36014", namespace=namespace, replicas=3, task={**task, "command": ["/no-such"]}))
    told(swarm, "ssvc", "web", namespace, "/no-such")  # what fails tells a lot: none of that may be a secret

    assert holders(swarm, canaries["env"]) == {"sleep 36014"}
    assert the_file(swarm).read_text() == canaries["file"]
    for name, canary in canaries.items():
        for written in (canary, base64.b64encode(canary.encode()).decode().rstrip("=")[:-1]):
            for host in swarm.hosts:
                assert not grep(written, host.disk.folder), f"{name} is on the disk of {host.name}"
            assert written not in arguments(swarm), f"{name} is an argument of a process"
            assert written not in said_by_the_operator(swarm), f"{name} is in what the operator says"
            assert written not in all_objects(swarm), f"{name} is in an object"


# --- how


def data(kind: str, name: str, namespace: str, **entries: str) -> Manifest:
    content = {"stringData" if kind == "Secret" else "data": entries}
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, **content}


def with_value(kind: str) -> Manifest:
    reference = "secretKeyRef" if kind == "Secret" else "configMapKeyRef"
    return {"env": [{"name": "VALUE", "valueFrom": {reference: {"name": "settings", "key": "value"}}}]}


def is_running(task: Manifest) -> bool:
    return bool(task.get("status", {}).get("state") == "Running")


def the_process(swarm: Swarm, marker: str) -> Process:
    (process,) = [process for host in swarm.hosts for process in programs(host, marker)]
    return process


def values_seen(swarm: Swarm, marker: str) -> list[str]:
    """VALUE in each of the processes."""
    return [environment(process)["VALUE"] for host in swarm.hosts for process in programs(host, marker)]


def key_of(swarm: Swarm) -> str:
    """A line of the private key by which the operator logs in."""
    return swarm.bridge.key_file.read_text().splitlines()[2]


def holders(swarm: Swarm, canary: str) -> set[str]:
    """Commands of all processes on the hosts that have it in their environment."""
    return {process.command for host in swarm.hosts for process in host.processes() if canary.encode() in environ_of(process)}


def environ_of(process: Process) -> bytes:
    """Nothing of one that has ended meanwhile."""
    try:
        return Path(f"/proc/{process.pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def the_file(swarm: Swarm) -> Path:
    first = next(process for host in swarm.hosts for process in programs(host, "sleep 36014"))
    return inside(first, "/run/secrets/token")


def grep(text: str, folder: Path) -> str:
    return subprocess.run(["grep", "-rlF", "--", text, str(folder)], capture_output=True, text=True).stdout


def arguments(swarm: Swarm) -> str:
    pids = [process.pid for host in swarm.hosts for process in host.processes()] + [operator.pid for operator in swarm.operators]
    return "\n".join(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace") for pid in pids)


def said_by_the_operator(swarm: Swarm) -> str:
    return "".join(operator.log() + operator.page("/metrics") for operator in swarm.operators if operator.running)


def all_objects(swarm: Swarm) -> str:
    """Everything but Secrets, as the API server has it."""
    kinds = "simg,ssvc,sstk,snode,stask,events,configmaps,leases"
    return json.dumps(json.loads(swarm.kubectl("get", kinds, "-A", "-o", "json", "--show-managed-fields")))
