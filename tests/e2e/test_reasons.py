"""What goes wrong is said where people look, with the object and the remedy; and the correction heals it, at nobody else's cost."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.conftest import image_manifest
from tests.e2e.looking import host_of, is_ready, told, uids
from tests.fleet import BareHost
from tests.kube import Registry, busybox, push
from tests.swarm import Swarm, service, stack

pytestmark = pytest.mark.e2e

Manifest = dict[str, Any]
FOREIGN_PORT, SHARED_PORT = 18099, 18123


@pytest.fixture(scope="module")
def calm(swarm: Swarm, image: str) -> Iterator[Callable[[], set[tuple[str, int]]]]:
    """A Service beside all the trouble; asks which tasks it has and how often they were restarted."""
    swarm.kubectl("create", "namespace", "calm")
    swarm.apply(image_manifest("app", image, "calm"), service("bystander", "image/app", "sleep", "36099", namespace="calm", replicas=3))
    swarm.wait_running("bystander", 3, namespace="calm")
    yield lambda: {(task["metadata"]["uid"], task.get("status", {}).get("restarts", 0)) for task in swarm.tasks("bystander", "calm")}
    swarm.kubectl("delete", "namespace", "calm", "--wait=false")


@dataclass(frozen=True)
class Trouble:
    """A Service `web`, what must be said about it, and what heals it. `task`: the reason must stand on its Task, too."""

    says: tuple[str, ...]
    heal: Callable[[Swarm, str], object]
    task: bool = False
    spec: Callable[[], Manifest] = dict
    prepare: Callable[[Swarm, str], object] = lambda _swarm, _namespace: None


def spec_patch(patch: str) -> Callable[[Swarm, str], None]:
    return lambda swarm, namespace: patched(swarm, namespace, patch)


def patched(swarm: Swarm, namespace: str, patch: str) -> None:
    swarm.kubectl("patch", "ssvc/web", "-n", namespace, "--type=merge", "-p", patch)


def create(*words: str) -> Callable[[Swarm, str], str]:
    return lambda swarm, namespace: swarm.kubectl("create", *words, "-n", namespace)


def from_secret(name: str, key: str) -> Manifest:
    return {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


def labelled(swarm: Swarm, namespace: str) -> None:
    swarm.kubectl("label", "snode", swarm.hosts[0].name, f"zone={namespace}")


def neighbour(swarm: Swarm, namespace: str) -> None:
    """A Service that has the port on the first host."""
    swarm.apply(service("neighbour", "image/app", "sleep", "3600", namespace=namespace, **on_port(SHARED_PORT, swarm.hosts[0].name)))
    swarm.wait_running("neighbour", 1, namespace=namespace)


def on_port(port: int, node: str) -> Manifest:
    return {
        "network": {"mode": "Host"},
        "ports": [{"name": "http", "target": port}],
        "placement": {"constraints": [f"node.name == {node}"]},
    }


TROUBLES = {
    "a Secret that does not exist": Trouble(
        says=("SecretMissing", "Secret keys does not exist", "create it"),
        spec=lambda: {"task": {"env": [from_secret("keys", "token")]}},
        heal=create("secret", "generic", "keys", "--from-literal=token=1"),
    ),
    "a Secret without the key": Trouble(
        says=("SecretKeyMissing", "Secret keys", "has no key token", "add the key"),
        spec=lambda: {"task": {"env": [from_secret("keys", "token")]}},
        prepare=create("secret", "generic", "keys", "--from-literal=other=1"),
        heal=lambda swarm, namespace: swarm.kubectl("patch", "secret/keys", "-n", namespace, "-p", '{"stringData":{"token":"1"}}'),
    ),
    "a ConfigMap that does not exist": Trouble(
        says=("ConfigMapMissing", "ConfigMap settings does not exist", "create it"),
        spec=lambda: {"task": {"configs": [{"target": "/etc/app.conf", "configMapRef": {"name": "settings", "key": "app.conf"}}]}},
        heal=create("configmap", "settings", "--from-literal=app.conf=x"),
    ),
    "an Image that does not exist": Trouble(
        says=("ImageMissing", "Image late does not exist", "create it"),
        spec=lambda: {"image": "image/late"},
        heal=lambda swarm, namespace: swarm.apply(image_manifest("late", f"{swarm.registry.host}/busybox:1", namespace)),
    ),
    "a tag that does not exist": Trouble(
        says=("ImageNotResolved", "no-such-tag", "404"),
        spec=lambda: {"image": "image/late"},
        prepare=lambda swarm, namespace: swarm.apply(image_manifest("late", f"{swarm.registry.host}/busybox:no-such-tag", namespace)),
        heal=lambda swarm, namespace: swarm.apply(image_manifest("late", f"{swarm.registry.host}/busybox:1", namespace)),
    ),
    "a constraint no node meets": Trouble(
        says=("NoSuitableNode", "constraint node.labels.zone == ", "not met on 3 nodes"),
        spec=lambda: {"placement": {"constraints": ["node.labels.zone == NAMESPACE"]}},
        heal=labelled,
        task=True,
    ),
    "more memory than there is": Trouble(
        says=("NoSuitableNode", "insufficient memory on 3 nodes"),
        spec=lambda: {"task": {"resources": {"reservations": {"memory": "900Gi"}}}},
        heal=spec_patch('{"spec":{"task":{"resources":{"reservations":{"memory":"16Mi"}}}}}'),
        task=True,
    ),
    "more processors than there are": Trouble(
        says=("NoSuitableNode", "insufficient cpu on 3 nodes"),
        spec=lambda: {"task": {"resources": {"reservations": {"cpu": "64"}}}},
        heal=spec_patch('{"spec":{"task":{"resources":{"reservations":{"cpu":"10m"}}}}}'),
        task=True,
    ),
    "a port another Service has": Trouble(
        says=("NoSuitableNode", f"port {SHARED_PORT} used by service neighbour"),
        spec=lambda: on_port(SHARED_PORT, "FIRST"),
        prepare=neighbour,
        heal=lambda swarm, namespace: swarm.kubectl("delete", "ssvc/neighbour", "-n", namespace),
        task=True,
    ),
    "a program the image lacks": Trouble(
        says=("cannot start '/bin/no-such-program'", "it is not in the image"),
        spec=lambda: {"command": ("/bin/no-such-program",)},
        heal=spec_patch('{"spec":{"task":{"command":["sleep","3600"]}}}'),
        task=True,
    ),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_trouble_is_told_and_its_correction_heals(
    name: str, swarm: Swarm, namespace: str, app: str, calm: Callable[[], set[tuple[str, int]]]
) -> None:
    trouble, before = TROUBLES[name], calm()
    trouble.prepare(swarm, namespace)
    swarm.apply(web(swarm, namespace, trouble.spec()))

    took = told(swarm, "ssvc", "web", namespace, *trouble.says)
    print(f"{name}: told after {took:.2f} s")
    if trouble.task:
        swarm.eventually("its Task says so, too", lambda: any(all(w in text for w in trouble.says) for text in words_of(swarm, namespace)))
    trouble.heal(swarm, namespace)
    is_ready(swarm, "ssvc", "web", namespace)
    assert calm() == before


def web(swarm: Swarm, namespace: str, spec: Manifest) -> Manifest:
    spec = {**spec}
    image, command = spec.pop("image", "image/app"), spec.pop("command", ("sleep", "3600"))
    made = service("web", image, *command, namespace=namespace, **spec)
    constraints = made["spec"].get("placement", {}).get("constraints", [])
    constraints[:] = [text.replace("NAMESPACE", namespace).replace("FIRST", swarm.hosts[0].name) for text in constraints]
    return made


def words_of(swarm: Swarm, namespace: str) -> list[str]:
    """Reason and message of the Tasks of `web`, as their conditions have them."""
    tasks = [task.get("status", {}) for task in swarm.tasks("web", namespace)]
    return [
        f"{condition['reason']}: {condition.get('message', '')} {status.get('exitCode', '')}"
        for status in tasks
        for condition in status.get("conditions", [])
        if condition["type"] == "Ready"
    ]


def test_a_registry_that_is_down_is_told_and_tried_again(swarm: Swarm, namespace: str) -> None:
    with Registry(address=swarm.bridge.address) as registry:
        push(registry, "app:1", busybox())
        registry.stop()
        swarm.apply(
            image_manifest("late", f"{registry.host}/app:1", namespace), service("web", "image/late", "sleep", "3600", namespace=namespace)
        )
        told(swarm, "simg", "late", namespace, "RegistryUnreachable", registry.host)
        told(swarm, "ssvc", "web", namespace, "ImageNotResolved", registry.host)
        registry.start()
        is_ready(swarm, "ssvc", "web", namespace)


def test_a_port_a_process_of_the_host_has_is_told_by_its_name(swarm: Swarm, namespace: str, app: str) -> None:
    host = swarm.hosts[1]
    with listening(host, FOREIGN_PORT):
        swarm.eventually("the Node shows the listener", lambda: FOREIGN_PORT in listeners(swarm, host))
        swarm.apply(service("web", app, "sleep", "3600", namespace=namespace, **on_port(FOREIGN_PORT, host.name)))
        told(swarm, "ssvc", "web", namespace, "NoSuitableNode", f"port {FOREIGN_PORT} used by python3 on {host.name}")
    is_ready(swarm, "ssvc", "web", namespace)


def test_a_bind_source_the_host_lacks_is_told_and_helps_once_it_is_there(swarm: Swarm, namespace: str, app: str) -> None:
    source, host = f"/srv/{namespace}", swarm.hosts[2]
    mount = {"mounts": [{"target": "/data", "bind": {"path": source}}]}
    placement = {"constraints": [f"node.name == {host.name}"]}
    swarm.apply(service("web", app, "sleep", "3600", namespace=namespace, task=mount, placement=placement))
    told(swarm, "ssvc", "web", namespace, source, "does not exist on this host", "create it")
    host.run("mkdir", "-p", source)
    is_ready(swarm, "ssvc", "web", namespace)


def test_a_stack_leaves_a_service_of_that_name_alone_and_says_so(swarm: Swarm, namespace: str, app: str) -> None:
    swarm.apply(service("shop-web", app, "sleep", "3600", namespace=namespace))
    swarm.wait_running("shop-web", 1, namespace=namespace)
    before = uids(swarm, "shop-web", namespace)
    swarm.apply(stack("shop", service("web", app, "sleep", "7200"), namespace=namespace))
    told(swarm, "sstk", "shop", namespace, "NameConflict", "shop-web")
    assert uids(swarm, "shop-web", namespace) == before
    swarm.kubectl("delete", "ssvc/shop-web", "-n", namespace)
    is_ready(swarm, "sstk", "shop", namespace)
    assert not uids(swarm, "shop-web", namespace) & before


def test_a_program_that_keeps_failing_is_told_with_its_code_and_its_next_start(swarm: Swarm, namespace: str, app: str) -> None:
    swarm.apply(service("web", app, "sh", "-c", "exit 3", namespace=namespace))
    told(swarm, "ssvc", "web", namespace, "exited with code 3", "starts again after")
    (task,) = swarm.tasks("web", namespace)
    assert host_of(swarm, task).name in swarm.condition("ssvc", "web", "Ready", namespace)["message"]
    swarm.eventually("its restarts are counted", lambda: swarm.tasks("web", namespace)[0]["status"]["restarts"] >= 2)
    patched(swarm, namespace, '{"spec":{"task":{"command":["sleep","3600"]}}}')
    is_ready(swarm, "ssvc", "web", namespace)


@contextmanager
def listening(host: BareHost, port: int) -> Iterator[None]:
    """Something that is none of ours listens on the host: until its standard input ends."""
    code = f"import socket,sys; s=socket.create_server(('', {port})); print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(host.entering(["python3", "-c", code]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdin is not None
        assert listener.stdout.readline() == "up\n"
        yield
        listener.stdin.close()


def listeners(swarm: Swarm, host: BareHost) -> list[int]:
    return [one["port"] for one in swarm.get("snode", host.name)["status"].get("listeners", [])]
