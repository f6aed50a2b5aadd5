"""Proving to a registry who asks: Basic, or a Bearer token from the server the registry names.

Sources: RFC 9110 section 11 (challenges), distribution's "Token Authentication Specification" and "OAuth2 Token Authentication". Some token
servers know only one of the two ways: GCR answers 404 to a POST, Artifactory 401, ACR 400.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlencode

from moorage_agent.errors import ImageError
from moorage_agent.images.transport import Response, Transient, Transport

_MAX_ANSWER = 1 << 20
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(rf"({_WORD})(?=\s|,|$)")


@dataclass(frozen=True)
class Credentials:
    """Held in memory for one pull. An identity token stands in for user and password."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @staticmethod
    def from_json(data: bytes) -> Credentials:
        """{"username", "password"} or {"identitytoken"}. Raises ImageError(InvalidCredentials), which repeats nothing of it."""
        try:
            said = json.loads(data)
            parts = [said.get(name, "") for name in ("username", "password", "identitytoken")]
        except (ValueError, AttributeError):
            parts = [None]
        if not all(isinstance(part, str) for part in parts) or not any(parts):
            raise ImageError(
                "InvalidCredentials", "the registry credentials are no JSON object with username and password, or identitytoken"
            )
        return Credentials(*parts)

    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True)
class Challenge:
    """`scheme` and parameter names in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """WWW-Authenticate headers; each may hold several challenges, and commas inside of quotes. Nonsense between them is skipped."""
    found: list[Challenge] = []
    for header in headers:
        at = 0
        parameters: dict[str, str] | None = None
        while at < len(header):
            if parameters is not None and (match := _PARAMETER.match(header, at)):
                quoted = match.group(2)
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else match.group(3)
                parameters.setdefault(match.group(1).lower(), value)
            elif match := _SCHEME.match(header, at):
                parameters = {}
                found.append(Challenge(match.group(1).lower(), parameters))
            at = match.end() if match else at + 1
    return found


class Authorizer:
    """The Authorization header for one repository of one registry, shared by the threads of a pull: one of them asks, all use the token."""

    def __init__(self, transport: Transport, credentials: Credentials | None, scope: str, *, of: str) -> None:
        self._transport, self._credentials, self._scope, self._of = transport, credentials, scope, of
        self._lock = threading.Lock()
        self._header: str | None = None

    def __repr__(self) -> str:
        return f"Authorizer({self._of})"

    @property
    def header(self) -> str | None:
        return self._header

    def answer(self, challenges: list[Challenge], *, used: str | None, asked: str) -> None:
        """After a 401 of the URL `asked` to a request with `used`: get another header. Raises ImageError(Unauthorized), Transient."""
        with self._lock:
            if self._header == used:
                self._header = self._answered(challenges, used, asked)

    def _answered(self, challenges: list[Challenge], used: str | None, asked: str) -> str:
        by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
        if "bearer" in by_scheme:
            return "Bearer " + self._token(by_scheme["bearer"].parameters, asked)
        if "basic" in by_scheme and self._credentials and self._credentials.username and used is None:
            return self._credentials.basic()
        raise self.denied("it asks for a user and password" if "basic" in by_scheme else "it did not say how to log in")

    def denied(self, why: str) -> ImageError:
        remedy = "check the pull secret" if self._credentials else "name a pull secret if the repository is private"
        return ImageError("Unauthorized", f"{self._of} may not be pulled: {why}; {remedy}", 300)

    def _token(self, parameters: dict[str, str], asked: str) -> str:
        realm = parameters.get("realm", "")
        if not realm.startswith("https://") and not (self._transport.insecure and realm.startswith("http://")):
            raise self.denied("it names no token server that can be reached with encryption")
        if self._credentials and asked.startswith("https://") and not realm.startswith("https://"):
            raise self.denied("the token server it names would be told the password without encryption")
        form = {"service": parameters.get("service", ""), "scope": parameters.get("scope") or self._scope}
        token = self._token_by_post(realm, form) if self._credentials else None
        return token or self._token_by_get(realm, form)

    def _token_by_post(self, realm: str, form: dict[str, str]) -> str | None:
        """None where the server does not know this way."""
        assert self._credentials is not None
        secret = self._credentials
        if secret.identity_token:
            form = {**form, "grant_type": "refresh_token", "refresh_token": secret.identity_token}
        else:
            form = {**form, "grant_type": "password", "username": secret.username, "password": secret.password}
        body = urlencode({**form, "client_id": "moorage"}).encode()
        with self._transport.open("POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, body) as response:
            if response.status in (400, 401, 404, 405, 501) and secret.username:
                return None
            return self._read(response)

    def _token_by_get(self, realm: str, form: dict[str, str]) -> str:
        url = realm + ("&" if "?" in realm else "?") + urlencode({name: value for name, value in form.items() if value})
        headers = {"Authorization": self._credentials.basic()} if self._credentials and self._credentials.username else {}
        with self._transport.open("GET", url, headers) as response:
            return self._read(response)

    def _read(self, response: Response) -> str:
        if response.status == 429 or response.status >= 500:
            raise Transient("RegistryUnreachable", f"the token server for {self._of} answered {response.status}")
        if response.status != 200:
            raise self.denied(f"the token server answered {response.status}")
        try:
            said = json.loads(response.body(_MAX_ANSWER))
            token = said.get("token") or said.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise self.denied("the token server's answer holds no token")
        return token
