"""Where images come from, what a tag means over time, and who holds what."""

from __future__ import annotations

import hashlib
import http.server
import json
import secrets
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import image_manifest
from tests.e2e.looking import is_ready, running, told, uids
from tests.fleet import BareHost
from tests.kube import Entry, Image, Index, Login, Registry, busybox, make_layer, push
from tests.kube.archives import write_docker_save, write_oci_layout
from tests.kube.certificates import Authority
from tests.kube.images import NATIVE, busybox_layer, for_other_machine
from tests.swarm import Swarm, service

pytestmark = pytest.mark.e2e

AT_ONCE = {"StopSignal": "SIGKILL"}
LAYERS = "/var/lib/moorage/images/layers"


# --- registries that want something


@pytest.mark.parametrize("tokens", [False, True], ids=["password", "token"])
def test_a_private_registry_opens_to_the_right_password_whenever_it_comes(tokens: bool, swarm: Swarm, namespace: str) -> None:
    login = Login("anna", secrets.token_hex(12))
    with Registry(address=swarm.bridge.address, login=login, tokens=tokens) as registry:
        push(registry, "team/app:1", busybox(layer("private"), config=AT_ONCE))
        pull_secret(swarm, namespace, registry.host, "wrong")
        swarm.apply(
            image_manifest("app", f"{registry.host}/team/app:1", namespace, pullSecretRef={"name": "pull"}),
            service("web", "image/app", "sleep", "3600", namespace=namespace, placement={"maxReplicasPerNode": 1}),
        )
        told(swarm, "simg", "app", namespace, "Unauthorized", "check the pull secret")
        told(swarm, "ssvc", "web", namespace, "ImageNotResolved", "check the pull secret")
        pull_secret(swarm, namespace, registry.host, login.password)
        is_ready(swarm, "ssvc", "web", namespace)

        pull_secret(swarm, namespace, registry.host, "wrong again")
        swarm.kubectl("scale", "ssvc/web", "--replicas=3", "-n", namespace)
        told(swarm, "ssvc", "web", namespace, "Unauthorized")
        pull_secret(swarm, namespace, registry.host, login.password)
        is_ready(swarm, "ssvc", "web", namespace)


def test_credentials_for_another_registry_are_none(swarm: Swarm, namespace: str, image: str) -> None:
    pull_secret(swarm, namespace, "elsewhere.example", "whatever")
    swarm.apply(image_manifest("app", image, namespace, pullSecretRef={"name": "pull"}))
    is_ready(swarm, "simg", "app", namespace)


def test_a_pull_secret_may_come_later(swarm: Swarm, namespace: str, image: str) -> None:
    swarm.apply(image_manifest("app", image, namespace, pullSecretRef={"name": "pull"}))
    told(swarm, "simg", "app", namespace, "Secret pull does not exist", "create it")
    pull_secret(swarm, namespace, swarm.registry.host, "whatever")
    is_ready(swarm, "simg", "app", namespace)


def test_a_registry_with_a_certificate_of_its_own_is_believed_by_its_ca_bundle(swarm: Swarm, namespace: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "registry-ca")
    with Registry(address=swarm.bridge.address, tls=authority.issue("registry", names=(swarm.bridge.address,))) as registry:
        push(registry, "app:1", busybox(config=AT_ONCE))
        swarm.apply(image_manifest("app", f"{registry.host}/app:1", namespace, insecure=False))
        told(swarm, "simg", "app", namespace, "certificate", registry.host)
        swarm.kubectl("create", "configmap", "trust", f"--from-file=ca.crt={authority.certificate}", "-n", namespace)
        bundle = {"name": "trust", "key": "ca.crt"}
        swarm.apply(
            image_manifest("app", f"{registry.host}/app:1", namespace, insecure=False, caBundle=bundle),
            service("web", "image/app", "sleep", "3600", namespace=namespace),
        )
        is_ready(swarm, "ssvc", "web", namespace)


# --- what a reference means


