"""Of nodes that fell silent together one is back: the others are tried at once, and not again and again."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest
from moorage_operator.errors import Unreachable
from moorage_operator.fleet import session
from moorage_operator.fleet.archive import archive_of
from moorage_operator.fleet.fleet import Fleet
from moorage_operator.fleet.governor import Governor
from moorage_operator.fleet.link import Link
from moorage_operator.fleet.ssh import Connection
from moorage_operator.fleet.target import Credentials, Target
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.object import uid_of
from moorage_operator.kube.resource import NODES

from tests.operator.fakeapi import FakeApi
from tests.operator.plan.objects import ready
from tests.operator.reconcile.worlds import Bench

UP = Link(connected=True, reason="", message="")
SSH = {"ssh": {"host": "192.0.2.1", "keySecretRef": {"name": "key"}}}


class Attempts:
    """Connects to no host, and counts."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()

    async def __call__(self, target: Target, *, through: Connection | None) -> Connection:
        self.made[target.host] += 1
        raise Unreachable(f"no route to {target.host}")


async def settled() -> None:
    """Nothing here waits for anything outside this process."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_the_others_that_fell_are_tried_at_once_and_for_ten_seconds_not_again(
    fake: FakeApi, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "delay_s", lambda *_, **__: 3600.0)
    bench, attempts = Bench(fake, api), Attempts()
    fleet = Fleet(desk=bench.desk, governor=Governor(attempts), archive=archive_of({}), root="/", random=Random(1))
    bench.world.set_fleet(fleet)
    names = ["n1", "n2", "n3", "n4"]
    uids = [uid_of(bench.add(NODES, name, SSH, status=ready("Unknown", reason="Silent"))) for name in names]
    for name, uid in zip(names, uids, strict=True):
        fleet.keep(uid, Target(name, "root", Credentials(b"")))
    try:
        await settled()
        assert attempts.made == dict.fromkeys(names, 1)
        await bench.clock.advance(40)
        assert bench.world.losses().mass
        for _ in range(3):
            bench.desk.on_link(uids[0], UP)
            await settled()
        assert attempts.made == dict.fromkeys(names, 2)
    finally:
        await fleet.drop_all()
