"""Names and places of images: the Image that a bare reference makes, and what the agent is told about where an image comes from."""

from __future__ import annotations

import hashlib

from moorage_agent.protocol import ImageSource

from moorage_operator.api import Image
from moorage_operator.api.image import ArchiveSource, RegistrySource
from moorage_operator.errors import InvalidSpec


def owned_image_name(service: str, reference: str) -> str:
    """The Image that a Service's bare `image:` creates and owns.

    Each reference has its own, so that tasks of the previous version keep the source of theirs during an update, and going back to it
    finds the digest that was in use.
    """
    return f"{service}-{hashlib.sha256(reference.encode()).hexdigest()[:8]}"


def image_source(image: Image) -> ImageSource:
    """Raises InvalidSpec for an Image without a source, which the API server refuses."""
    namespace, spec = image.metadata.namespace, image.spec
    if spec.registry is not None:
        return _registry(namespace, spec.registry)
    if spec.archive is not None:
        return _archive(namespace, spec.archive)
    raise InvalidSpec(f"Image {image.metadata.name} has no source: write registry or archive")


def source_text(image: Image) -> str:
    """What was resolved, for status.reference: another text in spec means that the pin no longer holds."""
    source = image_source(image)
    return source.reference or source.url or source.path or source.key or ""


def home_constraint(image: Image) -> tuple[str, ...]:
    """An archive on the disk of one node can be had there only."""
    archive = image.spec.archive
    return () if archive is None or archive.node_path is None else (f"node.name == {archive.node_path.node_ref.name}",)


def repository_of(reference: str) -> str:
    """Host and path of a reference, without tag and digest: one Secret may hold credentials for many registries."""
    bare = reference.partition("@")[0]
    head, _, last = bare.rpartition("/")
    return f"{head}/{last.partition(':')[0]}" if head else last.partition(":")[0]


def _registry(namespace: str, registry: RegistrySource) -> ImageSource:
    bundle, secret = registry.ca_bundle, registry.pull_secret_ref
    return ImageSource(
        kind="Registry",
        reference=registry.reference,
        credentials=None if secret is None else f"pull/{namespace}/{secret.name}/{repository_of(registry.reference)}",
        ca_bundle=None if bundle is None else f"ca/{namespace}/{bundle.name}/{bundle.key}",
        insecure=registry.insecure,
        platform=registry.platform,
    )


def _archive(namespace: str, archive: ArchiveSource) -> ImageSource:
    if archive.url is not None:
        return ImageSource(kind="ArchiveUrl", url=archive.url, sha256=archive.sha256)
    if archive.node_path is not None:
        return ImageSource(kind="ArchivePath", path=archive.node_path.path)
    if archive.config_map_ref is not None:
        return ImageSource(kind="ArchiveData", key=f"config/{namespace}/{archive.config_map_ref.name}/{archive.config_map_ref.key}")
    raise InvalidSpec("an archive has no source: write url, nodePath or configMapRef")
