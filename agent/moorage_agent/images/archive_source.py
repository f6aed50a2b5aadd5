"""An image in a file: an OCI layout, what `docker save` writes, or a root file system as `docker export` and `tar` write it.

The digest of the image is its manifest's for an OCI layout, its configuration's for older `docker save`, and for a root file system
that of a configuration made from nothing but the tar: the same files give the same digest on every host.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Callable

from moorage_agent.errors import ImageError
from moorage_agent.images.archive_file import ArchiveFile, Member
from moorage_agent.images.config import parse_config, rootfs_config
from moorage_agent.images.content import Content, fitting
from moorage_agent.images.digest import digest_of
from moorage_agent.images.fetch import LayerSource, Pieces
from moorage_agent.images.manifest import MAX_BYTES
from moorage_agent.images.oci_layout import OciLayout
from moorage_agent.images.platforms import Platform


class ArchiveSource:
    """`archive` is not compressed. `reference` chooses among several images in it."""

    def __init__(self, archive: ArchiveFile, reference: str | None = None) -> None:
        self._archive, self._reference = archive, reference

    def content(self, wanted: Platform) -> Content:
        """Raises ImageError."""
        layout = OciLayout(self._archive)
        if layout.present:  # first: newer `docker save` writes both
            return layout.content(wanted, self._reference)
        saved = self._docker_manifest()
        return self._rootfs(wanted) if saved is None else self._docker(saved, wanted)

    def _docker_manifest(self) -> list[dict[str, Any]] | None:
        """None when the archive is none of docker's: a root file system may hold a file of that name."""
        body = self._archive.read("manifest.json", MAX_BYTES)
        try:
            saved = json.loads(body or b"null")
        except (ValueError, RecursionError):
            return None
        right = isinstance(saved, list) and saved and all(isinstance(image, dict) and "Config" in image for image in saved)
        return saved if right else None

    def _docker(self, saved: list[dict[str, Any]], wanted: Platform) -> Content:
        of = f"the archive {self._archive.name}"
        images = [image for image in saved if self._reference is None or self._reference in (image.get("RepoTags") or ())]
        if len(images) != 1:
            what = f"{len(images)} images" + (f" called {self._reference}" if self._reference else "")
            raise ImageError("InvalidImage", f"{of} holds {what}; say which by `reference`, or save one alone")
        body = self._archive.read(_text(images[0].get("Config"), of=of), MAX_BYTES)
        if body is None:
            raise ImageError("InvalidImage", f"{of} lacks the configuration its manifest.json names")
        config = parse_config(body, of=of)
        names = images[0].get("Layers")
        if not isinstance(names, list) or len(names) != len(config.diff_ids) or not names:
            raise ImageError("InvalidImage", f"{of} names other layers in its manifest.json than in its configuration")
        layers = tuple(self._layer(_text(name, of=of), diff_id) for name, diff_id in zip(names, config.diff_ids))
        return Content(digest_of(body), fitting(config, wanted, of=of), config, layers)

    def _layer(self, name: str, diff_id: str) -> LayerSource:
        member = self._archive.find(name)
        if member is None:
            raise ImageError("InvalidImage", f"the archive {self._archive.name} lacks the layer {name[:120]!r}")
        return LayerSource(diff_id, None, member.size, self._opener(member), local=True)

    def _rootfs(self, wanted: Platform) -> Content:
        hashed = hashlib.sha256()
        for chunk in self._archive.bytes_from(0):
            hashed.update(chunk)
        diff_id = "sha256:" + hashed.hexdigest()
        body = rootfs_config(diff_id)
        layer = LayerSource(diff_id, diff_id, self._archive.size, self._opener(Member(0, self._archive.size, None)), local=True)
        return Content(digest_of(body), wanted, parse_config(body, of=self._archive.name), (layer,))

    def _opener(self, member: Member) -> Callable[[int], Pieces]:
        def opened(start: int) -> Pieces:
            return self._archive.content(member, start)

        return opened


def _text(value: Any, *, of: str) -> str:
    if not isinstance(value, str):
        raise ImageError("InvalidImage", f"{of} has a malformed manifest.json")
    return value
