"""Who leads, and in which epoch.

A Lease (coordination.k8s.io/v1) is held by one process at a time; every acquisition raises the epoch kept on it, and agents refuse a lower
one. Every change is a compare-and-swap on the Lease's resourceVersion. Other machines' clocks are never compared with ours: a Lease has
expired when we saw it unchanged for its whole duration. `held()` asks the clock too: a leader that was frozen and wakes up knows by itself
that its time is over, before anybody tells it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from moorage_operator.errors import ApiUnavailable, Conflict, MoorageError, NotFound, NotLeader
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import Clock
from moorage_operator.kube.lease_record import LeaseRecord, new_lease, record_of, released, renewed, taken_over
from moorage_operator.kube.object import Key, Obj, parse_version
from moorage_operator.kube.resource import LEASES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """The leader stops writing at `renew_deadline_s`, before anybody may take over at `duration_s`. No call takes longer than `call_s`."""

    duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_s: float = 2.0
    call_s: float = 3.0


class Lease:
    """`identity` is a UUID per process. `on_acquired` gets the epoch, `on_raised` a higher one while we lead; `on_lost` why another leads,
    when `held()` is False already.
    """

    def __init__(
        self,
        api: KubeApi,
        key: Key,
        *,
        identity: str,
        clock: Clock,
        on_acquired: Callable[[int], object],
        on_raised: Callable[[int], object],
        on_lost: Callable[[str], object],
        timing: Timing | None = None,
    ) -> None:
        self.epoch = 0
        self.freed_at: int | None = 0
        """The version of the release we took the Lease over from, 0 when there was no Lease; None when its holder fell silent."""

        self._api = api
        self._key = key
        self._identity = identity
        self._clock = clock
        self._on_acquired = on_acquired
        self._on_raised = on_raised
        self._on_lost = on_lost
        self._timing = timing or Timing()
        self._changing = asyncio.Lock()
        self._mine: LeaseRecord | None = None  # as of our last successful change, while we lead
        self._renewed_at = 0.0
        self._tried_at = 0.0
        self._seen: LeaseRecord | None = None
        self._seen_at = 0.0
        self._highest_epoch = 0
        self._retired = False

    def held(self) -> bool:
        """Whether this process may write right now."""
        return self._mine is not None and self._clock.monotonic() < self._renewed_at + self._timing.renew_deadline_s

    @property
    def tried_s_ago(self) -> float:
        """Seconds since renewing was last tried, with whatever outcome; meaningless for a process that does not lead."""
        return self._clock.monotonic() - max(self._tried_at, self._renewed_at)

    async def run(self) -> None:
        """Acquires, renews, loses, acquires again, until cancelled or released; for a Supervisor. Begun anew, it goes on where it was."""
        while not self._retired:
            if self._mine is None and await self._acquired():
                log.info("lease acquired", extra={"lease": str(self._key), "epoch": self.epoch})
                self._on_acquired(self.epoch)
            if self._mine is not None:
                self._lose(await self._kept())
            await self._clock.sleep(self._timing.retry_s)

    async def raise_epoch_above(self, other: int) -> int:
        """Makes our epoch higher than one an agent has seen; returns it. NotLeader when the Lease is another's by now, and ApiError."""
        async with self._changing:
            while self.epoch <= other:
                if not self.held():
                    raise NotLeader(f"cannot raise the epoch above {other}: this process does not hold the Lease {self._key}")
                await self._renew(at_least=other + 1)
            return self.epoch

    async def release(self) -> None:
        """Stops leading at once, and tells the others so that they need not wait. `run` ends. Never raises a MoorageError."""
        self._retired = True
        mine, self._mine = self._mine, None
        if mine is None:
            return
        try:
            async with self._changing:
                await self._patch(released(mine, now=self._clock.now()))
        except MoorageError as error:
            log.info("lease not released, it expires by itself", extra={"lease": str(self._key), "error": str(error)})

    # --- before

    async def _acquired(self) -> bool:
        sent_at = self._clock.monotonic()
        try:
            record = await self._look()
            if not self._is_free(record):
                return False
            sent_at = self._clock.monotonic()
            taken = await self._take(record)
            self.freed_at = _freed_at(record)
        except Conflict:
            return False  # another was faster
        except MoorageError as error:
            log.warning("lease not acquired", extra={"lease": str(self._key), "error": str(error)})
            return False
        self._hold(taken, sent_at)
        return True

    async def _look(self) -> LeaseRecord | None:
        record = await self._get()
        if record is not None:
            self._highest_epoch = max(self._highest_epoch, record.epoch)
            if record != self._seen:
                self._seen, self._seen_at = record, self._clock.monotonic()
        return record

    def _is_free(self, record: LeaseRecord | None) -> bool:
        if record is not None and record.holder in ("", self._identity):
            return True
        # A Lease that vanished is treated as its last holder's: it may live, and will make it anew.
        held = record or self._seen
        return held is None or held.holder == "" or self._clock.monotonic() >= self._seen_at + max(held.duration_s, 1.0)

    async def _take(self, record: LeaseRecord | None) -> LeaseRecord:
        epoch, duration_s, now = self._highest_epoch + 1, self._timing.duration_s, self._clock.now()
        if record is None:
            return await self._create(new_lease(self._key, holder=self._identity, epoch=epoch, duration_s=duration_s, now=now))
        return await self._patch(taken_over(record, holder=self._identity, epoch=epoch, duration_s=duration_s, now=now))

    def _hold(self, record: LeaseRecord, sent_at: float) -> None:
        self._mine, self._renewed_at = record, sent_at
        self.epoch = self._highest_epoch = record.epoch

    # --- meanwhile

    async def _kept(self) -> str:
        """Renews until somebody else has the Lease, and returns why.

        Without an answer from the API server, or a way in, it is not held for a while, but not lost: a change of anybody else's would make
        the next renewal conflict.
        """
        while True:
            await self._clock.sleep(self._timing.retry_s)
            try:
                async with self._changing:
                    await self._renew()
            except NotLeader as error:
                return str(error)
            except MoorageError as error:
                log.warning("lease not renewed", extra={"lease": str(self._key), "error": str(error)})
            self._tried_at = self._clock.monotonic()

    async def _renew(self, *, at_least: int = 0) -> None:
        if self._mine is None:
            raise NotLeader("released")
        sent_at = self._clock.monotonic()
        epoch = max(self.epoch, at_least)
        try:
            record = await self._patch(renewed(self._mine, epoch=epoch, now=self._clock.now()))
        except NotFound:
            record = await self._made_anew(epoch + 1)
        except Conflict:
            record = await self._reconciled(self._mine, epoch)
        if self._mine is not None:
            before = self.epoch
            self._hold(record, sent_at)
            if self.epoch != before:
                log.info("epoch raised", extra={"lease": str(self._key), "epoch": self.epoch})
                self._on_raised(self.epoch)

    async def _made_anew(self, epoch: int) -> LeaseRecord:
        lease = new_lease(self._key, holder=self._identity, epoch=epoch, duration_s=self._timing.duration_s, now=self._clock.now())
        try:
            return await self._create(lease)
        except Conflict as error:
            raise NotLeader("the Lease was deleted, and another process made it anew") from error

    async def _reconciled(self, mine: LeaseRecord, epoch: int) -> LeaseRecord:
        """Somebody changed the Lease: another leads now, a person edited it, or it is an older one out of a backup."""
        found = await self._get()
        if found is None:
            return await self._made_anew(epoch + 1)
        if found.holder != self._identity:
            raise NotLeader(f"held by {found.holder or 'nobody'} now")
        if found.epoch != mine.epoch or found.is_older_than(mine):
            epoch = max(epoch, found.epoch) + 1
        return await self._patch(renewed(found, epoch=epoch, now=self._clock.now()))

    def _lose(self, reason: str) -> None:
        self._mine = None
        if not self._retired:
            log.error("lease lost", extra={"lease": str(self._key), "epoch": self.epoch, "why": reason})
            self._on_lost(reason)

    # --- calls

    async def _get(self) -> LeaseRecord | None:
        try:
            return record_of(await self._within(self._api.get(LEASES, self._key)))
        except NotFound:
            return None

    async def _create(self, lease: Obj) -> LeaseRecord:
        return record_of(await self._within(self._api.create(LEASES, lease)))

    async def _patch(self, body: Obj) -> LeaseRecord:
        return record_of(await self._within(self._api.patch(LEASES, self._key, body)))

    async def _within(self, call: Awaitable[Obj]) -> Obj:
        try:
            async with asyncio.timeout(self._timing.call_s):
                return await call
        except TimeoutError as error:
            raise ApiUnavailable(f"cannot reach Lease {self._key}: no answer within {self._timing.call_s:g} s") from error


def _freed_at(record: LeaseRecord | None) -> int | None:
    """A holder that fell silent may have written until it did."""
    if record is None:
        return 0
    return None if record.holder else parse_version(record.version)
