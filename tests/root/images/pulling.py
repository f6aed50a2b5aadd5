"""Words for tests that pull."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moorage_agent.images.cancellation import Cancellation
from moorage_agent.images.patience import Patience
from moorage_agent.images.pull import Settings, pull, resolve
from moorage_agent.images.store import Image, ImageStore
from moorage_agent.images.transport import Timeouts
from moorage_agent.protocol import ImageSource, ImageSpec, ResolvedImage

from tests.kube import Layer, make_layer

HASTY = Settings(Patience(tries=3, first_s=0.01, most_s=0.5), Timeouts(connect_s=2, idle_s=0.5))
CREDENTIALS = b'{"username": "puller", "password": "a password"}'


def source(reference: str, **more: Any) -> ImageSource:
    return ImageSource(kind="Registry", reference=reference, **{"insecure": True, **more})


def resolved(where: ImageSource, store: ImageStore, values: Mapping[str, bytes] | None = None) -> ResolvedImage:
    return resolve(where, (values or {}).__getitem__, store, settings=HASTY)


def pulled(
    where: ImageSource,
    store: ImageStore,
    digest: str | None = None,
    *,
    values: Mapping[str, bytes] | None = None,
    cancellation: Cancellation | None = None,
    told: list[tuple[int, int]] | None = None,
) -> Image:
    digest = digest or resolved(where, store, values).digest
    spec = ImageSpec(digest, where)
    progress = (lambda done, total: told.append((done, total))) if told is not None else (lambda *_: None)
    return pull(spec, (values or {}).__getitem__, store, progress, cancellation=cancellation, settings=HASTY)


def noise_layer(size: int, name: str = "noise") -> Layer:
    """Incompressible, so that it travels in full."""
    return make_layer({name: secrets.token_bytes(size)}, compression="none")


def untouched(store: ImageStore) -> bool:
    """Whether nothing is visible in the store, and nothing half-made but downloads to resume is left."""
    root = Path(store.paths.images)
    visible = [*(root / "layers").iterdir(), *(root / "records").iterdir(), *(root / "leases").iterdir()]
    left = [path for path in (root / "making").glob("*/*") if path.suffix != ".part"]
    return not visible and not left and store.images() == ()


def content(image: Image, path: str) -> bytes:
    """Of the topmost layer that has it."""
    return next(Path(layer, path) for layer in image.layers if Path(layer, path).exists()).read_bytes()
