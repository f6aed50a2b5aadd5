"""Whose a host is, and how one gets in: swarms and Nodes that want the same host, keys, accounts, jump hosts, and what a host may lack."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from tests.e2e.conftest import image_manifest, swarm_on
from tests.e2e.containers import containers
from tests.fleet import BareHost, Bridge, HostSpec
from tests.fleet.disk import write_host_key
from tests.kube import Registry
from tests.swarm import Swarm, node, service
from tests.swarm.manifests import Manifest
from tests.swarm.operator import NAMESPACE

pytestmark = pytest.mark.e2e

OLD_PYTHON = Path("/root/.pyenv/versions/3.8.18/bin/python3")
SSHD_LOG = "/var/log/sshd.log"
QUICK = {"stopGracePeriod": "1s"}


@pytest.fixture(scope="module")
def ours(bridge: Bridge, registry: Registry) -> Iterator[Swarm]:
    with swarm_on(bridge, registry) as swarm:
        swarm.apply(image_manifest("app", swarm.image("busybox:owned"), "default"))
        yield swarm


@pytest.fixture(scope="module", autouse=True)
def wrong(ours: Swarm) -> tuple[BareHost, float]:
    """A host whose key the Secret does not hold, and since when the operator tries: judged at the end, two minutes later."""
    host = bare(ours)
    log_sshd(host)
    put_key(ours, "wrong", asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode())
    ours.apply(node(host, secret="wrong"))
    return host, time.monotonic()


def bare(swarm: Swarm, spec: HostSpec | None = None) -> BareHost:
    """A host that ends with the swarm, no Node yet."""
    host = swarm.bridge.host(spec=spec or HostSpec())
    swarm.hosts.append(host)
    return host


def log_sshd(host: BareHost) -> None:
    """A new sshd that says who comes."""
    host.stop_sshd()
    host.run("/usr/sbin/sshd", "-E", SSHD_LOG, "-o", "LogLevel=VERBOSE")
    host.wait_for_sshd()


def logged(host: BareHost, pattern: str) -> int:
    """How many lines of its sshd, but those about this bench's own look whether it listens."""
    return len(re.findall(pattern, host.path(SSHD_LOG).read_text()))


def put_key(swarm: Swarm, name: str, key: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/ssh-auth", "metadata": {"name": name, "namespace": NAMESPACE}}
    swarm.apply({**secret, "stringData": {"ssh-privatekey": key}})


def named(manifest: Manifest, name: str) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], "name": name}}


def refused(swarm: Swarm, name: str, reason: str) -> str:
    """Wait until the Node is not Ready for this reason; its message."""

    def said() -> dict[str, str] | None:
        ready = swarm.condition("snode", name)
        return ready if (ready.get("status"), ready.get("reason")) == ("False", reason) else None

    return str(swarm.eventually(f"Node {name} says {reason}", said)["message"])


def patch(swarm: Swarm, name: str, **spec: object) -> None:
    swarm.kubectl("patch", f"snode/{name}", "--type=merge", "-p", json.dumps({"spec": spec}))


def run_on(swarm: Swarm, host: BareHost, name: str, seconds: str) -> None:
    swarm.apply(service(name, "image/app", "sleep", seconds, task=QUICK, placement={"constraints": [f"node.hostname == {host.name}"]}))
    swarm.wait_running(name, 1)


# --- whose a host is


def test_a_host_of_another_swarm_is_refused_until_it_is_adopted(ours: Swarm, bridge: Bridge, registry: Registry) -> None:
    (host,) = ours.add_hosts(1)
    run_on(ours, host, "owned", "400001")
    before = containers(host, "sleep 400001")
    with swarm_on(bridge, registry) as theirs:
        theirs.apply(node(host))
        assert "spec.adopt" in refused(theirs, host.name, "OwnedByAnotherSwarm")
        assert containers(host, "sleep 400001") == before
        assert ours.condition("snode", host.name)["status"] == "True"

        patch(theirs, host.name, adopt=True)
        theirs.wait_node(host.name)
        refused(ours, host.name, "OwnedByAnotherSwarm")
        theirs.eventually("the new owner's wish counts", lambda: not containers(host, "sleep 400001"))

        ours.kubectl("delete", f"snode/{host.name}", timeout_s=90)  # there is nothing of ours on it
        assert theirs.condition("snode", host.name)["status"] == "True"
    ours.kubectl("delete", "ssvc/owned")
    ours.wait_running("owned", 0)


