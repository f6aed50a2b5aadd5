"""Who leads: one at a time, each in a higher epoch, and never after its time."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from moorage_operator.errors import CredentialsError, NotFound, NotLeader
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.lease import Lease, Timing
from moorage_operator.kube.lease_record import EPOCH, LeaseRecord, record_of
from moorage_operator.kube.object import Key, Obj
from moorage_operator.kube.resource import CONFIG_MAPS, LEASES

from tests.operator.fakeapi import FakeApi
from tests.operator.kube.badge import Badge
from tests.operator.kube.clock import ManualClock
from tests.operator.kube.conftest import Server
from tests.operator.kube.waiting import until

KEY = Key("default", "moorage-operator")


@dataclass
class Process:
    """An operator process as far as its Lease goes: what it was told, and a task that is its run()."""

    lease: Lease
    clock: ManualClock
    api: KubeApi
    epochs: list[int] = field(default_factory=list)
    raised: list[int] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.lease.run())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def live(self, seconds: float) -> None:
        """Time passes for this process alone, in steps small enough for its answers to come in."""
        for _ in range(round(seconds * 2)):
            await self.clock.advance(0.5)
            await answers()


async def answers() -> None:
    """Lets requests to the fake, which is in this process too, go there and back."""
    for _ in range(3):
        await asyncio.sleep(0.002)


class Swarm:
    def __init__(self, fake: FakeApi) -> None:
        self.fake = fake
        self.processes: list[Process] = []

    def process(self, name: str, *, clock: ManualClock | None = None, credentials: Credentials | None = None) -> Process:
        clock = clock or ManualClock()
        api = KubeApi(credentials or self.fake.credentials, clock=SystemClock())
        epochs: list[int] = []
        losses: list[str] = []
        timing = Timing(call_s=0.2)
        raised: list[int] = []
        lease = Lease(
            api,
            KEY,
            identity=name,
            clock=clock,
            on_acquired=epochs.append,
            on_raised=raised.append,
            on_lost=losses.append,
            timing=timing,
        )
        process = Process(lease, clock, api, epochs, raised, losses)
        self.processes.append(process)
        process.start()
        return process

    async def live(self, seconds: float, *who: Process) -> None:
        for _ in range(round(seconds * 2)):
            for process in who or self.processes:
                await process.live(0.5)
            assert sum(process.lease.held() for process in self.processes) <= 1, "two leaders"

    def there(self) -> LeaseRecord:
        return record_of(self.fake.store.get(LEASES, KEY))


@pytest.fixture
async def swarm(fake: FakeApi) -> AsyncIterator[Swarm]:
    swarm = Swarm(fake)
    yield swarm
    for process in swarm.processes:
        await process.stop()
        await process.api.close()


async def test_the_first_process_leads_in_the_first_epoch(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    assert (one.lease.held(), one.epochs) == (True, [1])
    assert (swarm.there().holder, swarm.there().epoch) == ("one", 1)
    assert one.lease.freed_at == 0


async def test_of_two_candidates_one_leads_and_goes_on_leading(swarm: Swarm) -> None:
    one, two = swarm.process("one"), swarm.process("two")
    await swarm.live(60)
    assert sorted([one.epochs, two.epochs]) == [[], [1]]
    assert swarm.there().renewed > "2030-01-01T12:00:50"


async def test_a_leader_that_ends_in_order_is_followed_at_once_in_a_higher_epoch(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    two = swarm.process("two")
    await two.live(3)
    await one.lease.release()
    assert not one.lease.held()
    assert swarm.there().holder == ""
    freed_at = int(swarm.there().version)
    await two.live(2.5)
    assert two.lease.freed_at == freed_at
    assert (two.lease.held(), two.epochs, one.losses) == (True, [2], [])
    await one.live(30)
    assert one.epochs == [1], "a released process does not come back"


async def test_a_leader_that_vanished_is_followed_after_its_time(swarm: Swarm) -> None:
    one, two = swarm.process("one"), swarm.process("two")
    await one.live(1)
    await one.stop()
    await two.live(14)
    assert not two.lease.held()
    await two.live(4)
    assert (two.lease.held(), two.epochs) == (True, [2])
    assert swarm.there().transitions == 1
    assert two.lease.freed_at is None, "it may have written until it vanished"


async def test_other_clocks_are_not_believed(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    ahead = ManualClock()
    ahead.jump(3600)
    two = swarm.process("two", clock=ahead)
    await swarm.live(20)
    assert (one.lease.held(), two.lease.held()) == (True, False)


async def test_a_frozen_leader_knows_at_once_that_its_time_is_over(swarm: Swarm) -> None:
    one, two = swarm.process("one"), swarm.process("two")
    await one.live(1)
    await two.live(20)
    assert two.epochs == [2]
    one.clock.jump(20)
    assert not one.lease.held(), "before any of its tasks ran"
    await one.live(3)
    assert len(one.losses) == 1
    assert swarm.there().holder == "two"


async def test_a_leader_frozen_for_less_than_its_time_goes_on(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    one.clock.jump(7)
    await one.live(3)
    assert (one.lease.held(), one.losses) == (True, [])


async def test_a_leader_cut_off_stops_before_another_may_begin(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    two = swarm.process("two")
    await two.live(1)
    swarm.fake.faults.fail("patch", "leases", 500, times=1000)
    lost_at = taken_at = None
    for step in range(40):
        await swarm.live(0.5)
        lost_at = step if lost_at is None and not one.lease.held() else lost_at
        if lost_at is not None:
            swarm.fake.faults.clear()
        taken_at = step if taken_at is None and two.lease.held() else taken_at
    assert lost_at is not None
    assert taken_at is None or lost_at < taken_at
    assert len(one.losses) == (taken_at is not None)


async def test_a_server_that_does_not_answer_counts_as_away(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    swarm.fake.faults.delay("patch", 30)
    for _ in range(14):
        await one.clock.advance(1)
        await asyncio.sleep(0.1)
    assert (one.lease.held(), one.losses) == (False, [])


async def test_a_leader_goes_on_in_its_epoch_when_a_server_that_was_away_is_back(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    swarm.fake.faults.fail("patch", "leases", 500, times=1000)
    await one.live(60)
    assert not one.lease.held()
    assert one.lease.tried_s_ago < 5
    swarm.fake.faults.clear()
    await one.live(5)
    assert (one.lease.held(), one.lease.epoch, one.epochs, one.losses) == (True, 1, [1], [])


async def test_a_leader_cut_off_from_a_server_that_another_reaches_loses_to_it(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    two = swarm.process("two")
    await two.live(1)
    one.clock.jump(11)
    await two.live(20)
    assert (one.lease.held(), two.epochs) == (False, [2])
    await one.live(5)
    assert (one.lease.held(), len(one.losses), swarm.there().holder) == (False, 1, "two")


async def test_the_lost_answer_to_a_renewal_loses_nothing(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    swarm.fake.faults.fail("patch", "leases", 500, after=True)
    await one.live(6)
    assert (one.lease.held(), one.lease.epoch, one.losses) == (True, 1, [])


async def test_the_lost_answer_to_an_acquisition_leads_to_a_new_one(swarm: Swarm) -> None:
    swarm.fake.faults.fail("create", "leases", 500, after=True)
    one = swarm.process("one")
    await one.live(5)
    assert (one.lease.held(), one.epochs) == (True, [2])


async def test_a_deleted_lease_is_made_anew_in_a_higher_epoch(swarm: Swarm) -> None:
    one, two = swarm.process("one"), swarm.process("two")
    await swarm.live(4)
    swarm.fake.store.delete(LEASES, KEY)
    await swarm.live(5)
    assert (one.lease.held(), one.lease.epoch, one.losses, two.epochs) == (True, 2, [], [])
    assert (one.epochs, one.raised) == ([1], [2])
    assert swarm.there().epoch == 2


async def test_a_standby_that_finds_the_lease_gone_first_leaves_it_to_its_holder_for_a_while(swarm: Swarm) -> None:
    one, two = swarm.process("one"), swarm.process("two")
    await swarm.live(4)
    swarm.fake.store.delete(LEASES, KEY)
    await two.live(10)
    assert two.epochs == []
    await two.live(8)
    assert (two.epochs, one.epochs) == ([2], [1])


async def test_a_lease_deleted_and_taken_by_a_newcomer_ends_the_old_leader(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    swarm.fake.store.delete(LEASES, KEY)
    new = swarm.process("new")
    await new.live(1)
    assert new.epochs == [1], "it cannot know of the older epochs"
    await one.live(3)
    assert (one.lease.held(), len(one.losses)) == (False, 1)
    assert await new.lease.raise_epoch_above(1) == 2, "an agent told it"
    assert swarm.there().epoch == 2


async def test_a_restored_store_raises_the_epoch(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    backup = swarm.fake.store.snapshot()
    await one.lease.raise_epoch_above(6)
    await one.live(4)
    swarm.fake.store.restore(backup)
    assert swarm.there().epoch == 1
    await one.live(4)
    assert (one.lease.held(), one.lease.epoch, swarm.there().epoch) == (True, 8, 8)


async def test_a_store_restored_to_another_leaders_time_ends_this_one_and_the_next_epoch_is_higher(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    backup = swarm.fake.store.snapshot()
    await one.stop()
    two = swarm.process("two")
    await two.live(20)
    assert two.epochs == [2]
    swarm.fake.store.restore(backup)
    await two.live(3)
    assert (two.lease.held(), len(two.losses)) == (False, 1)
    await two.live(20)
    assert two.epochs == [2, 3], "higher than any it has seen"


async def test_the_epoch_is_raised_above_what_an_agent_has_seen(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    assert await asyncio.gather(*(one.lease.raise_epoch_above(seen) for seen in (4, 9, 9, 2))) == [5, 10, 10, 10]
    assert (one.lease.epoch, one.raised, swarm.there().epoch) == (10, [5, 10], 10)
    before = swarm.fake.calls["patch", "leases"]
    assert await one.lease.raise_epoch_above(9) == 10
    assert swarm.fake.calls["patch", "leases"] == before, "nothing to raise, nothing to write"


async def test_a_stale_leader_cannot_raise_its_epoch(swarm: Swarm) -> None:
    one, two = swarm.process("one"), swarm.process("two")
    await one.live(1)
    await one.stop()
    await two.live(20)
    with pytest.raises(NotLeader):
        await one.lease.raise_epoch_above(99)
    one.clock.jump(60)
    with pytest.raises(NotLeader):
        await one.lease.raise_epoch_above(99)
    assert (swarm.there().holder, swarm.there().epoch) == ("two", 2)


async def test_a_person_may_edit_the_lease(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    swarm.fake.store.update(LEASES, KEY, lambda old: edited(old, {"note": "hands off"}))
    await one.live(4)
    assert (one.lease.held(), one.lease.epoch) == (True, 1)
    swarm.fake.store.update(LEASES, KEY, lambda old: edited(old, {EPOCH: "not a number"}))
    await one.live(4)
    assert (one.lease.held(), one.lease.epoch) == (True, 2)
    swarm.fake.store.update(LEASES, KEY, lambda old: edited(old, {EPOCH: str(2**64)}))
    await one.live(4)
    assert (one.lease.held(), one.lease.epoch, swarm.there().epoch) == (True, 3, 3)


async def test_a_person_may_make_the_leader_step_down(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    swarm.fake.store.update(LEASES, KEY, lambda old: {**old, "spec": {**old["spec"], "holderIdentity": ""}})
    await one.live(3)
    assert len(one.losses) == 1
    await one.live(3)
    assert one.epochs == [1, 2]


async def test_writes_end_with_the_lease(swarm: Swarm) -> None:
    one = swarm.process("one")
    one.api.may_write = one.lease.held
    with pytest.raises(NotLeader):
        await one.api.create(CONFIG_MAPS, {"metadata": {"namespace": "default", "name": "early"}})
    await one.live(1)
    await one.api.create(CONFIG_MAPS, {"metadata": {"namespace": "default", "name": "in-time"}})
    one.clock.jump(11)
    with pytest.raises(NotLeader):
        await one.api.create(CONFIG_MAPS, {"metadata": {"namespace": "default", "name": "late"}})
    with pytest.raises(NotFound):
        await one.api.get(CONFIG_MAPS, Key("default", "late"))


async def test_a_write_that_waited_for_the_server_is_not_sent_when_the_lease_is_over_by_then(swarm: Swarm) -> None:
    one = swarm.process("one")
    one.api.may_write = one.lease.held
    await one.live(1)
    swarm.fake.faults.fail("create", "configmaps", 429, retry_after_s=1)
    task = asyncio.create_task(one.api.create(CONFIG_MAPS, {"metadata": {"namespace": "default", "name": "late"}}))
    await until(lambda: swarm.fake.faults.happened["429"])
    one.clock.jump(11)
    with pytest.raises(NotLeader):
        await task


async def test_an_unreachable_server_makes_no_leader(swarm: Swarm) -> None:
    swarm.fake.faults.fail("get", "leases", 500, times=1000)
    one = swarm.process("one")
    await one.live(10)
    assert (one.lease.held(), one.epochs) == (False, [])


async def test_a_leader_whose_credentials_are_out_of_order_for_a_while_goes_on_in_its_epoch(swarm: Swarm) -> None:
    badge = Badge()
    one = swarm.process("one", credentials=Credentials(swarm.fake.url, badge))
    await one.live(1)
    badge.broken = True
    await one.live(30)
    assert not one.lease.held()
    with pytest.raises(CredentialsError):
        await one.api.get(LEASES, KEY)
    badge.broken = False
    await one.live(5)
    assert (one.lease.held(), one.epochs, one.losses, swarm.there().epoch) == (True, [1], [], 1)


async def test_a_process_whose_credentials_are_out_of_order_leads_when_they_are_mended(swarm: Swarm) -> None:
    badge = Badge()
    badge.broken = True
    one = swarm.process("one", credentials=Credentials(swarm.fake.url, badge))
    await one.live(10)
    badge.broken = False
    await one.live(5)
    assert (one.lease.held(), one.epochs) == (True, [1])


async def test_a_leader_whose_credentials_are_out_of_order_ends_in_order(swarm: Swarm) -> None:
    badge = Badge()
    one = swarm.process("one", credentials=Credentials(swarm.fake.url, badge))
    await one.live(1)
    badge.broken = True
    await one.lease.release()
    assert not one.lease.held()


async def test_a_run_that_was_broken_off_is_taken_up_in_the_same_epoch(swarm: Swarm) -> None:
    one = swarm.process("one")
    await one.live(1)
    await one.stop()
    one.start()
    await one.live(20)
    assert (one.lease.held(), one.epochs, one.losses, swarm.there().epoch) == (True, [1], [], 1)


# --- against both servers, in real time


async def test_a_lease_changes_hands(server: Server) -> None:
    key, timing = server.key("lease"), Timing(duration_s=2, renew_deadline_s=1.5, retry_s=0.1, call_s=1)
    leases = [
        Lease(
            server.api,
            key,
            identity=f"p{number}",
            clock=SystemClock(),
            on_acquired=lambda _: None,
            on_raised=lambda _: None,
            on_lost=lambda _: None,
            timing=timing,
        )
        for number in range(2)
    ]
    tasks = [asyncio.create_task(lease.run()) for lease in leases]
    try:
        await until(lambda: any(lease.held() for lease in leases))
        first = next(lease for lease in leases if lease.held())
        second = leases[1 - leases.index(first)]
        assert await first.raise_epoch_above(4) == 5
        await first.release()
        await until(second.held)
        assert second.epoch == 6
        await server.api.delete(LEASES, key)
        await until(lambda: second.epoch > 6)
        assert second.held()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


LEADER = """
import asyncio, sys
from moorage_operator.errors import NotLeader
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.lease import Lease, Timing
from moorage_operator.kube.object import Key
from moorage_operator.kube.resource import CONFIG_MAPS

