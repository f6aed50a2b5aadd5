"""An image in a registry: from a tag or digest down to one platform's verified configuration."""

from __future__ import annotations

from collections.abc import Iterator

from moorage_agent.errors import ImageError
from moorage_agent.images.config import parse_config
from moorage_agent.images.content import Content, fitting, paired
from moorage_agent.images.digest import digest_of
from moorage_agent.images.fetch import LayerSource
from moorage_agent.images.manifest import Descriptor, Index, Manifest, parse_manifest
from moorage_agent.images.platforms import Platform, choose
from moorage_agent.images.reference import Reference
from moorage_agent.images.registry import Registry
from moorage_agent.images.store import ImageStore

_MAX_NESTING = 4


class RegistrySource:
    """Manifests and configurations are kept in the store by digest: what was resolved is not asked for again when it is pulled."""

    def __init__(self, reference: Reference, registry: Registry, store: ImageStore) -> None:
        self._reference, self._registry, self._store = reference, registry, store

    def content(self, wanted: Platform) -> Content:
        """What the reference means for `wanted`. Raises ImageError, Interrupted."""
        body, media_type = self._manifest(self._reference.version)
        parsed = parse_manifest(body, media_type, of=str(self._reference))
        platforms: tuple[str, ...] = ()
        for _ in range(_MAX_NESTING):
            if isinstance(parsed, Manifest):
                return self._content(parsed, body, wanted, platforms)
            platforms = platforms or tuple(sorted({str(platform) for platform, _ in parsed.entries if platform and platform.os}))
            descriptor = self._chosen(parsed, wanted)
            body, _ = self._manifest(descriptor.digest)
            parsed = parse_manifest(body, descriptor.media_type, of=str(self._reference))
        raise ImageError("InvalidImage", f"{self._reference} is an index of indexes, nested deeper than {_MAX_NESTING}")

    def _chosen(self, index: Index, wanted: Platform) -> Descriptor:
        """The entry for `wanted`; where none says so, an entry that says nothing, then a nested index."""
        told = [(platform, descriptor) for platform, descriptor in index.entries if platform is not None and platform.os]
        untold = [descriptor for platform, descriptor in index.entries if platform is not None and not platform.os]
        nested = [descriptor for platform, descriptor in index.entries if platform is None]
        if not told and (untold or nested):
            return (untold or nested)[0]
        return choose(wanted, told, of=f"image {self._reference}")

    def _manifest(self, version: str) -> tuple[bytes, str | None]:
        """Verified, when it is asked for by digest."""
        digest = version if version.startswith("sha256:") else None
        kept = self._store.blob(digest) if digest else None
        if kept is not None:
            return kept, None
        body, media_type = self._registry.manifest(version)
        self._verified(body, digest, len(body), what="the manifest")
        self._store.keep_blob(body)
        return body, media_type

    def _content(self, manifest: Manifest, body: bytes, wanted: Platform, platforms: tuple[str, ...]) -> Content:
        of = str(self._reference)
        config_body = self._config(manifest.config)
        config = parse_config(config_body, of=of)
        platform = fitting(config, wanted, of=f"image {of}")
        layers = tuple(self._layer(descriptor, diff_id) for descriptor, diff_id in paired(manifest.layers, config, of=of))
        return Content(digest_of(body), platform, config, layers, platforms, (digest_of(body), manifest.config.digest))

    def _config(self, descriptor: Descriptor) -> bytes:
        kept = self._store.blob(descriptor.digest)
        if kept is None:
            kept = self._registry.blob(descriptor, of=f"the configuration of {self._reference}")
            self._verified(kept, descriptor.digest, descriptor.size, what="the configuration")
            self._store.keep_blob(kept)
        return kept

    def _layer(self, descriptor: Descriptor, diff_id: str) -> LayerSource:
        def opened(start: int) -> Iterator[bytes]:
            return self._registry.layer(descriptor, start)

        return LayerSource(diff_id, descriptor.digest, descriptor.size, opened)

    def _verified(self, data: bytes, digest: str | None, size: int, *, what: str) -> None:
        if digest is not None and (digest_of(data) != digest or len(data) != size):
            raise ImageError(
                "DigestMismatch", f"{what} of {self._reference} is not what its digest {digest} says; nothing of it was kept", 60
            )