def test_of_an_index_the_hosts_own_platform_is_run(swarm: Swarm, namespace: str) -> None:
    native = busybox(config=AT_ONCE)
    push(swarm.registry, "many:1", Index((for_other_machine(busybox(), "s390x"), native)))
    swarm.apply(
        image_manifest("app", f"{swarm.registry.host}/many:1", namespace),
        service("web", "image/app", "sleep", "3600", namespace=namespace),
    )
    is_ready(swarm, "ssvc", "web", namespace)
    status = swarm.get("simg", "app", namespace)["status"]
    assert (status["platform"], status["digest"]) == (f"linux/{NATIVE}", native.manifest().digest)
    assert set(status["platforms"]) == {f"linux/{NATIVE}", "linux/s390x"}


def test_an_image_for_other_machines_alone_is_refused_with_what_there_is(swarm: Swarm, namespace: str) -> None:
    push(swarm.registry, "foreign:1", Index((for_other_machine(busybox(), "s390x"),)))
    swarm.apply(image_manifest("app", f"{swarm.registry.host}/foreign:1", namespace))
    told(swarm, "simg", "app", namespace, "NoMatchingPlatform", "s390x")
    assert swarm.condition("simg", "app", "Stalled", namespace)["status"] == "True"


def test_a_tag_that_moves_touches_nothing_until_it_is_told_to(swarm: Swarm, namespace: str) -> None:
    name = f"moving-{namespace}:1"
    old = push(swarm.registry, name, busybox(layer("old"), config=AT_ONCE))
    reference = f"{swarm.registry.host}/{name}"
    swarm.apply(
        image_manifest("app", reference, namespace, refresh={"interval": "1s"}),
        service("web", "image/app", "sleep", "3600", namespace=namespace, replicas=2),
    )
    is_ready(swarm, "ssvc", "web", namespace)
    before = uids(swarm, "web", namespace)

    new = push(swarm.registry, name, busybox(layer("new"), config=AT_ONCE))
    available = swarm.eventually("the new digest is shown", lambda: condition_true(swarm, "app", "UpdateAvailable", namespace))
    assert new in available["message"]
    assert swarm.get("simg", "app", namespace)["status"]["digest"] == old
    swarm.kubectl("scale", "ssvc/web", "--replicas=3", "-n", namespace)
    is_ready(swarm, "ssvc", "web", namespace)
    assert digests(swarm, namespace) == {old}
    assert before < uids(swarm, "web", namespace)

    swarm.apply(image_manifest("app", reference, namespace, refresh={"interval": "1s", "rollout": "Auto"}))
    swarm.eventually("all tasks run the new image", lambda: digests(swarm, namespace) == {new})
    is_ready(swarm, "ssvc", "web", namespace)
    assert not condition_true(swarm, "app", "UpdateAvailable", namespace)


# --- archives


def test_an_archive_in_a_config_map_runs(swarm: Swarm, namespace: str, tmp_path: Path) -> None:
    """A ConfigMap holds 1 MiB, so what runs here is one program, of two instructions."""
    archive = tmp_path / "app.tar"
    archive.write_bytes(make_layer({"pause": Entry(waiting_program(), 0o755)}).tar)
    swarm.kubectl("create", "configmap", "app", f"--from-file=app.tar={archive}", "-n", namespace)
    swarm.apply(archive_manifest(namespace, configMapRef={"name": "app", "key": "app.tar"}), web(namespace, "/pause"))
    is_ready(swarm, "ssvc", "web", namespace)


