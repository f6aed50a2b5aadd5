"""Manifests and indexes, OCI's and Docker's. Pure: bytes in, checked values out; whatever is malformed is an ImageError(InvalidImage).

Sources: opencontainers/image-spec manifest.md, image-index.md, descriptor.md; distribution/docs/spec/manifest-v2-2.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from moorage_agent.errors import ImageError
from moorage_agent.images.digest import checked
from moorage_agent.images.platforms import Platform

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPTED = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)
MAX_BYTES = 4 * 1024 * 1024
MAX_LAYERS = 127

_CONFIGS = {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
_LAYERS = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.container.image.rootfs.diff",
)
_MAX_ENTRIES = 1000
_MAX_SIZE = 1 << 50


@dataclass(frozen=True)
class Descriptor:
    media_type: str
    digest: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """One platform's image. `layers` lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True)
class Index:
    """Manifests per platform, and nested indexes (platform None), without what cannot run: attestations and unknown types."""

    entries: tuple[tuple[Platform | None, Descriptor], ...]


def parse_manifest(body: bytes, media_type: str | None, *, of: str) -> Manifest | Index:
    """`media_type` is what the registry, or the descriptor that led here, said; None: it said nothing. `of` names the image in errors."""
    data = json_object(body, of=f"the manifest of {of}")
    kind = _kind(data, media_type, of=of)
    if "layers" in data and "manifests" in data:  # CVE-2021-41190: two readers would see two images
        raise ImageError("InvalidImage", f"the manifest of {of} holds both layers and manifests: it would mean two things; it was refused")
    return _index(data, of=of) if kind in (OCI_INDEX, DOCKER_LIST) else _manifest(data, of=of)


def json_object(body: bytes, *, of: str) -> dict[str, Any]:
    if len(body) > MAX_BYTES:
        raise ImageError("InvalidImage", f"{of} is larger than {MAX_BYTES >> 20} MiB")
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ImageError("InvalidImage", f"{of} is not JSON: {error or 'nested too deeply'}") from error
    if not isinstance(data, dict):
        raise ImageError("InvalidImage", f"{of} is not a JSON object")
    return data


def _kind(data: dict[str, Any], media_type: str | None, *, of: str) -> str:
    if data.get("schemaVersion") == 1:
        raise ImageError(
            "InvalidImage", f"{of} has a manifest of schema 1, which was retired in 2017; push the image again with a current tool"
        )
    if data.get("schemaVersion") != 2:
        raise ImageError("InvalidImage", f"{of} has a manifest of an unknown schema version: {str(data.get('schemaVersion'))[:40]}")
    inside = data.get("mediaType")
    outside = (media_type or "").split(";")[0].strip().lower()
    outside = outside if outside in ACCEPTED else ""  # registries answer with text/plain, application/json or nothing at all
    if inside is not None and outside and inside != outside:
        raise ImageError("InvalidImage", f"the manifest of {of} says it is {str(inside)[:80]}, the registry says {outside}; it was refused")
    kind = inside or outside or (OCI_INDEX if "manifests" in data else OCI_MANIFEST)
    if kind not in ACCEPTED:
        raise ImageError("InvalidImage", f"{of} is of the media type {str(kind)[:80]}, not a container image")
    return cast(str, kind)


def _index(data: dict[str, Any], *, of: str) -> Index:
    entries: list[tuple[Platform | None, Descriptor]] = []
    for item in _list(data, "manifests", of=of):
        descriptor = _descriptor(item, of=of)
        if descriptor.media_type in (OCI_INDEX, DOCKER_LIST):
            entries.append((None, descriptor))
        elif descriptor.media_type in (OCI_MANIFEST, DOCKER_MANIFEST) and (platform := _platform(item)) is not None:
            entries.append((platform, descriptor))
    return Index(tuple(entries))


def _platform(item: dict[str, Any]) -> Platform | None:
    """None for what only describes another manifest. buildx lists its attestations as platform unknown/unknown."""
    annotations = item.get("annotations")
    if isinstance(annotations, dict) and "vnd.docker.reference.type" in annotations:
        return None
    said = item.get("platform")
    if not isinstance(said, dict):
        return Platform("", "")  # an index of one image may leave it out; its configuration tells
    parts = [said.get(name) or "" for name in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) for part in parts) or parts[0] == "unknown":
        return None
    return Platform(*parts)


def _manifest(data: dict[str, Any], *, of: str) -> Manifest:
    if data.get("artifactType"):
        raise ImageError("InvalidImage", f"{of} is an artifact ({str(data['artifactType'])[:80]}), not a container image")
    config = _descriptor(data.get("config"), of=f"the configuration of {of}")
    if config.media_type not in _CONFIGS:
        raise ImageError("InvalidImage", f"{of} is not a container image: its configuration is {config.media_type[:80]}")
    layers = tuple(_layer(item, of=of) for item in _list(data, "layers", of=of))
    if len(layers) > MAX_LAYERS:
        raise ImageError("InvalidImage", f"{of} has {len(layers)} layers, more than the {MAX_LAYERS} allowed; squash it")
    return Manifest(config, layers)


def _layer(item: Any, *, of: str) -> Descriptor:
    descriptor = _descriptor(item, of=f"a layer of {of}")
    media_type = descriptor.media_type
    if "nondistributable" in media_type or "foreign" in media_type:
        raise ImageError("InvalidImage", f"{of} has a layer that registries do not carry ({media_type}): it must be rebuilt without it")
    if not media_type.startswith(_LAYERS):
        raise ImageError("InvalidImage", f"{of} has a layer of the media type {media_type[:80]}, which is no file system layer")
    return descriptor


def _descriptor(item: Any, *, of: str) -> Descriptor:
    if not isinstance(item, dict):
        raise ImageError("InvalidImage", f"{of} lacks a descriptor")
    size, media_type = item.get("size"), item.get("mediaType")
    if type(size) is not int or not 0 <= size <= _MAX_SIZE:
        raise ImageError("InvalidImage", f"{of} is described with the size {str(size)[:40]!r}")
    return Descriptor(media_type if isinstance(media_type, str) else "", checked(item.get("digest"), of=of), size)


def _list(data: dict[str, Any], name: str, *, of: str) -> list[Any]:
    value = data.get(name)
    if not isinstance(value, list):
        raise ImageError("InvalidImage", f"the manifest of {of} has no list of {name}")
    if len(value) > _MAX_ENTRIES:
        raise ImageError("InvalidImage", f"the manifest of {of} lists {len(value)} {name}, more than the {_MAX_ENTRIES} allowed")
    return value
