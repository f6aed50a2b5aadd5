"""What a source offers: one platform's image, verified down to its configuration, with its layers ready to be fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from moorage_agent.errors import ImageError
from moorage_agent.images.config import ConfigFile, parse_config
from moorage_agent.images.digest import digest_of
from moorage_agent.images.fetch import LayerSource
from moorage_agent.images.manifest import Descriptor, Index, Manifest, parse_manifest
from moorage_agent.images.platforms import Platform, choose, no_match, runs
from moorage_agent.protocol import Layer, ResolvedImage

_MAX_NESTING = 4


@dataclass(frozen=True)
class Content:
    """`layers` lowest first. `blobs`: digests of the manifest and configuration, where they were kept."""

    digest: str
    platform: Platform
    config: ConfigFile
    layers: tuple[LayerSource, ...]
    platforms: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return self.config.diff_ids

    def resolved(self) -> ResolvedImage:
        layers = tuple(Layer(layer.digest or layer.diff_id, layer.size) for layer in self.layers)
        return ResolvedImage(
            digest=self.digest,
            platform=str(self.platform),
            size=sum(layer.size for layer in layers),
            config=self.config.config,
            layers=layers,
            platforms=self.platforms or (str(self.platform),),
        )


class Blobs(Protocol):
    """Where manifests, configurations and layers are had from. Errors: ImageError, Interrupted."""

    def manifest(self, descriptor: Descriptor) -> bytes: ...

    def config(self, descriptor: Descriptor) -> bytes: ...

    def layer(self, descriptor: Descriptor, diff_id: str) -> LayerSource: ...


def content_of(body: bytes, media_type: str | None, wanted: Platform, blobs: Blobs, *, of: str) -> Content:
    """From the manifest or index `body`, through indexes, down to the image for `wanted`."""
    platforms: tuple[str, ...] = ()
    for _ in range(_MAX_NESTING):
        parsed = parse_manifest(body, media_type, of=of)
        if isinstance(parsed, Manifest):
            return _content(parsed, digest_of(body), wanted, blobs, platforms, of=of)
        platforms = platforms or tuple(sorted({str(platform) for platform, _ in parsed.entries if platform and platform.os}))
        descriptor = chosen(parsed, wanted, of=of)
        body, media_type = blobs.manifest(descriptor), descriptor.media_type
    raise ImageError("InvalidImage", f"{of} is an index of indexes, nested deeper than {_MAX_NESTING}")


def chosen(index: Index, wanted: Platform, *, of: str) -> Descriptor:
    """The entry for `wanted`; where none says for what it is, the first that may be."""
    told = [(platform, descriptor) for platform, descriptor in index.entries if platform is not None and platform.os]
    silent = [descriptor for platform, descriptor in index.entries if platform is None or not platform.os]
    if not told and silent:
        return silent[0]
    return choose(wanted, told, of=of)


def verified(data: bytes, descriptor: Descriptor, *, what: str) -> bytes:
    """Raises ImageError(DigestMismatch) unless `data` is what the descriptor names."""
    if len(data) != descriptor.size or digest_of(data) != descriptor.digest:
        raise ImageError("DigestMismatch", f"{what} is not what its digest {descriptor.digest} says; nothing of it was kept", 60)
    return data


def _content(manifest: Manifest, digest: str, wanted: Platform, blobs: Blobs, platforms: tuple[str, ...], *, of: str) -> Content:
    config = parse_config(blobs.config(manifest.config), of=of)
    platform = fitting(config, wanted, of=of)
    layers = tuple(blobs.layer(descriptor, diff_id) for descriptor, diff_id in paired(manifest.layers, config, of=of))
    return Content(digest, platform, config, layers, platforms, (digest, manifest.config.digest))


def paired(descriptors: Sequence[Descriptor], config: ConfigFile, *, of: str) -> list[tuple[Descriptor, str]]:
    """Each layer's blob with its diffID. Raises ImageError(InvalidImage) when they are not as many."""
    if len(descriptors) != len(config.diff_ids):
        raise ImageError("InvalidImage", f"{of} has {len(descriptors)} layers, but its configuration names {len(config.diff_ids)}")
    if not descriptors:
        raise ImageError("InvalidImage", f"{of} has no layers: there is nothing in it to run")
    return list(zip(descriptors, config.diff_ids))


def fitting(config: ConfigFile, wanted: Platform, *, of: str) -> Platform:
    """The platform the image is for. Raises ImageError(NoMatchingPlatform). One that does not say is taken at its user's word."""
    offered = config.platform
    if not offered.architecture:
        return wanted
    if runs(wanted, offered) is None:
        raise no_match(wanted, [offered], of=of)
    return offered
