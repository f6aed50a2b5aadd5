"""Who we are towards the API server: what goes into the Authorization header, and how it is kept fresh.

Nothing here shows its secret: not in repr, not in errors, not in logs.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import orjson

from moorage_operator.errors import CredentialsError
from moorage_operator.kube.clock import Clock

REREAD_S = 60.0
"""A mounted token is rotated when 80 % of its life (at least 10 min) is over; reading it once a minute is always in time."""

EARLY = timedelta(seconds=30)
PLUGIN_TIMEOUT_S = 60.0


class Identity(Protocol):
    async def authorization(self, *, refused: bool = False) -> str | None:
        """The header's value. `refused`: the last one was answered with 401, get another if there can be one."""


@dataclass(frozen=True)
class Fixed:
    """A header that never changes; None where a client certificate, or nothing, identifies us."""

    header: str | None = field(repr=False)

    async def authorization(self, *, refused: bool = False) -> str | None:  # noqa: ARG002 (there is no other)
        return self.header


def bearer(token: str) -> Fixed:
    return Fixed(f"Bearer {token}")


def basic(username: str, password: str) -> Fixed:
    return Fixed("Basic " + base64.b64encode(f"{username}:{password}".encode()).decode())


class TokenFile:
    """A token somebody else rotates in a file: a Pod's service account."""

    def __init__(self, path: str, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._header: str | None = None
        self._read_at = 0.0

    async def authorization(self, *, refused: bool = False) -> str | None:
        now = self._clock.monotonic()
        if refused or self._header is None or now - self._read_at >= REREAD_S:
            self._header, self._read_at = f"Bearer {self._read()}", now
        return self._header

    def _read(self) -> str:
        try:
            return Path(self._path).read_text(encoding="ascii").strip()
        except OSError as error:
            raise CredentialsError(f"cannot read the service account token {self._path}: {error.strerror}") from error


@dataclass(frozen=True)
class Command:
    """An exec plugin as the kubeconfig names it."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    api_version: str
    hint: str = ""


class ExecPlugin:
    """Credentials a command prints (client.authentication.k8s.io ExecCredential). A certificate goes to `on_certificate` as PEM."""

    def __init__(
        self, command: Command, *, clock: Clock, on_certificate: Callable[[str, str], None], cluster: Mapping[str, Any] | None = None
    ) -> None:
        self._command = command
        self._clock = clock
        self._on_certificate = on_certificate
        self._cluster = cluster
        self._header: str | None = None
        self._expires: datetime | None = None
        self._asked = False
        self._lock = asyncio.Lock()

    async def authorization(self, *, refused: bool = False) -> str | None:
        if refused or self._stale():
            async with self._lock:
                if refused or self._stale():
                    self._take(await self._ask())
        return self._header

    def _stale(self) -> bool:
        return not self._asked or (self._expires is not None and self._clock.now() >= self._expires - EARLY)

    def _take(self, status: Mapping[str, Any]) -> None:
        token, certificate, key = (status.get(name) for name in ("token", "clientCertificateData", "clientKeyData"))
        if not token and not certificate:
            raise CredentialsError(f"the credential plugin {self._command.argv[0]} printed neither a token nor a certificate")
        self._header = f"Bearer {token}" if token else None
        if certificate and key:
            self._on_certificate(certificate, key)
        expires = status.get("expirationTimestamp")
        self._expires = datetime.fromisoformat(expires) if expires else None
        self._asked = True

    async def _ask(self) -> Mapping[str, Any]:
        name = self._command.argv[0]
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command.argv,
                env={**os.environ, **self._command.env, "KUBERNETES_EXEC_INFO": self._info()},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            hint = f"; {self._command.hint}" if self._command.hint else ""
            raise CredentialsError(f"cannot run the credential plugin {name}: {error.strerror}{hint}") from error
        output = await _output(process, name)
        if process.returncode != 0:
            raise CredentialsError(
                f"the credential plugin {name} ended with code {process.returncode}; its own words are on our standard error"
            )
        return _credential(output, name)

    def _info(self) -> str:
        spec: dict[str, Any] = {"interactive": False}
        if self._cluster is not None:
            spec["cluster"] = dict(self._cluster)
        return orjson.dumps({"apiVersion": self._command.api_version, "kind": "ExecCredential", "spec": spec}).decode()


async def _output(process: asyncio.subprocess.Process, name: str) -> bytes:
    try:
        async with asyncio.timeout(PLUGIN_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise CredentialsError(f"the credential plugin {name} gave nothing within {PLUGIN_TIMEOUT_S:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output


def _credential(output: bytes, name: str) -> Mapping[str, Any]:
    try:
        status = orjson.loads(output)["status"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        # The output may hold a token: neither shown nor chained.
        raise CredentialsError(f"the credential plugin {name} printed no ExecCredential") from None
    if not isinstance(status, dict):
        raise CredentialsError(f"the credential plugin {name} printed an ExecCredential without status")
    return status
