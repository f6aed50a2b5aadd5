"""Host keys seen at the first contact are kept on the Node that led there, and on no other."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from moorage_operator.errors import Unreachable
from moorage_operator.fleet.target import Target
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.object import Key
from moorage_operator.kube.resource import NAMESPACES, NODES, SECRETS
from moorage_operator.reconcile.target import target_of

from tests.operator.fakeapi import FakeApi
from tests.operator.reconcile.worlds import Bench

N1, KEYS = Key("", "n1"), ("ssh-ed25519 AAAA",)
SSH = {"host": "192.0.2.1", "keySecretRef": {"name": "key"}, "hostKeyPolicy": "TrustOnFirstUse"}
JUMP = {"jump": {"host": "192.0.2.9", "hostKeys": ["ssh-ed25519 BBBB"]}}


@pytest.fixture
def bench(fake: FakeApi, api: KubeApi) -> Bench:
    bench = Bench(fake, api)
    fake.store.create(NAMESPACES, {"metadata": {"name": "moorage-system"}})
    data = {"ssh-privatekey": base64.b64encode(b"k").decode()}
    fake.store.create(SECRETS, {"metadata": {"namespace": "moorage-system", "name": "key"}, "data": data})
    bench.add(NODES, "n1", {"ssh": SSH})
    return bench


def pinned(bench: Bench) -> list[str]:
    return list(bench.fake.store.get(NODES, N1)["spec"]["ssh"].get("hostKeys", []))


async def seen(bench: Bench) -> tuple[str, Target]:
    node = bench.world.nodes.get(N1)
    assert node is not None
    return node.metadata.uid, await target_of(node, bench.world)


async def test_the_keys_of_a_first_contact_are_kept(bench: Bench) -> None:
    uid, target = await seen(bench)
    await bench.desk.pin(uid, target, KEYS)
    assert pinned(bench) == list(KEYS)


@pytest.mark.parametrize("change", [{"host": "192.0.2.2"}, {"port": 2222}, JUMP])
async def test_keys_of_the_host_a_node_named_before_are_not(bench: Bench, change: dict[str, Any]) -> None:
    uid, target = await seen(bench)
    bench.change(NODES, N1, spec={"ssh": SSH | change})
    with pytest.raises(Unreachable, match="changed while its host was seen"):
        await bench.desk.pin(uid, target, KEYS)
    assert pinned(bench) == []


async def test_a_key_rotated_meanwhile_changes_nothing_about_the_host(bench: Bench) -> None:
    uid, target = await seen(bench)
    await bench.desk.pin(uid, replace(target, credentials=replace(target.credentials, private_key=b"before")), KEYS)
    assert pinned(bench) == list(KEYS)


async def test_a_node_says_whether_it_may_take_the_host_of_another(bench: Bench) -> None:
    assert not (await seen(bench))[1].adopt
    bench.change(NODES, N1, spec={"adopt": True})
    assert (await seen(bench))[1].adopt
