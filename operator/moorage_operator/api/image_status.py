"""What an Image turned out to be, and which nodes have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from moorage_operator.api.condition import Conditions
from moorage_operator.api.scalars import MAX_LINE, Bytes, Count, Digest, Label, Line, Message, Word
from moorage_operator.api.schema import Model, atomic_list, list_map, text

MAX_TEXT: Final = 4096
MAX_TEXTS: Final = 512
MAX_PORTS: Final = 128
MAX_LABELS: Final = 256
MAX_PLATFORMS: Final = 64
MAX_LAYERS: Final = 256
MAX_FAILURES: Final = 16


class LayerStatus(Model):
    """One layer of the image."""

    digest: Digest
    """Digest of the layer."""

    size: Bytes | None = None
    """Compressed size in bytes."""


Text = Annotated[str, text(MAX_TEXT, least=0)]
Texts = Annotated[tuple[Text, ...], atomic_list(MAX_TEXTS)]


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

    ports: Annotated[tuple[Line, ...], atomic_list(MAX_PORTS)] = ()
    """Ports the image says it listens on, such as 80/tcp."""

    volumes: Texts = ()
    """Paths the image wants volumes for."""

    stop_signal: Line | None = None
    """Signal that asks the process to end."""

    healthcheck: ImageHealthcheck | None = None
    """The check that comes with the image."""

    labels: Annotated[Mapping[Annotated[str, Field(max_length=MAX_LINE)], Text], Field(max_length=MAX_LABELS)] = Field(default_factory=dict)
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
    """The platform of what it was resolved to."""

    asked_platform: Line | None = None
    """The platform that spec asked for then."""

    platforms: Annotated[tuple[Line, ...], atomic_list(MAX_PLATFORMS)] = ()
    """All platforms the reference offers."""

    size: Line | None = None
    """Compressed size, such as 31Mi."""

    size_bytes: Bytes | None = None
    """Compressed size in bytes."""

    layer_count: Count | None = None
    """Number of layers."""

    layers: Annotated[tuple[LayerStatus, ...], atomic_list(MAX_LAYERS)] = ()
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

    failures: Annotated[tuple[PullFailure, ...], list_map("node", most=MAX_FAILURES)] = ()
    """The last nodes that could not fetch it."""

    progress: Progress | None = None
    """Bytes fetched, over all nodes that are fetching."""

    conditions: Conditions = ()
    """Ready: resolved, and no node that wants it failed. Stalled: only a person can help. UpdateAvailable: the tag moved."""
