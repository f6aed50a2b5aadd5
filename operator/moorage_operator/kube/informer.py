"""Keeps a Cache equal to the API server: a full list, then a watch from there on, and the list again whenever the watch cannot go on.

A deletion that fell into a gap is found by the list, so the list is also repeated on a slow timer, whatever the watch says.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from random import Random
from typing import Unpack

from moorage_operator.errors import ApiUnavailable, CredentialsError, Gone, MoorageError, NotFound, TooManyRequests
from moorage_operator.kube.backoff import Backoff
from moorage_operator.kube.cache import Cache
from moorage_operator.kube.client import KubeApi, Selection, WatchEvent
from moorage_operator.kube.clock import Clock
from moorage_operator.kube.object import key_of, parse_version, uid_of, version_of

log = logging.getLogger(__name__)

RELIST_S = 600.0
WATCH_S = 300.0
"""Servers end watches after 30 to 60 minutes anyway; ending them ourselves spreads the reconnects of many watches over time."""

TOO_SHORT_S = 1.0
"""A watch that ended so soon was cut by something in between; begun again at once it would spin."""


class Informer:
    """`run` never returns: it is for a Supervisor. `synced` is set by the first full list and stays set."""

    def __init__(
        self,
        api: KubeApi,
        cache: Cache,
        *,
        clock: Clock,
        random: Random,
        relist_s: float = RELIST_S,
        watch_s: float = WATCH_S,
        backoff: Backoff | None = None,
        **selection: Unpack[Selection],
    ) -> None:
        self.synced = asyncio.Event()
        self.relists = 0
        self.failures = 0
        self._api = api
        self._cache = cache
        self._clock = clock
        self._random = random
        self._relist_s = relist_s
        self._watch_s = watch_s
        self._backoff = backoff or Backoff(base_s=0.2, cap_s=30.0)
        self._selection = selection
        self._version = ""
        self._failures_in_a_row = 0
        self._tried_at = clock.monotonic()

    @property
    def tried_s_ago(self) -> float:
        """Seconds since the server was asked last, or heard of: with an event or a bookmark (about one a minute)."""
        return self._clock.monotonic() - self._tried_at

    @property
    def version(self) -> int:
        """All that was written up to it is in the cache."""
        return parse_version(self._version)

    async def relist(self) -> None:
        """Beside the watch, for who cannot wait for it."""
        await relist(self._api, self._cache, **self._selection)

    async def run(self) -> None:
        while True:
            self._tries()
            try:
                self._version = await relist(self._api, self._cache, **self._selection)
                self._listed()
                await self._follow(until=self._clock.monotonic() + self._about(self._relist_s))
            except MoorageError as error:
                await self._pause(error)

    async def _follow(self, *, until: float) -> None:
        """One watch after another, each from where the last one ended; returns when a full list is due."""
        checked = True
        while (left_s := until - self._clock.monotonic()) > 0:
            self._tries()
            try:
                if not checked:
                    await self._check_history()
                checked = False
                await self._watch(min(left_s, self._about(self._watch_s)))
            except (ApiUnavailable, TooManyRequests, CredentialsError) as error:
                # Nothing is missed that a watch from the same version does not bring; a list would add to the server's trouble.
                await self._pause(error)

    async def _watch(self, timeout_s: float) -> None:
        began = self._clock.monotonic()
        watch = self._api.watch(self._cache.resource, version=self._version, timeout_s=timeout_s, **self._selection)
        async with aclosing(watch) as events:
            async for event in events:
                self._take(event)
        if self._clock.monotonic() - began < min(timeout_s, TOO_SHORT_S):
            raise ApiUnavailable(f"cannot watch {self._cache.resource}: the server ended it at once")
        self._heard()

    async def _check_history(self) -> None:
        """Gone when the server's past is not ours: its store was restored from a backup.

        A watch from a version not reached yet is silent for ever, and one from a version reached again tells nothing of what was undone.
        """
        async with aclosing(self._api.pages(self._cache.resource, limit=1, **self._selection)) as pages:
            now = (await anext(pages)).version
        if parse_version(now) < parse_version(self._version) or not await self._remembered():
            raise Gone(f"cannot watch {self._cache.resource} from {self._version}: the API server's store was restored")

    async def _remembered(self) -> bool:
        """Whether the server knows the newest thing we know. If anything we saw was undone, then that."""
        sign = self._cache.newest
        if sign is None:
            return True
        try:
            found = await self._api.get(self._cache.resource, sign.key, metadata_only=True)
        except NotFound:
            return not sign.alive  # else it was deleted meanwhile, or never made: a list tells
        return version_of(found) >= sign.version

    def _take(self, event: WatchEvent) -> None:
        obj = event.object
        if event.type == "DELETED":
            self._cache.remove(key_of(obj), uid=uid_of(obj), version=version_of(obj))
        elif event.type != "BOOKMARK":
            self._cache.put(obj)
        self._version = obj["metadata"]["resourceVersion"]
        self._heard()

    def _listed(self) -> None:
        # No success yet: a server that answers lists but refuses every watch must not be asked in a loop.
        self.relists += 1
        self.synced.set()

    def _tries(self) -> None:
        self._tried_at = self._clock.monotonic()

    def _heard(self) -> None:
        self._tries()
        self._failures_in_a_row = 0

    async def _pause(self, error: MoorageError) -> None:
        self.failures += 1
        self._failures_in_a_row += 1
        delay_s = self._backoff.delay(self._failures_in_a_row, self._random)
        # Watches break every day; one that does not come back, or is refused (a missing role), is for a person to see.
        routine = isinstance(error, ApiUnavailable | TooManyRequests | Gone) and self._failures_in_a_row < 4
        level = logging.INFO if routine else logging.WARNING
        about = {"resource": str(self._cache.resource), "error": str(error), "again_in_s": round(delay_s, 1)}
        log.log(level, "watch interrupted", extra=about)
        await self._clock.sleep(delay_s)

    def _about(self, seconds: float) -> float:
        return seconds * self._random.uniform(0.8, 1.2)


async def relist(api: KubeApi, cache: Cache, **selection: Unpack[Selection]) -> str:
    """One full list into the cache, what it lacks removed; returns its version. Also for caches that something else feeds."""
    comparison, version = cache.relist(selection.get("namespace", "")), ""
    async with aclosing(api.pages(cache.resource, **selection)) as pages:
        async for page in pages:
            comparison.page(page.items, page.version)
            version = page.version
    comparison.done(version)
    return version
