"""What one container of a Service is, in the rich form that users write; plan/container.py compiles it for the agent."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from moorage_operator.api.env import EnvFrom, EnvVar
from moorage_operator.api.files import ConfigFile, Mount, SecretFile
from moorage_operator.api.health import Healthcheck
from moorage_operator.api.meta import LocalRef
from moorage_operator.api.resources import Resources
from moorage_operator.api.scalars import AbsolutePath, Argument, Duration, ImageReference, Memory, Positive
from moorage_operator.api.schema import Model, atomic_list, list_map, one_of, rule, set_list, text
from moorage_operator.api.security import Security


class LogLimits(Model):
    """How much of a task's output is kept on its host."""

    max_size: Memory = "10Mi"
    """Size of one file."""

    max_files: Annotated[int, Field(ge=1, le=100)] = 3
    """How many files."""


class Restart(Model):
    """What the host does when the container ends. It needs no operator for that."""

    rules = (
        rule("!has(self.window) || has(self.maxAttempts)", "window counts attempts: give maxAttempts too"),
        rule(
            "!has(self.delay) || !self.delay.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')"
            " || !has(self.maxDelay) || !self.maxDelay.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')"
            " || duration(self.delay) <= duration(self.maxDelay)",
            "delay must not be above maxDelay",
        ),
    )

    condition: Literal["Any", "OnFailure", "None"] = "Any"
    """Any: always. OnFailure: unless it ended with 0. None: never."""

    delay: Duration = "1s"
    """Wait before the first restart; doubles with each further one."""

    max_delay: Duration = "5m"
    """The wait grows no longer than this. It starts anew after a minute of stable running."""

    max_attempts: Annotated[int, Field(ge=0, le=100000)] | None = None
    """After so many restarts of a slot in one version it stays Failed. Absent: no limit."""

    window: Positive | None = None
    """Only restarts within this time count for maxAttempts. Absent: all count."""


class TaskTemplate(Model):
    """One container: each task of the Service runs it."""

    rules = (
        one_of("image", "imageRef", hint="write image: registry.example/app:1.2, or imageRef: {name: ...} for an Image of this namespace"),
    )

    image: ImageReference | None = None
    """Image in a registry, such as registry.example/app:1.2. The tag is resolved once; an Image object of this Service keeps the digest."""

    image_ref: LocalRef | None = None
    """An Image of this namespace: for private registries, archives, and images that several Services share."""

    command: Annotated[tuple[Argument, ...], atomic_list(256, least=1)] | None = None
    """Replaces the image's entrypoint, and its default arguments with it."""

    args: Annotated[tuple[Argument, ...], atomic_list(256)] | None = None
    """Replaces the image's default arguments."""

    env: Annotated[tuple[EnvVar, ...], list_map("name", most=400)] = ()
    """Environment variables, beyond those of the image."""

    env_from: Annotated[tuple[EnvFrom, ...], atomic_list(16)] = ()
    """Whole Secrets and ConfigMaps as variables. Later ones win."""

    working_dir: AbsolutePath | None = None
    """Directory in which the process starts. Absent: the image's."""

    user: (
        Annotated[
            str,
            text(
                128, rule("self.matches('^[^:[:space:]]+(:[^:[:space:]]+)?$')", 'write a user, quoted: "1000", "1000:1000" or "app:staff"')
            ),
        ]
        | None
    ) = None
    """User and group of the process, by number or by name in the image. Absent: the image's."""

    groups: Annotated[tuple[Annotated[str, text(64)], ...], set_list(32)] = ()
    """Further groups of the process, by number (quoted) or by name in the image."""

    hostname: (
        Annotated[
            str,
            text(
                128,
                rule(
                    "self.contains('{{') || self.matches('^[a-zA-Z0-9]([-.a-zA-Z0-9]*[a-zA-Z0-9])?$')",
                    "write a host name such as web-1, or with a template: web-{{.Task.Slot}}",
                ),
            ),
        ]
        | None
    ) = None
    """Host name of the container; may hold templates such as web-{{.Task.Slot}}. Absent: the name of the task."""

    tty: bool = False
    """Gives the process a terminal."""

    stdin: bool = False
    """No effect yet: standard input is empty, or the terminal that tty gives."""

    init: bool = False
    """Runs a small init as process 1 that forwards signals and reaps orphans."""

    read_only: bool = False
    """Forbids writing outside of mounts."""

    stop_signal: (
        Annotated[str, text(16, rule("self.matches('^SIG[A-Z0-9]+([+-][0-9]+)?$')", "write a signal by its name, such as SIGQUIT"))] | None
    ) = None
    """Signal that asks the process to end. Absent: the image's, or SIGTERM."""

    stop_grace_period: Duration = "10s"
    """After this time the process is killed."""

    healthcheck: Healthcheck | None = None
    """Tells whether the container works. Absent: the image's own check."""

    mounts: Annotated[tuple[Mount, ...], list_map("target", most=64)] = ()
    """Volumes, paths of the host and memory, mounted into the container."""

    secrets: Annotated[tuple[SecretFile, ...], list_map("target", most=64)] = ()
    """Secrets as files in memory."""

    configs: Annotated[tuple[ConfigFile, ...], list_map("target", most=64)] = ()
    """Entries of ConfigMaps as files."""

    resources: Resources = Resources()
    """What a task may use, and what a node must have free for it."""

    security: Security = Security()
    """Rights of the container."""

    logs: LogLimits = LogLimits()
    """How much output is kept."""

    restart: Restart = Restart()
    """What happens when the container ends."""
