"""The keys of Nodes: read once for all who share one, anew when it changes, and what is said when there is none."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass

import pytest
from moorage_operator.errors import InvalidSpec
from moorage_operator.fleet.target import Credentials
from moorage_operator.kube.cache import Cache
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.object import Key
from moorage_operator.kube.resource import CONFIG_MAPS, NAMESPACES, SECRETS
from moorage_operator.reconcile.data import Data
from moorage_operator.reconcile.ssh_keys import SshKeys
from moorage_operator.reconcile.swarm import Swarm

from tests.operator.fakeapi import FakeApi

NAMESPACE = "moorage-system"
HOSTS = Key(NAMESPACE, "hosts")
FIRST, SECOND = b"-----BEGIN OPENSSH PRIVATE KEY----- first", b"-----BEGIN OPENSSH PRIVATE KEY----- second"


@dataclass
class Bench:
    fake: FakeApi
    watched: Cache
    keys: SshKeys

    def write(self, *, told: bool = True, **entries: bytes) -> None:
        """The Secret has these entries from now on; `told`: the watch says so."""
        data = {name.replace("_", "-"): base64.b64encode(value).decode() for name, value in entries.items()}
        if HOSTS in self.fake.store.of(SECRETS).objects:
            self.fake.store.update(SECRETS, HOSTS, lambda old: {**old, "data": data})
        else:
            self.fake.store.create(SECRETS, {"metadata": {"namespace": NAMESPACE, "name": "hosts"}, "data": data})
        if told:
            self.tell()

    def tell(self) -> None:
        self.watched.put({"metadata": dict(self.fake.store.get(SECRETS, HOSTS)["metadata"])})

    def delete(self) -> None:
        self.fake.store.delete(SECRETS, HOSTS)
        self.watched.remove(HOSTS)

    async def key(self) -> bytes:
        return (await self.keys.of("hosts")).private_key

    @property
    def reads(self) -> int:
        return self.fake.calls["get", "secrets"]


@pytest.fixture
def bench(fake: FakeApi, api: KubeApi) -> Bench:
    fake.store.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
    watched = Cache(SECRETS)
    data = Data(api, {"Secret": watched, "ConfigMap": Cache(CONFIG_MAPS)}, Swarm("swarm", b"k" * 32))
    return Bench(fake, watched, SshKeys(api, data, NAMESPACE))


async def test_a_thousand_nodes_that_share_a_secret_read_it_once(bench: Bench) -> None:
    bench.write(ssh_privatekey=FIRST)
    found = await asyncio.gather(*(bench.key() for _ in range(1000)))
    assert (set(found), bench.reads) == ({FIRST}, 1)
    assert (await bench.key(), bench.reads) == (FIRST, 1)


async def test_a_rotated_key_is_read_once_and_used(bench: Bench) -> None:
    bench.write(ssh_privatekey=FIRST)
    await bench.key()
    bench.write(ssh_privatekey=SECOND)
    found = await asyncio.gather(*(bench.key() for _ in range(10)))
    assert (set(found), bench.reads) == ({SECOND}, 2)


async def test_a_secret_the_watch_has_not_told_of_is_read_each_time_so_that_no_key_is_stale(bench: Bench) -> None:
    bench.write(told=False, ssh_privatekey=FIRST)
    assert await bench.key() == FIRST
    bench.write(told=False, ssh_privatekey=SECOND)
    assert await bench.key() == SECOND
    bench.tell()
    assert [await bench.key() for _ in range(3)] == [SECOND] * 3
    assert bench.reads == 3


async def test_a_missing_secret_is_named_with_the_command_that_makes_it(bench: Bench) -> None:
    with pytest.raises(InvalidSpec) as refused:
        await bench.key()
    assert refused.value.reason == "SecretMissing"
    assert f"Secret hosts of spec.ssh.keySecretRef does not exist in namespace {NAMESPACE}" in str(refused.value)
    assert f"kubectl create secret generic hosts -n {NAMESPACE}" in str(refused.value)
    assert "--from-file=ssh-privatekey=" in str(refused.value)


async def test_a_secret_without_the_key_is_named_with_the_entry_to_add(bench: Bench) -> None:
    bench.write(id_ed25519=FIRST)
    with pytest.raises(InvalidSpec) as refused:
        await bench.key()
    assert refused.value.reason == "SecretMissing"
    assert f"Secret hosts in namespace {NAMESPACE} has no key ssh-privatekey" in str(refused.value)
    assert "write the private key under this name" in str(refused.value)


async def test_a_secret_that_was_missing_is_found_once_it_is_made(bench: Bench) -> None:
    with pytest.raises(InvalidSpec):
        await bench.key()
    bench.write(id_ed25519=FIRST)
    with pytest.raises(InvalidSpec):
        await bench.key()
    bench.write(ssh_privatekey=FIRST)
    assert await bench.key() == FIRST


async def test_the_key_of_a_deleted_secret_is_not_used_any_more(bench: Bench) -> None:
    bench.write(ssh_privatekey=FIRST)
    await bench.key()
    bench.delete()
    with pytest.raises(InvalidSpec, match="does not exist"):
        await bench.key()


async def test_a_certificate_may_come_with_the_key(bench: Bench) -> None:
    bench.write(ssh_privatekey=FIRST)
    assert await bench.keys.of("hosts") == Credentials(FIRST, None)
    bench.write(ssh_privatekey=FIRST, ssh_certificate=b"ssh-ed25519-cert-v01@openssh.com AAAA")
    assert await bench.keys.of("hosts") == Credentials(FIRST, b"ssh-ed25519-cert-v01@openssh.com AAAA")


async def test_a_key_is_in_no_log_line_that_shows_its_credentials(bench: Bench) -> None:
    bench.write(ssh_privatekey=FIRST, ssh_certificate=b"AAAA-certificate")
    shown = repr(await bench.keys.of("hosts"))
    assert "PRIVATE KEY" not in shown
    assert "AAAA-certificate" not in shown
