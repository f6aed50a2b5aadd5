"""Health checks: how a container shows that it works."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from moorage_operator.api.scalars import Argument, Duration, Port, Positive
from moorage_operator.api.schema import Model, atomic_list, rule, text


class ExecCheck(Model):
    """A command inside the container."""

    command: Annotated[tuple[Argument, ...], atomic_list(64, least=1)]
    """The command and its arguments, without a shell: ["sh", "-c", "..."] brings one. Healthy means it ends with 0."""


class HttpCheck(Model):
    """An HTTP request to the container."""

    port: Port
    """Port the container listens on."""

    path: Annotated[str, text(1024, rule("self.startsWith('/')", "write a path that begins with /, such as /healthz"))] = "/"
    """Path of the request. Healthy means an answer of 200 to 399."""


class TcpCheck(Model):
    """A connection to the container."""

    port: Port
    """Port the container listens on. Healthy means the connection is accepted."""


class Healthcheck(Model):
    """Tells whether the container works; replaces the image's own check. A task is Ready once healthy; an unhealthy one is restarted."""

    rules = (
        rule(
            "(has(self.exec) ? 1 : 0) + (has(self.http) ? 1 : 0) + (has(self.tcp) ? 1 : 0)"
            " + (has(self.disabled) && self.disabled ? 1 : 0) == 1",
            "exactly one of exec, http, tcp and disabled is needed: write for example http: {port: 8080, path: /healthz}",
        ),
    )

    exec: ExecCheck | None = None
    """Runs a command inside the container."""

    http: HttpCheck | None = None
    """Sends an HTTP GET to the container."""

    tcp: TcpCheck | None = None
    """Opens a connection to the container."""

    disabled: bool = False
    """True switches off the check that comes with the image."""

    interval: Positive = "30s"
    """Time between two checks."""

    timeout: Positive = "30s"
    """A check that takes longer has failed."""

    retries: Annotated[int, Field(ge=1, le=1000)] = 3
    """So many failures in a row make the container unhealthy."""

    start_period: Duration = "0s"
    """Failures within this time after the start, and within the first interval, do not count."""

    start_interval: Positive = "5s"
    """Most time between two checks until the first that passes; they begin after 250ms."""