def test_one_host_is_one_node(ours: Swarm) -> None:
    (host,) = ours.add_hosts(1)
    run_on(ours, host, "single", "400002")
    before = containers(host, "sleep 400002")
    ours.apply(named(node(host), "double"))
    assert "delete one of the two" in refused(ours, "double", "DuplicateHost")
    assert ours.condition("snode", host.name)["status"] == "True"
    assert containers(host, "sleep 400002") == before
    ours.kubectl("delete", "snode/double")
    assert containers(host, "sleep 400002") == before
    ours.kubectl("delete", "ssvc/single")
    ours.wait_running("single", 0)


def test_a_retained_host_goes_on_and_stops_what_was_replaced_once_its_node_is_made_anew(ours: Swarm) -> None:
    host, other = ours.add_hosts(2, labels={"retained": "yes"})
    ours.apply(
        service("web", "image/app", "sleep", "400003", replicas=2, task=QUICK, placement={"constraints": ["node.labels.retained == yes"]})
    )
    ours.wait_running("web", 2)
    before = containers(host, "sleep 400003")
    patch(ours, host.name, deletionPolicy="Retain")
    ours.kubectl("delete", f"snode/{host.name}", timeout_s=60)
    ours.eventually("both run on the other host", lambda: len(containers(other, "sleep 400003")) == 2)
    assert containers(host, "sleep 400003") == before
    ours.apply(node(host, labels={"retained": "yes"}))
    ours.wait_node(host.name)
    ours.eventually("it stops what was replaced", lambda: not containers(host, "sleep 400003"))
    assert ours.states("web")["Running"] == 2
    assert len(containers(other, "sleep 400003")) == 2
    ours.kubectl("delete", "ssvc/web")
    ours.wait_running("web", 0)


# --- host keys


def test_a_changed_host_key_is_never_accepted_and_the_message_holds_the_command_that_would(ours: Swarm) -> None:
    (host,) = ours.add_hosts(1)
    write_host_key(host.path("/etc"))
    log_sshd(host)
    message = refused(ours, host.name, "HostKeyMismatch")
    assert logged(host, "Connection from")
    assert not logged(host, "publickey|authenticat"), "nothing may be sent to whoever shows another key"
    command = shlex.split(message[message.index("kubectl patch") :])
    ours.kubectl(*command[1:])
    ours.wait_node(host.name, timeout_s=20)
    assert ours.get("snode", host.name)["spec"]["ssh"]["hostKeys"] == [host.host_key]


def test_trust_on_first_use_pins_every_key_of_the_host(ours: Swarm) -> None:
    kinds = {"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp256", "rsa": "ssh-rsa"}
    files = [f"/etc/ssh/ssh_host_{name}_key" for name in kinds]
    host = ours.bridge.host(spec=HostSpec(sshd={"HostKey": "\nHostKey ".join(files)}), boot=False)
    ours.hosts.append(host)
    for name, kind in kinds.items():
        if name != "ed25519":
            write_key(host.disk.etc / "ssh" / f"ssh_host_{name}_key", asyncssh.generate_private_key(kind))
    host.boot()
    ours.apply(node(host, ssh={"hostKeys": [], "hostKeyPolicy": "TrustOnFirstUse"}))
    ours.wait_node(host.name)
    pinned = ours.get("snode", host.name)["spec"]["ssh"]["hostKeys"]
    assert sorted(key.split()[0] for key in pinned) == sorted(kinds.values())
    assert host.host_key in pinned