async def main(url):
    timing = Timing(duration_s=2, renew_deadline_s=1, retry_s=0.2, call_s=0.5)
    async with KubeApi(Credentials(url), clock=SystemClock()) as api:
        lease = Lease(api, Key("default", "moorage-operator"), identity="frozen", clock=SystemClock(), timing=timing,
                      on_acquired=lambda epoch: print("acquired", epoch, flush=True), on_raised=print,
                      on_lost=lambda why: print("lost", flush=True))
        api.may_write = lease.held
        task = asyncio.create_task(lease.run())
        number = 0
        while True:
            number += 1
            try:
                await api.create(CONFIG_MAPS, {"metadata": {"namespace": "default", "name": f"w{number}"}})
            except NotLeader:
                await asyncio.sleep(0.001)

asyncio.run(main(sys.argv[1]))
"""


async def test_a_stopped_process_that_wakes_up_writes_nothing_more(swarm: Swarm) -> None:
    """A real process, really stopped (SIGSTOP) in the middle of its writes, for longer than its Lease."""
    frozen = await asyncio.create_subprocess_exec(sys.executable, "-c", LEADER, swarm.fake.url, stdout=asyncio.subprocess.PIPE)
    assert frozen.stdout is not None
    try:
        assert await asyncio.wait_for(frozen.stdout.readline(), 20) == b"acquired 1\n"
        await until(lambda: swarm.fake.calls["create", "configmaps"] > 20)
        frozen.send_signal(signal.SIGSTOP)
        two = swarm.process("two")
        await two.live(5)
        assert two.epochs == [2]
        await asyncio.sleep(1.5)  # the frozen one's own clock is a real one
        # What was on its way when it stopped is written with the old epoch; agents refuse that one.
        written = len(swarm.fake.store.of(CONFIG_MAPS).objects)
        frozen.send_signal(signal.SIGCONT)
        assert await asyncio.wait_for(frozen.stdout.readline(), 20) == b"lost\n"
        await asyncio.sleep(0.3)
        assert len(swarm.fake.store.of(CONFIG_MAPS).objects) <= written + 1
        assert swarm.there().holder == "two"
    finally:
        frozen.kill()
        await frozen.wait()


def edited(old: Obj, annotations: dict[str, str]) -> Obj:
    metadata = {**old["metadata"], "annotations": {**old["metadata"]["annotations"], **annotations}}
    return {**old, "metadata": metadata}
