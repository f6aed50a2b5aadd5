"""The images a host has: layers unpacked once each, shared by every image that names them, and a record per image.

    images/layers/<name>/fs        the layer as overlayfs wants it; `ok` beside it says what it is and that it is whole
    images/records/<hex>           an image: its configuration and its layers
    images/blobs/<hex>             manifests and configurations, kept to ask a registry less
    images/making/<name>/          a layer in the making, locked by its maker; *.part is a download to resume
    images/archives/               downloaded archives, kept for a day, on a full disk for an hour; part.* is one that comes, locked
    images/leases/                 what each running pull needs, locked by it
    images/trash/                  renamed away, being removed
    images/lock                    held shared to lease, exclusively to sweep

<name> is the first 24 hex digits of the layer's diffID: short, because mount(2) takes one page of options. `ok` holds all 64, and is read
before a layer is used. A directory below layers/ and a record appear by rename after their content was synced: what is visible is whole,
after a kill or a power cut too. Locks are the kernel's (flock): they end with the process that held them.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from moorage_agent.errors import ImageError
from moorage_agent.images.digest import digest_of, hexadecimal
from moorage_agent.images.durable import sync_directory, sync_file_system, write_cache_file, write_file
from moorage_agent.images.layer import Layer
from moorage_agent.images.lease import Lease, leased, store_lock
from moorage_agent.images.leftovers import KEPT_ON_FULL_DISK_S, KEPT_S, drop_old, drop_old_downloads
from moorage_agent.images.limits import DEFAULT, Budget, Limits, free_on
from moorage_agent.images.record import Record
from moorage_agent.images.sweep import Held, unwanted
from moorage_agent.images.tree import remove_at
from moorage_agent.images.workplace import Workplace, clear_workplaces
from moorage_agent.paths import Paths
from moorage_agent.protocol import ImageConfig

_DIRECTORIES = ("layers", "records", "blobs", "making", "leases", "trash", "archives")


@dataclass(frozen=True)
class Image:
    """An image ready to run. `layers`: directories for overlayfs, topmost first, all below one parent. `size`: unpacked bytes."""

    digest: str
    platform: str
    config: ImageConfig
    layers: tuple[str, ...]
    size: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Swept:
    """What a sweep took away: digests of images, number of layers, bytes of their files."""

    images: tuple[str, ...]
    layers: int
    bytes: int


class ImageStore:
    """Any number of processes and threads may use one store. Making the object does nothing; call `recover` once at the daemon's start."""

    def __init__(self, paths: Paths, limits: Limits = DEFAULT) -> None:
        self.paths, self.limits = paths, limits
        self._root = paths.images

    def recover(self) -> None:
        """Make the directories and forget the leases of earlier processes. What they left half-made is for `tidy`: it may be much."""
        self.prepare()
        with store_lock(f"{self._root}/lock", exclusive=True):
            leased(f"{self._root}/leases")

    def tidy(self, *, disk_is_full: bool = False) -> None:
        """Remove what ended pulls left half-made, and what was kept to ask less for it again: for a day, on a full disk for an hour.

        Pulls of living processes are left alone. To be called now and then, by one at a time; it may be killed at any point.
        """
        self.prepare()
        since = time.time() - (KEPT_ON_FULL_DISK_S if disk_is_full else KEPT_S)
        self._empty_trash()
        clear_workplaces(f"{self._root}/making", keep_since=since)
        drop_old_downloads(self.archives, keep_since=since)
        wanted = {blob.removeprefix("sha256:") for record in self._records() for blob in record.blobs}
        drop_old(f"{self._root}/blobs", keep_since=since, wanted=wanted)

    def prepare(self) -> None:
        for name in _DIRECTORIES:
            os.makedirs(f"{self._root}/{name}", mode=0o700, exist_ok=True)
        os.chmod(self._root, 0o700)  # CVE-2021-41091: set-user-id files of images must be out of reach of the host's users

    def get(self, digest: str) -> Image | None:
        """The image `digest` if it is here and whole; no network, one small file read. Raises ImageError(InvalidReference)."""
        record = self._record(hexadecimal(digest))
        if record is None or record.digest != digest:
            return None
        names = tuple(dict.fromkeys(record.layers))  # the kernel refuses a directory it is given twice, which older records name
        layers = tuple(f"{self._root}/layers/{name}/fs" for name in names)
        if not all(os.path.exists(f"{self._root}/layers/{name}/ok") for name in names):
            return None
        return Image(digest, record.platform, record.config, layers, record.size, record.warnings)

    def images(self) -> tuple[Image, ...]:
        """All that `get` would give."""
        found = (self.get(f"sha256:{name}") for name in self._names("records"))
        return tuple(image for image in found if image is not None)

    def sweep(self, keep: Collection[str]) -> Swept:
        """Remove every image whose digest is not in `keep`, and the layers nobody names any more; `tidy` gives their room back.

        Running pulls keep what they lease. `keep` must hold the image of every container that exists: a layer is never taken from
        below a mount only because its caller names it here.
        """
        self.prepare()
        with store_lock(f"{self._root}/lock", exclusive=True):
            records = self._records()
            unread = {f"sha256:{name}" for name in self._names("records")} - {record.digest for record in records}
            held = Held(records, self._names("layers"), leased(f"{self._root}/leases"), unread)
            images, layers = unwanted(held, keep)
            freed = sum(layer.size for layer in map(self._layer, layers) if layer)
            for digest in images:
                os.unlink(f"{self._root}/records/{hexadecimal(digest)}")
            sync_directory(f"{self._root}/records")  # before the layers go: no record may speak of what is not there
            for name in layers:
                self._discard(f"{self._root}/layers/{name}")
        return Swept(images, len(layers), freed)

    def sizes(self) -> dict[str, int]:
        """Unpacked bytes of each layer, by name: every layer once, however many images share it."""
        return {name: layer.size for name in self._names("layers") if (layer := self._layer(name)) is not None}

    # --- for pulls

    @property
    def archives(self) -> str:
        return f"{self._root}/archives"

    def budget(self) -> Budget:
        return Budget(self.limits, free_on(self._root))

    @contextmanager
    def lease(self, digest: str) -> Iterator[Lease]:
        """While inside, a sweep leaves the image `digest`, and all layers whose names are added, alone."""
        self.prepare()
        lease = Lease(f"{self._root}/leases", f"{self._root}/lock")
        try:
            lease.add([digest])
            yield lease
        finally:
            lease.end()

    def layer(self, diff_id: str) -> Layer | None:
        """What is known of a layer that is here.

        Raises ImageError: InvalidImage when another layer has its short name; StoreFailed when what is known cannot be read, for
        containers may run on the layer all the same.
        """
        ok = f"{self._root}/layers/{layer_name(diff_id)}/ok"
        data = _read(ok)
        if data is None:
            return None
        layer = _layer_of(data)
        if layer is None:
            remedy = "update the agent, or remove that directory once no container runs on it"
            raise ImageError("StoreFailed", f"another version of the agent made layer {diff_id}: this one cannot read {ok}; {remedy}", 300)
        if layer.diff_id != diff_id:
            raise ImageError("InvalidImage", f"layer {diff_id} begins with the same 24 digits as {layer.diff_id}, which is no accident")
        return layer

    def layer_directory(self, diff_id: str) -> str:
        return f"{self._root}/layers/{layer_name(diff_id)}/fs"

    def claim(self, diff_id: str) -> Workplace | None:
        """A place to make the layer in; None while somebody else makes it."""
        return Workplace.claim(f"{self._root}/making/{layer_name(diff_id)}")

    def publish(self, made: dict[str, Workplace]) -> None:
        """Make finished layers, by diffID, visible together: one sync for all of them, which is most of the cost."""
        if not made:
            return
        sync_file_system(self._root)
        for diff_id, place in made.items():
            target = f"{self._root}/layers/{layer_name(diff_id)}"
            if os.path.exists(f"{target}/ok"):
                place.release()  # containers may run on what is there
                continue
            if os.path.exists(target):  # damaged by hand
                self._discard(target)
            place.publish(target)
        sync_directory(f"{self._root}/layers")

    def write(self, record: Record) -> None:
        write_file(f"{self._root}/records/{hexadecimal(record.digest)}", record.to_json())

    def keep_blob(self, data: bytes) -> None:
        """A manifest or configuration; found again by its digest. Not synced: `blob` verifies."""
        write_cache_file(f"{self._root}/blobs/{hexadecimal(digest_of(data))}", data)

    def blob(self, digest: str) -> bytes | None:
        data = _read(f"{self._root}/blobs/{hexadecimal(digest)}")
        return data if data is not None and digest_of(data) == digest else None

    # --- what is on disk

    def _record(self, name: str) -> Record | None:
        data = _read(f"{self._root}/records/{name}")
        return None if data is None else Record.from_json(data)

    def _records(self) -> tuple[Record, ...]:
        found = (self._record(name) for name in self._names("records"))
        return tuple(record for record in found if record is not None)

    def _layer(self, name: str) -> Layer | None:
        data = _read(f"{self._root}/layers/{name}/ok")
        return None if data is None else _layer_of(data)

    def _names(self, directory: str) -> list[str]:
        try:
            return [name for name in os.listdir(f"{self._root}/{directory}") if "." not in name]
        except FileNotFoundError:
            return []

    def _discard(self, path: str) -> None:
        """By rename first: removing takes time, and half a layer must not be seen."""
        os.rename(path, f"{self._root}/trash/{os.path.basename(path)}.{time.monotonic_ns()}")

    def _empty_trash(self) -> None:
        fd = os.open(f"{self._root}/trash", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in os.listdir(fd):
                remove_at(fd, name)
        finally:
            os.close(fd)


def _layer_of(data: bytes) -> Layer | None:
    try:
        return Layer.from_json(data)
    except (ValueError, TypeError, KeyError):
        return None


def layer_name(diff_id: str) -> str:
    return hexadecimal(diff_id)[:24]


def layer_id(text: str) -> str:
    """In place of a diffID, for a layer that no tar describes."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