def test_an_archive_on_a_nodes_disk_runs_on_that_node(swarm: Swarm, namespace: str, tmp_path: Path) -> None:
    host = swarm.hosts[2]
    swarm.apply(archive_manifest(namespace, nodePath={"nodeRef": {"name": host.name}, "path": f"/srv/{namespace}.tar"}), web(namespace))
    told(swarm, "simg", "app", namespace, "NotFound", f"/srv/{namespace}.tar", "put it on this host")
    host.run("mkdir", "-p", "/srv")
    write_docker_save(tmp_path / "app.tar", busybox(config=AT_ONCE), "app:1")
    host.path(f"/srv/{namespace}.tar").write_bytes((tmp_path / "app.tar").read_bytes())
    is_ready(swarm, "ssvc", "web", namespace)
    assert {task["spec"]["nodeName"] for task in swarm.tasks("web", namespace)} == {host.name}


def test_an_archive_from_a_web_server_must_be_what_its_checksum_says(swarm: Swarm, namespace: str, tmp_path: Path) -> None:
    write_oci_layout(tmp_path / "app.tar", busybox(config=AT_ONCE))
    checksum = hashlib.sha256((tmp_path / "app.tar").read_bytes()).hexdigest()
    with files_served(swarm.bridge.address, tmp_path) as url:
        swarm.apply(archive_manifest(namespace, url=f"{url}/app.tar", sha256="0" * 64), web(namespace))
        told(swarm, "simg", "app", namespace, "DigestMismatch", f"{url}/app.tar")
        swarm.apply(archive_manifest(namespace, url=f"{url}/app.tar", sha256=checksum))
        is_ready(swarm, "ssvc", "web", namespace)


# --- who holds it


def test_layers_that_images_share_are_on_a_host_once(swarm: Swarm, namespace: str) -> None:
    host, base = swarm.hosts[0], layer("base")
    before = layers(host)
    for name in ("one", "two"):
        push(swarm.registry, f"{name}-{namespace}:1", Image((busybox_layer(), base, layer(name)), {"Env": ["PATH=/bin"], **AT_ONCE}))
        swarm.apply(
            image_manifest(name, f"{swarm.registry.host}/{name}-{namespace}:1", namespace),
            service(name, f"image/{name}", "sleep", "3600", namespace=namespace, placement={"constraints": [f"node.name == {host.name}"]}),
        )
    for name in ("one", "two"):
        is_ready(swarm, "ssvc", name, namespace)
    assert len(layers(host) - before) == 3  # the base, and one of each: BusyBox was there


def test_prefetch_brings_an_image_to_the_chosen_nodes_before_any_task(swarm: Swarm, namespace: str) -> None:
    push(swarm.registry, f"early-{namespace}:1", busybox(layer("early")))
    chosen = swarm.hosts[:2]
    for host in chosen:
        swarm.kubectl("label", "snode", host.name, f"prefetch={namespace}")
    manifest = image_manifest("early", f"{swarm.registry.host}/early-{namespace}:1", namespace)
    manifest["spec"]["prefetch"] = {"nodeSelector": {"prefetch": namespace}}  # type: ignore[index]
    before = [layers(host) for host in swarm.hosts]
    swarm.apply(manifest)
    swarm.eventually("two nodes have it", lambda: swarm.get("simg", "early", namespace).get("status", {}).get("nodesReady") == "2/2")
    assert [len(layers(host) - old) for host, old in zip(swarm.hosts, before, strict=True)] == [1, 1, 0]


def test_deleting_an_image_stops_nothing_that_runs(swarm: Swarm, namespace: str, app: str) -> None:
    swarm.apply(service("web", app, "sleep", "36077", namespace=namespace, replicas=2))
    is_ready(swarm, "ssvc", "web", namespace)
    before = uids(swarm, "web", namespace)
    swarm.kubectl("delete", "simg/app", "-n", namespace)
    told(swarm, "ssvc", "web", namespace, "ImageMissing", "create it")
    assert swarm.states("web", namespace) == {"Running": 2}
    assert running(swarm, "sleep 36077") == 2
    swarm.apply(image_manifest("app", f"{swarm.registry.host}/busybox:1", namespace))
    is_ready(swarm, "ssvc", "web", namespace)
    assert uids(swarm, "web", namespace) == before


