"""Image: a package of code, libraries and configuration, and where the swarm has it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from moorage_operator.api.image_status import ImageStatus
from moorage_operator.api.meta import KeyRef, Labels, LocalRef, ObjectMeta
from moorage_operator.api.resource import Column, Kind, Resource
from moorage_operator.api.scalars import AbsolutePath, ImageReference, Positive
from moorage_operator.api.schema import Model, one_of, rule, text

Platform = Annotated[
    str, text(64, rule("self.matches('^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?$')", "write operating system and processor, such as linux/amd64"))
]


class Refresh(Model):
    """Looks again at what a tag means."""

    interval: Positive
    """Time between two looks."""

    rollout: Literal["Manual", "Auto"] = "Manual"
    """Auto: a new digest replaces the tasks that use the Image. Manual: the status shows it and nothing else happens."""


class RegistrySource(Model):
    """An image in a registry."""

    reference: ImageReference
    """Such as registry.example/app:1.2, or with @sha256:... for one that never changes."""

    pull_secret_ref: LocalRef | None = None
    """Secret of type kubernetes.io/dockerconfigjson with the registry's credentials."""

    platform: Platform | None = None
    """Such as linux/amd64. Absent: the platform of the node."""

    insecure: bool = False
    """True allows plain HTTP, and certificates that nobody vouches for."""

    ca_bundle: KeyRef | None = None
    """ConfigMap and key with the certificates, in PEM, that vouch for the registry."""

    refresh: Refresh | None = None
    """Looks again at what the tag means. Absent: the tag is resolved once."""


class NodePathSource(Model):
    """An archive on the disk of a node."""

    node_ref: LocalRef
    """The Node that has the file."""

    path: AbsolutePath
    """Path of the archive on that host."""


class ArchiveSource(Model):
    """A tar archive: docker save, OCI layout, or a plain root file system."""

    rules = (
        one_of("url", "nodePath", "configMapRef", hint="write for example url: https://files.example/app.tar"),
        rule("!has(self.sha256) || has(self.url)", "sha256 belongs to url", field=".sha256"),
        rule(
            "!has(self.url) || self.url.startsWith('https://') || has(self.sha256)",
            "over http:// nobody vouches for the archive: write its sha256, or an https:// URL",
            field=".url",
        ),
    )

    url: (
        Annotated[
            str,
            text(2048, rule("isURL(self) && (self.startsWith('https://') || self.startsWith('http://'))", "write an http or https URL")),
        ]
        | None
    ) = None
    """Where hosts fetch the archive. With http:// its sha256 is needed."""

    sha256: Annotated[str, text(64, rule("self.matches('^[0-9a-f]{64}$')", "write 64 hex digits, as sha256sum prints them"))] | None = None
    """Checksum of the archive at url."""

    node_path: NodePathSource | None = None
    """A file on a node. Refused in namespaces that enforce the baseline policy."""

    config_map_ref: KeyRef | None = None
    """A small archive in a ConfigMap's binaryData."""


class Prefetch(Model):
    """Brings the image to nodes before a task needs it."""

    node_selector: Labels = Field(default_factory=dict)
    """Labels of the nodes. Empty: all nodes."""


class ImageSpec(Model):
    """Where the image comes from."""

    rules = (one_of("registry", "archive", hint="write for example registry: {reference: registry.example/app:1.2}"),)

    registry: RegistrySource | None = None
    """An image in a registry."""

    archive: ArchiveSource | None = None
    """A tar archive."""

    prefetch: Prefetch | None = None
    """Brings the image to nodes before a task needs it. Absent: nodes fetch it when a task is placed on them."""


class Image(Resource):
    """A package of code, libraries and configuration that tasks run."""

    KIND: ClassVar[Kind] = Kind(
        name="Image",
        plural="swarmimages",
        short="simg",
        columns=(
            Column("Digest", ".status.shortDigest"),
            Column("Size", ".status.size"),
            Column("Layers", ".status.layerCount", type="integer"),
            Column("Nodes", ".status.nodesReady"),
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', wide=True),
        ),
    )

    metadata: ObjectMeta
    spec: ImageSpec
    """Where the image comes from."""

    status: ImageStatus = ImageStatus()
    """What the image is, and which nodes have it."""
