"""Bringing an image's layers into the store, and the image with them."""

from __future__ import annotations

import time
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
from moorage_agent.images.limits import Budget
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
    mending_id = layer_id("\n".join(("mended 1", *content.diff_ids)))
    lease.add(map(layer_name, (*content.diff_ids, mending_id)))
    budget = store.budget()
    while missing := _missing(content, store):
        _fetch_claimed(missing, store, budget, meter, cancellation)
    record = _recorded(content, store, mending_id)
    store.write(record)
    meter.end()
    return record


def _missing(content: Content, store: ImageStore) -> list[LayerSource]:
    wanted = {layer.diff_id: layer for layer in content.layers}
    return [layer for diff_id, layer in wanted.items() if store.layer(diff_id) is None]


def _fetch_claimed(missing: Sequence[LayerSource], store: ImageStore, budget: Budget, meter: Meter, cancellation: Cancellation) -> None:
    """Fetch and publish what nobody else is fetching; when that is nothing, wait a moment.

    Whoever waits holds no claim, so two pulls that share layers never wait for each other.
    """
    with ExitStack() as claims:
        work = []
        for layer in sorted(missing, key=lambda layer: -layer.size):
            place = store.claim(layer.diff_id)
            if place is not None:
                claims.callback(place.release)
                if store.layer(layer.diff_id) is None:  # else it was made between our look and our claim
                    work.append((layer, place))
        if not work:
            cancellation.sleep(_POLL_S)
            return
        budget.check_room(sum(layer.size for layer, _ in work))
        made = _fetch_all(work, budget, meter, cancellation)
        for (_, place), known in zip(work, made):
            place.finish(known)
        store.publish({layer.diff_id: place for layer, place in work})


def _fetch_all(work: Sequence[tuple[LayerSource, Workplace]], budget: Budget, meter: Meter, cancellation: Cancellation) -> list[Layer]:
    """The first failure ends the other fetches, and is the one to be told of."""

    def arrived(count: int) -> None:
        cancellation.check()
        meter.add(count)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="layer") as pool:
        futures = [pool.submit(fetch, layer, place, budget, arrived) for layer, place in work]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            failures = [error for future in futures if future.done() and (error := future.exception())]
            if failures or not all(future.done() for future in futures):
                cancellation.cancel()
            for future in futures:
                future.cancel()
    if failures:
        raise next((error for error in failures if not isinstance(error, Interrupted)), failures[0])
    return [future.result() for future in futures]


def _recorded(content: Content, store: ImageStore, mending_id: str) -> Record:
    """What the image is, after the layer was made that some images need on top."""
    known = [_known(store, diff_id) for diff_id in reversed(content.diff_ids)]
    stack = visible(known)
    mending = plan_mending(stack)
    if mending:
        stack = (_mended(store, mending_id, mending, stack), *stack)
    return Record(
        digest=content.digest,
        platform=str(content.platform),
        config=content.config.config,
        layers=tuple(layer_name(stacked.layer.diff_id) for stacked in stack),
        size=sum(stacked.layer.size for stacked in stack),
        blobs=content.blobs,
        warnings=tuple(dict.fromkeys([*(text for stacked in stack for text in stacked.layer.warnings), *mending.warnings])),
    )


def _known(store: ImageStore, diff_id: str) -> Stacked:
    layer = store.layer(diff_id)
    assert layer is not None, "layers are published, and leased"
    return Stacked(layer, store.layer_directory(diff_id))


def _mended(store: ImageStore, mending_id: str, mending: Mending, stack: Sequence[Stacked]) -> Stacked:
    while store.layer(mending_id) is None:
        place = store.claim(mending_id)
        if place is None:  # another pull of an image of the same layers makes it
            time.sleep(_POLL_S)
            continue
        try:
            place.finish(mend(mending, stack, place.fs, mending_id))
            store.publish({mending_id: place})
        finally:
            place.release()
    return _known(store, mending_id)
