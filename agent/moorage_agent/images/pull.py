"""Getting an image: from its source into the store, verified against the digest the operator pinned.

The calls block for seconds to minutes. A daemon uses those of pull_process.py: a child process keeps the interpreter lock, the memory and
any fault met in hostile data out of the daemon, can be ended in any state, and costs 100 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from moorage_agent.errors import ImageError
from moorage_agent.images.assemble import assemble
from moorage_agent.images.cancellation import Cancellation
from moorage_agent.images.digest import hexadecimal
from moorage_agent.images.platforms import Platform, host_platform, parse_platform
from moorage_agent.images.progress import Meter, Progress, Throttle
from moorage_agent.images.sources import DEFAULT, RESOLVING, Request, Settings, Values, forget_download, opened
from moorage_agent.images.store import Image, ImageStore
from moorage_agent.protocol import ImageSource, ImageSpec, ResolvedImage

__all__ = ["Progress", "Settings", "Values", "pull", "resolve"]


def resolve(
    source: ImageSource, values: Values, store: ImageStore, *, cancellation: Cancellation | None = None, settings: Settings = RESOLVING
) -> ResolvedImage:
    """What `source` means right now on this host's platform (or the source's). Raises ImageError, Interrupted."""
    store.prepare()
    request = Request(source, None, values, lambda *_: None)
    with _within(cancellation) as inner, opened(request, store, inner, settings) as found:
        return found.content(_wanted(source)).resolved()


def pull(
    spec: ImageSpec,
    values: Values,
    store: ImageStore,
    progress: Progress,
    *,
    cancellation: Cancellation | None = None,
    settings: Settings = DEFAULT,
) -> Image:
    """The image, from the store if it is there (no network, then), else from its source. Safe to repeat, resumes, may run twice at once.

    Raises ImageError, whose retry_after_s says whether and when to try again; Interrupted when cancelled.
    """
    image = store.get(spec.digest)
    if image is not None:
        return image
    with _within(cancellation) as inner, store.lease(spec.digest) as lease:
        downloaded = Throttle(progress)
        request = Request(spec.source, spec.digest, values, downloaded)
        with opened(request, store, inner, settings) as source:
            content = source.content(_wanted(spec.source))
            if content.digest != spec.digest:
                forget_download(request, store)
                raise _another(spec, content.digest)
            total = sum(layer.size for layer in content.layers)
            assemble(content, store, lease, Meter(total, progress, before=downloaded.done), inner)
    image = store.get(spec.digest)
    if image is None:
        raise ImageError("StoreFailed", f"image {spec.digest} was removed from the store while it was pulled", 10)
    return image


def _wanted(source: ImageSource) -> Platform:
    return parse_platform(source.platform) if source.platform else host_platform()


@contextmanager
def _within(outer: Cancellation | None) -> Iterator[Cancellation]:
    """A cancellation of our own, for ending what still runs after a failure, which `outer` cancels too."""
    inner = Cancellation()
    with (outer or Cancellation()).breaking(inner.cancel):
        yield inner


def _another(spec: ImageSpec, found: str) -> ImageError:
    hexadecimal(spec.digest)
    if spec.source.kind == "Registry":
        return ImageError(
            "InvalidReference", f"{spec.digest} is an index of images for several platforms; pin the digest of one of them, like {found}"
        )
    return ImageError(
        "DigestMismatch", f"the archive holds the image {found}, not {spec.digest}: it has changed since it was resolved", 300
    )
