"""An operator that stood still, or whose clock was set, does not take its own absence for the silence of its nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from random import Random

import pytest
from moorage_operator.fleet.archive import archive_of
from moorage_operator.fleet.fleet import Fleet
from moorage_operator.fleet.governor import Governor
from moorage_operator.fleet.ssh import Connection
from moorage_operator.fleet.target import Credentials, Target
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.object import uid_of
from moorage_operator.kube.resource import NODES
from moorage_operator.plan.loss import Fate, verdict
from moorage_operator.plan.loss_rule import LossRule

from tests.operator.fakeapi import FakeApi
from tests.operator.kube.clock import ManualClock
from tests.operator.plan.objects import ready
from tests.operator.reconcile.worlds import Bench

SSH = {"ssh": {"host": "192.0.2.1", "keySecretRef": {"name": "key"}}}


async def never(target: Target, *, through: Connection | None) -> Connection:
    """Connects to no host."""
    await asyncio.Event().wait()
    raise AssertionError(f"{target.host}, {through}")


class Watch(Bench):
    """A leader of an hour with the one node n1."""

    def __init__(self, fake: FakeApi, api: KubeApi) -> None:
        super().__init__(fake, api)
        fleet = Fleet(desk=self.desk, governor=Governor(never), archive=archive_of({}), root="/", random=Random(1))
        self.world.set_fleet(fleet)
        self.uid = uid_of(self.add(NODES, "n1", SSH, status=ready()))
        fleet.keep(self.uid, Target("n1", "root", Credentials(b"")))

    def hears(self) -> None:
        """A frame of n1 comes."""
        self.world.fleet.session(self.uid)._standing.note(last_frame_at=self.clock.now().timestamp())

    def fate(self) -> Fate:
        """What becomes of a task on n1."""
        return verdict("n1", LossRule(), self.world.losses(), now=self.clock.now()).fate


@pytest.fixture
async def watch(fake: FakeApi) -> AsyncIterator[Watch]:
    async with KubeApi(fake.credentials, clock=SystemClock()) as api:
        watch = Watch(fake, api)
        pulse = asyncio.create_task(watch.world.keep_pulse())
        await watch.clock.advance(3600)
        watch.hears()
        await watch.clock.advance(3)
        assert watch.fate() is Fate.STAYS
        yield watch
        pulse.cancel()
        await watch.world.fleet.drop_all()


async def test_a_node_that_falls_silent_is_lost_after_its_time(watch: Watch) -> None:
    await watch.clock.advance(26)
    assert watch.fate() is Fate.WAITS
    await watch.clock.advance(2)
    assert watch.fate() is Fate.LOST


@pytest.mark.parametrize("absent", [ManualClock.jump, ManualClock.set_forward], ids=["stood still", "clock set"])
async def test_whoever_wakes_first_in_a_process_that_was_absent_concludes_nothing(
    watch: Watch, absent: Callable[[ManualClock, float], None]
) -> None:
    absent(watch.clock, 3600)
    assert watch.fate() is Fate.STAYS
    await watch.clock.advance(29)
    assert watch.fate() is Fate.STAYS
    watch.hears()
    await watch.clock.advance(10)
    assert watch.fate() is Fate.STAYS


@pytest.mark.parametrize("absent", [ManualClock.jump, ManualClock.set_forward], ids=["stood still", "clock set"])
async def test_a_node_that_stays_silent_after_an_absence_is_lost_as_after_a_start(
    watch: Watch, absent: Callable[[ManualClock, float], None]
) -> None:
    absent(watch.clock, 3600)
    await watch.clock.advance(31)
    assert watch.fate() is Fate.WAITS
    await watch.clock.advance(30)
    assert watch.fate() is Fate.LOST


async def test_a_node_lost_before_an_absence_waits_no_longer_than_after_a_start(watch: Watch) -> None:
    await watch.clock.advance(60)
    assert watch.fate() is Fate.LOST
    watch.clock.jump(3600)
    assert watch.fate() is not Fate.LOST
    await watch.clock.advance(61)
    assert watch.fate() is Fate.LOST
