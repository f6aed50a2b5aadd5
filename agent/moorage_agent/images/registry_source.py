"""An image in a registry, as a place of blobs that keeps what it was given by digest."""

from __future__ import annotations

from moorage_agent.errors import ImageError
from moorage_agent.images.content import Content, content_of, verified
from moorage_agent.images.digest import digest_of
from moorage_agent.images.fetch import LayerSource, Pieces
from moorage_agent.images.manifest import Descriptor
from moorage_agent.images.platforms import Platform
from moorage_agent.images.reference import Reference
from moorage_agent.images.registry import Registry
from moorage_agent.images.store import ImageStore


class RegistrySource:
    """What was resolved is not asked for again when it is pulled: registries count manifests."""

    def __init__(self, reference: Reference, registry: Registry, store: ImageStore) -> None:
        self._reference, self._registry, self._store = reference, registry, store

    def content(self, wanted: Platform) -> Content:
        """What the reference means for `wanted`. Raises ImageError, Interrupted."""
        body, media_type = self._named(self._reference)
        return content_of(body, media_type, wanted, self, of=f"image {self._reference}")

    def manifest(self, descriptor: Descriptor) -> bytes:
        kept = self._store.blob(descriptor.digest)
        if kept is None:
            body, _ = self._registry.manifest(descriptor.digest)
            kept = self._keep(verified(body, descriptor, what=f"the manifest of {self._reference}"))
        return kept

    def config(self, descriptor: Descriptor) -> bytes:
        kept = self._store.blob(descriptor.digest)
        if kept is None:
            body = self._registry.blob(descriptor, of=f"the configuration of {self._reference}")
            kept = self._keep(verified(body, descriptor, what=f"the configuration of {self._reference}"))
        return kept

    def layer(self, descriptor: Descriptor, diff_id: str) -> LayerSource:
        def opened(start: int) -> Pieces:
            return self._registry.layer(descriptor, start)

        return LayerSource(diff_id, descriptor.digest, descriptor.size, opened)

    def _named(self, reference: Reference) -> tuple[bytes, str | None]:
        """The manifest or index a tag or digest stands for."""
        kept = self._store.blob(reference.digest) if reference.digest else None
        if kept is not None:
            return kept, None
        body, media_type = self._registry.manifest(reference.version)
        if reference.digest not in (None, digest_of(body)):
            raise ImageError("DigestMismatch", f"the registry gave another manifest for {reference}; nothing of it was kept", 60)
        return self._keep(body), media_type

    def _keep(self, data: bytes) -> bytes:
        self._store.keep_blob(data)
        return data
