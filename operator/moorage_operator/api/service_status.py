"""How a Service is."""

from __future__ import annotations

from typing import Annotated

from moorage_operator.api.condition import Conditions
from moorage_operator.api.scalars import Count, Line, Message, Time, Word
from moorage_operator.api.schema import Model, text


class UpdateStatus(Model):
    """How far the current update is."""

    state: Word | None = None
    """Updating, Paused or Completed."""

    message: Message | None = None
    """What it waits for, or why it paused."""

    version: Word | None = None
    """The version that is rolled out."""

    started_at: Time | None = None
    """When the update began."""

    completed_at: Time | None = None
    """When it ended."""


class ServiceStatus(Model):
    """What runs."""

    observed_generation: Count | None = None
    """The metadata.generation this status speaks of."""

    replicas: Count | None = None
    """Tasks there are."""

    ready_replicas: Count | None = None
    """Tasks that are ready."""

    updated_replicas: Count | None = None
    """Tasks of the current version."""

    desired_replicas: Count | None = None
    """Tasks there should be: replicas, or the eligible nodes of a Global service."""

    replicas_ready: Line | None = None
    """Ready and desired tasks as text, such as 2/3."""

    selector: Line | None = None
    """Label selector of the tasks, for autoscalers."""

    image: Annotated[str, text(600, least=0)] | None = None
    """The image in use, for people."""

    ports: Line | None = None
    """The ports, for people."""

    version: Word | None = None
    """Hash of the current version."""

    update: UpdateStatus | None = None
    """How far the current update is."""

    conditions: Conditions = ()
    """Ready: all desired tasks are. Progressing: something is being changed. Stalled: only a person can help."""