def test_images_of_references_a_service_left_behind_go(swarm: Swarm, namespace: str) -> None:
    """A bare reference is an Image the Service owns; the last one stays as long as tasks of it run."""

    def references() -> set[str]:
        return {image["spec"]["registry"]["reference"] for image in swarm.items("simg", namespace)}

    for tag in ("1", "2"):
        swarm.apply(service("web", f"registry.invalid/app:{tag}", "sleep", "3600", namespace=namespace))
        swarm.eventually(f"only :{tag} is left", lambda tag=tag: references() == {f"registry.invalid/app:{tag}"})  # type: ignore[misc]


def test_a_long_pull_tells_how_far_it_is(swarm: Swarm, namespace: str) -> None:
    host = swarm.hosts[0]
    big = make_layer({"big": secrets.token_bytes(48 << 20)}, compression="none")
    push(swarm.registry, f"big-{namespace}:1", busybox(big, config=AT_ONCE))
    swarm.apply(image_manifest("app", f"{swarm.registry.host}/big-{namespace}:1", namespace))
    is_ready(swarm, "simg", "app", namespace)
    host.slow(150)
    try:
        swarm.apply(
            service("web", "image/app", "sleep", "3600", namespace=namespace, placement={"constraints": [f"node.name == {host.name}"]})
        )
        seen: set[str] = set()

        def watched() -> bool:
            seen.update(task.get("status", {}).get("message", "") for task in swarm.tasks("web", namespace))
            progress = swarm.get("simg", "app", namespace)["status"].get("progress") or {}
            return bool(0 < progress.get("done", 0) < progress.get("total", 0))

        swarm.eventually("the Image shows bytes", watched, every_s=0.05)
    finally:
        host.heal()
    is_ready(swarm, "ssvc", "web", namespace)
    assert any("pulling the image" in message for message in seen)


# --- how


def pull_secret(swarm: Swarm, namespace: str, registry: str, password: str) -> None:
    content = json.dumps({"auths": {registry: {"username": "anna", "password": password}}})
    swarm.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "pull", "namespace": namespace},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": content},
        }
    )


def archive_manifest(namespace: str, **archive: Any) -> dict[str, Any]:
    manifest = image_manifest("app", "", namespace)
    return {**manifest, "spec": {"archive": archive}}


def web(namespace: str, program: str = "sleep") -> dict[str, Any]:
    return service("web", "image/app", program, "3600", namespace=namespace, task={"stopSignal": "SIGKILL"})


def layer(name: str) -> Any:
    """A layer like no other."""
    return make_layer({f"{name}-{secrets.token_hex(4)}": name})


def waiting_program() -> bytes:
    """The smallest static program: an ELF header, one segment, and pause(2) in a loop."""
    if NATIVE != "amd64":
        pytest.skip("the program is made of x86-64 instructions")
    machine, code = 62, bytes.fromhex("b822000000 0f05 ebf7")  # mov eax, 34; syscall; jmp back
    start, size = 0x400000, 120
    header = struct.pack("<4s5B7x2HI3QI6H", b"\x7fELF", 2, 1, 1, 0, 0, 2, machine, 1, start + size, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<2I6Q", 1, 5, 0, start, start, size + len(code), size + len(code), 0x1000)
    return header + segment + code


def layers(host: BareHost) -> set[str]:
    return {entry.name for entry in host.path(LAYERS).iterdir()}


def digests(swarm: Swarm, namespace: str) -> set[str]:
    return {task["spec"]["image"]["digest"] for task in swarm.tasks("web", namespace)}


def condition_true(swarm: Swarm, image: str, kind: str, namespace: str) -> dict[str, str]:
    found = swarm.condition("simg", image, kind, namespace)
    return found if found.get("status") == "True" else {}


@contextmanager
def files_served(address: str, folder: Path) -> Iterator[str]:
    """The folder's files by HTTP."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature of http.server
            return

    with http.server.ThreadingHTTPServer((address, 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://{address}:{server.server_port}"
        server.shutdown()
        thread.join()
