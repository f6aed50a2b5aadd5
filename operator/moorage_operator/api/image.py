"""Image: a package of code, libraries and configuration, and where the swarm has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .condition import Conditions
from .meta import KeyRef, Labels, LocalRef, ObjectMeta
from .resource import Column, Kind, Resource
from .scalars import AbsolutePath, Bytes, Count, Digest, ImageReference, Label, Line, Message, Positive, Word
from .schema import Model, atomic_list, list_map, one_of, rule, text

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
    )

    url: (
        Annotated[
            str,
            text(2048, rule("isURL(self) && (self.startsWith('https://') || self.startsWith('http://'))", "write an http or https URL")),
        ]
        | None
    ) = None
    """Where hosts fetch the archive."""

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


class LayerStatus(Model):
    """One layer of the image."""

    digest: Digest
    """Digest of the layer."""

    size: Bytes | None = None
    """Compressed size in bytes."""


Text = Annotated[str, text(4096, least=0)]
Texts = Annotated[tuple[Text, ...], atomic_list(512)]


class ImageHealthcheck(Model):
    """The check that comes with the image."""

    command: Texts = ()
    """The command, as the image has it."""

    interval: Line | None = None
    """Time between two checks."""

    timeout: Line | None = None
    """A check that takes longer has failed."""

    retries: Count | None = None
    """So many failures in a row make the container unhealthy."""

    start_period: Line | None = None
    """Failures within this time after the start do not count."""


class ImageConfig(Model):
    """What the image says about how to run it."""

    entrypoint: Texts = ()
    """The program."""

    command: Texts = ()
    """Default arguments."""

    env: Texts = ()
    """Variables, as NAME=value."""

    user: Line | None = None
    """User of the process."""

    working_dir: Text | None = None
    """Directory in which the process starts."""

    ports: Annotated[tuple[Line, ...], atomic_list(128)] = ()
    """Ports the image says it listens on, such as 80/tcp."""

    volumes: Texts = ()
    """Paths the image wants volumes for."""

    stop_signal: Line | None = None
    """Signal that asks the process to end."""

    healthcheck: ImageHealthcheck | None = None
    """The check that comes with the image."""

    labels: Annotated[Mapping[Annotated[str, Field(max_length=256)], Text], Field(max_length=256)] = Field(default_factory=dict)
    """Labels of the image."""


class NodeCounts(Model):
    """How many nodes have the image."""

    wanted: Count | None = None
    """Nodes that should have it."""

    ready: Count | None = None
    """Nodes that have it."""

    pulling: Count | None = None
    """Nodes that are fetching it."""

    failed: Count | None = None
    """Nodes that could not."""


class PullFailure(Model):
    """A node that could not fetch the image."""

    node: Label
    """The Node."""

    reason: Word | None = None
    """Why, as one word."""

    message: Message | None = None
    """Why, and what to do about it."""


class Progress(Model):
    """Bytes fetched, over all nodes that are fetching."""

    done: Bytes | None = None
    """Compressed bytes there."""

    total: Bytes | None = None
    """Compressed bytes in all."""


class ImageStatus(Model):
    """What the image is, and which nodes have it."""

    observed_generation: Count | None = None
    """The metadata.generation this status speaks of."""

    reference: Annotated[str, text(2048, least=0)] | None = None
    """What digest was resolved from: another one in spec is resolved anew."""

    digest: Digest | None = None
    """What the reference means: all nodes run exactly this."""

    short_digest: Line | None = None
    """The first twelve hex digits of it, for people."""

    platform: Line | None = None
    """The platform it was resolved for."""

    platforms: Annotated[tuple[Line, ...], atomic_list(64)] = ()
    """All platforms the reference offers."""

    size: Line | None = None
    """Compressed size, such as 31Mi."""

    size_bytes: Bytes | None = None
    """Compressed size in bytes."""

    layer_count: Count | None = None
    """Number of layers."""

    layers: Annotated[tuple[LayerStatus, ...], atomic_list(256)] = ()
    """The layers, lowest first."""

    config: ImageConfig | None = None
    """What the image says about how to run it."""

    resolved_at: Annotated[str, text(64)] | None = None
    """When the reference was last looked at."""

    available_digest: Digest | None = None
    """What the tag means now, where refresh found something else and rollout is Manual."""

    nodes: NodeCounts | None = None
    """How many nodes have it."""

    nodes_ready: Line | None = None
    """Nodes that have it and nodes that should, such as 3/4."""

    failures: Annotated[tuple[PullFailure, ...], list_map("node", most=16)] = ()
    """The last nodes that could not fetch it."""

    progress: Progress | None = None
    """Bytes fetched, over all nodes that are fetching."""

    conditions: Conditions = ()
    """Ready: resolved, and no node that wants it failed. Stalled: only a person can help."""


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