def test_a_certificate_authority_vouches_for_hosts(ours: Swarm) -> None:
    authority = asyncssh.generate_private_key("ssh-ed25519")
    spec = HostSpec(sshd={"HostCertificate": "/etc/ssh/ssh_host_ed25519_key-cert.pub"})
    vouched, other = ours.bridge.host(spec=spec, boot=False), bare(ours)
    ours.hosts.append(vouched)
    key = asyncssh.import_public_key(vouched.host_key)
    certificate = authority.generate_host_certificate(key, vouched.name, principals=[vouched.address])
    certificate.write_certificate(str(vouched.disk.etc / "ssh/ssh_host_ed25519_key-cert.pub"))
    vouched.boot()
    ssh = {"hostKeyPolicy": "CertificateAuthority", "hostKeys": [authority.export_public_key().decode().strip()]}
    ours.apply(node(vouched, ssh=ssh), node(other, ssh=ssh))
    ours.wait_node(vouched.name)
    assert "certificate authority" in refused(ours, other.name, "HostKeyMismatch")


def write_key(path: Path, key: asyncssh.SSHKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(key.export_private_key())


# --- accounts and ways


@pytest.mark.parametrize("become", ["sudo", "doas"])
def test_an_account_that_may_become_root_is_enough(ours: Swarm, become: str) -> None:
    host = bare(ours, HostSpec(user="deploy", become=become))
    ours.apply(node(host, ssh={"user": "deploy"}))
    ours.wait_node(host.name)
    run_on(ours, host, f"by-{become}", "400004")
    ours.kubectl("delete", f"ssvc/by-{become}")
    ours.wait_running(f"by-{become}", 0)


def test_an_account_that_may_not_become_root_is_told_so(ours: Swarm) -> None:
    host = bare(ours, HostSpec(user="deploy"))
    ours.apply(node(host, ssh={"user": "deploy"}))
    assert "log in as root" in refused(ours, host.name, "NotRoot")


def test_nodes_behind_one_jump_host_share_one_connection_to_it(ours: Swarm) -> None:
    jump = bare(ours)
    (through,) = [{"host": jump.address, "hostKeys": [jump.host_key]}]
    behind = ours.add_hosts(3, ssh={"jump": through})
    listener = next(process for process in jump.processes() if "[listener]" in process.command)
    connections = [process for process in jump.processes() if process.name == "sshd" and process.parent == listener.pid]
    assert len(connections) == 1
    for host in behind:
        assert ours.condition("snode", host.name)["status"] == "True"


# --- what a host may lack


def test_a_host_without_python_says_what_to_install(ours: Swarm) -> None:
    host = bare(ours, HostSpec(hidden=("/usr/bin/python3",)))
    ours.apply(node(host))
    assert "install Python 3.9 or newer" in refused(ours, host.name, "PythonMissing")
    assert ours.condition("snode", host.name, "Stalled")["status"] == "True"


@pytest.mark.skipif(not OLD_PYTHON.exists(), reason="Python 3.8 is not on this machine")
def test_a_host_with_an_old_python_says_which_it_has(ours: Swarm) -> None:
    host = bare(ours, HostSpec(python=OLD_PYTHON))
    ours.apply(node(host))
    assert "Python 3.8" in refused(ours, host.name, "PythonTooOld")


def test_a_shell_that_prints_at_its_start_is_quoted(ours: Swarm) -> None:
    host = bare(ours)
    host.path("/root/.bashrc").write_text("echo Welcome to this machine\n")
    host.path("/root/.profile").write_text("")
    ours.apply(node(host))
    assert "Welcome to this machine" in refused(ours, host.name, "NoisyShell")


# --- last, because it takes two minutes from when `wrong` began


def test_a_wrong_key_is_tried_seldom_and_a_corrected_one_at_once(ours: Swarm, wrong: tuple[BareHost, float]) -> None:
    host, began = wrong
    assert "authorized_keys" in refused(ours, host.name, "AuthenticationFailed")
    time.sleep(max(0.0, began + 120 - time.monotonic()))
    assert 2 <= logged(host, "by authenticating user") <= 4
    put_key(ours, "wrong", ours.bridge.key_file.read_text())
    ours.wait_node(host.name, timeout_s=20)
