"""An OCI image layout inside an archive: index.json, and blobs by digest. Since Docker 25 `docker save` writes one, too.

Source: opencontainers/image-spec image-layout.md. Archives of images for several platforms may lack the blobs of all but one: only what is
wanted must be there.
"""

from __future__ import annotations

import json
from typing import Any

from moorage_agent.errors import ImageError
from moorage_agent.images.archive_file import ArchiveFile, Member
from moorage_agent.images.content import Content, chosen, content_of, verified
from moorage_agent.images.digest import hexadecimal
from moorage_agent.images.fetch import LayerSource, Pieces
from moorage_agent.images.manifest import MAX_BYTES, Descriptor, Index, json_object, parse_manifest
from moorage_agent.images.platforms import Platform

_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class OciLayout:
    def __init__(self, archive: ArchiveFile) -> None:
        self._archive = archive

    @property
    def present(self) -> bool:
        return self._archive.find("oci-layout") is not None and self._archive.find("index.json") is not None

    def content(self, wanted: Platform, reference: str | None) -> Content:
        """Of the only image, or the one called `reference`."""
        of = f"the archive {self._archive.name}"
        body = self._archive.read("index.json", MAX_BYTES) or b""
        data = json_object(body, of=f"index.json of {of}")
        if reference is not None and isinstance(data.get("manifests"), list):
            data["manifests"] = [entry for entry in data["manifests"] if reference in _names(entry)]
        index = parse_manifest(json.dumps(data).encode(), None, of=of)
        if not isinstance(index, Index) or not index.entries:
            raise ImageError("InvalidImage", f"{of} holds no image" + (f" called {reference}" if reference else ""))
        silent = {descriptor.digest for platform, descriptor in index.entries if platform is None or not platform.os}
        if len(silent) > 1:
            raise ImageError("InvalidImage", f"{of} holds {len(silent)} images; say which by `reference`, or save one alone")
        descriptor = chosen(index, wanted, of=of)
        return content_of(self.manifest(descriptor), descriptor.media_type, wanted, self, of=of)

    def manifest(self, descriptor: Descriptor) -> bytes:
        return self._small(descriptor)

    def config(self, descriptor: Descriptor) -> bytes:
        return self._small(descriptor)

    def layer(self, descriptor: Descriptor, diff_id: str) -> LayerSource:
        member = self._member(descriptor)
        if member.size != descriptor.size:
            raise ImageError(
                "InvalidImage", f"layer {descriptor.digest} in {self._archive.name} has {member.size} bytes, not {descriptor.size}"
            )

        def opened(start: int) -> Pieces:
            return self._archive.content(member, start)

        return LayerSource(diff_id, descriptor.digest, descriptor.size, opened, local=True)

    def _small(self, descriptor: Descriptor) -> bytes:
        self._member(descriptor)
        data = self._archive.read(f"blobs/sha256/{hexadecimal(descriptor.digest)}", MAX_BYTES) or b""
        return verified(data, descriptor, what=f"a blob of {self._archive.name}")

    def _member(self, descriptor: Descriptor) -> Member:
        member = self._archive.find(f"blobs/sha256/{hexadecimal(descriptor.digest)}")
        if member is None:
            why = "archives of images for several platforms often hold one platform only: save the wanted one"
            raise ImageError("InvalidImage", f"{self._archive.name} lacks the blob {descriptor.digest}; {why}")
        return member


def _names(entry: Any) -> list[Any]:
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    return [annotations.get(name) for name in _NAMES] if isinstance(annotations, dict) else []
