"""Getting an image: from its source into the store, verified against the digest the operator pinned.

All three calls block for seconds to minutes. A daemon uses `pull_apart`: a child process keeps the interpreter lock, the memory and any
fault met in hostile data out of the daemon, can be ended in any state, and costs 50 ms. `pull` is the same inside the calling process.
"""

from __future__ import annotations

from typing import Callable

from moorage_agent.images.cancellation import Cancellation
from moorage_agent.images.store import Image, ImageStore
from moorage_agent.protocol import ImageSource, ImageSpec, ResolvedImage

Values = Callable[[str], bytes]
"""The value of a key of the source: credentials, a CA bundle, an archive. Raises KeyError, or an AgentError of its own."""

Progress = Callable[[int, int], None]
"""done, total: compressed bytes. Called from any thread, at most some ten times a second; total grows while it is being found out."""


def resolve(source: ImageSource, values: Values, store: ImageStore, *, cancellation: Cancellation | None = None) -> ResolvedImage:
    """What `source` means right now on this host's platform (or the source's). Raises ImageError, Interrupted."""
    raise NotImplementedError


def pull(spec: ImageSpec, values: Values, store: ImageStore, progress: Progress, *, cancellation: Cancellation | None = None) -> Image:
    """The image, from the store if it is there (no network, then), else from its source. Safe to repeat, resumes, may run twice at once.

    Raises ImageError, whose retry_after_s says whether and when to try again; Interrupted when cancelled.
    """
    raise NotImplementedError


def pull_apart(
    spec: ImageSpec, values: Values, store: ImageStore, progress: Progress, *, cancellation: Cancellation | None = None
) -> Image:
    """`pull` in a child process, which ends with this one. Also raises ImageError(PullCrashed) when the child died of something else."""
    raise NotImplementedError
