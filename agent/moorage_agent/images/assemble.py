"""Bringing an image's layers into the store, and the image with them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack

from moorage_agent.errors import Interrupted
from moorage_agent.images.cancellation import Cancellation
from moorage_agent.images.compose import Mending, Stacked, mend, plan_mending, visible
from moorage_agent.images.content import Content
from moorage_agent.images.fetch import LayerSource, fetch
from moorage_agent.images.layer import Layer
from moorage_agent.images.lease import Lease
from moorage_agent.images.progress import Meter
from moorage_agent.images.record import Record
from moorage_agent.images.store import ImageStore, layer_id, layer_name
from moorage_agent.images.workplace import Workplace

_THREADS = 4
_POLL_S = 0.1


def assemble(content: Content, store: ImageStore, lease: Lease, meter: Meter, cancellation: Cancellation) -> Record:
    """Fetch the layers the store lacks, in parallel, sync once, and write the image's record. Raises ImageError, Interrupted.

    `cancellation` is this call's own: it is used to end what still runs when one layer failed.
    """
    assembly = _Assembly(content, store, meter, cancellation)
    lease.add(map(layer_name, (*content.diff_ids, assembly.mending_id)))
    while missing := assembly.missing():
        assembly.fetch_what_nobody_fetches(missing)
    while (record := assembly.record()) is None:
        cancellation.sleep(_POLL_S)
    store.write(record)
    meter.end()
    return record


class _Assembly:
    def __init__(self, content: Content, store: ImageStore, meter: Meter, cancellation: Cancellation) -> None:
        self._content, self._store, self._meter, self._cancellation = content, store, meter, cancellation
        self._budget = store.budget()
        self.mending_id = layer_id("\n".join(("mended 1", *content.diff_ids)))

    def missing(self) -> list[LayerSource]:
        """Largest first: it takes longest."""
        wanted = {layer.diff_id: layer for layer in self._content.layers if self._store.layer(layer.diff_id) is None}
        return sorted(wanted.values(), key=lambda layer: -layer.size)

    def fetch_what_nobody_fetches(self, missing: Sequence[LayerSource]) -> None:
        """And publish it; where others fetch all, wait a moment. Whoever waits holds no claim, so no two pulls wait for each other."""
        with ExitStack() as claims:
            work = [(layer, place) for layer in missing if (place := self._claim(layer.diff_id, claims)) is not None]
            if not work:
                self._cancellation.sleep(_POLL_S)
                return
            self._budget.check_room(sum(layer.size for layer, _ in work))
            made = self._fetch_all(work)
            for (_, place), layer in zip(work, made):
                place.finish(layer)
            places = {layer.diff_id: place for layer, (_, place) in zip(made, work)}
            fresh = {layer.diff_id: Stacked(layer, place.fs) for layer, (_, place) in zip(made, work)}
            self._store.publish({**places, **self._mend(fresh, claims)})

    def record(self) -> Record | None:
        """What the image is, once all of its layers are here; None while another pull makes the layer on top."""
        stack = self._stack({})
        assert stack is not None, "layers are published, and leased"
        mending = plan_mending(stack)
        if mending and self._store.layer(self.mending_id) is None:
            with ExitStack() as claims:
                self._store.publish(self._mend({}, claims))
        if mending:
            on_top = self._known(self.mending_id)
            if on_top is None:
                return None
            stack = (on_top, *stack)
        return _record(self._content, stack, mending)

    def _claim(self, diff_id: str, claims: ExitStack) -> Workplace | None:
        place = self._store.claim(diff_id)
        if place is None:
            return None
        claims.callback(place.release)
        return place if self._store.layer(diff_id) is None else None  # it may have been made between our look and our claim

    def _fetch_all(self, work: Sequence[tuple[LayerSource, Workplace]]) -> list[Layer]:
        """The first failure ends the other fetches, and is the one to be told of."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="layer") as pool:
            futures = [pool.submit(fetch, layer, place, self._budget, self._arrived) for layer, place in work]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                failures = [error for future in futures if future.done() and (error := future.exception())]
                if not all(future.done() for future in futures):
                    self._cancellation.cancel()
                for future in futures:
                    future.cancel()
        if failures:
            raise next((error for error in failures if not isinstance(error, Interrupted)), failures[0])
        return [future.result() for future in futures]

    def _arrived(self, count: int) -> None:
        self._cancellation.check()
        self._meter.add(count)

    def _mend(self, fresh: dict[str, Stacked], claims: ExitStack) -> dict[str, Workplace]:
        """The layer on top, where one is needed and all below it are here, made of layers among which `fresh` are not published yet."""
        stack = self._stack(fresh)
        mending = plan_mending(stack) if stack is not None else Mending()
        place = self._claim(self.mending_id, claims) if mending else None
        if stack is None or place is None:
            return {}
        place.finish(mend(mending, stack, place.fs, self.mending_id, self._budget))
        return {self.mending_id: place}

    def _stack(self, fresh: dict[str, Stacked]) -> tuple[Stacked, ...] | None:
        """Topmost first; None when layers are missing."""
        found = [fresh.get(diff_id) or self._known(diff_id) for diff_id in reversed(self._content.diff_ids)]
        stack = [stacked for stacked in found if stacked is not None]
        return visible(stack) if len(stack) == len(found) else None

    def _known(self, diff_id: str) -> Stacked | None:
        layer = self._store.layer(diff_id)
        return None if layer is None else Stacked(layer, self._store.layer_directory(diff_id))


def _record(content: Content, stack: Sequence[Stacked], mending: Mending) -> Record:
    warnings = [*(text for stacked in stack for text in stacked.layer.warnings), *mending.warnings]
    return Record(
        digest=content.digest,
        platform=str(content.platform),
        config=content.config.config,
        layers=tuple(layer_name(stacked.layer.diff_id) for stacked in stack),
        size=sum(stacked.layer.size for stacked in stack),
        blobs=content.blobs,
        warnings=tuple(dict.fromkeys(warnings)),
    )
