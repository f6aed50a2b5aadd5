"""What a source offers: one platform's image, verified down to its configuration, with its layers ready to be fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moorage_agent.errors import ImageError
from moorage_agent.images.config import ConfigFile
from moorage_agent.images.fetch import LayerSource
from moorage_agent.images.manifest import Descriptor
from moorage_agent.images.platforms import Platform, no_match, runs
from moorage_agent.protocol import Layer, ResolvedImage


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
        layers = tuple(Layer(layer.digest, layer.size) for layer in self.layers)
        return ResolvedImage(
            digest=self.digest,
            platform=str(self.platform),
            size=sum(layer.size for layer in layers),
            config=self.config.config,
            layers=layers,
            platforms=self.platforms or (str(self.platform),),
        )


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
