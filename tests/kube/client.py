"""Plain requests to an API server as its administrator: for the bench's own questions, where starting kubectl would cost 80 ms each."""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.kube.certificates import KeyPair

SERVER_SIDE_APPLY = "application/apply-patch+yaml"


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class AdminClient:
    """One connection per request: the server it talks to is restarted and frozen at will."""

    def __init__(self, url: str, authority: Path, pair: KeyPair) -> None:
        self._address = urlsplit(url).netloc
        self._tls = ssl.create_default_context(cafile=str(authority))
        self._tls.load_cert_chain(pair.certificate, pair.key)

    def request(
        self, method: str, path: str, body: object = None, *, content_type: str = "application/json", timeout_s: float = 30.0
    ) -> Answer:
        """Raises OSError when the server cannot be reached or does not answer within `timeout_s`."""
        connection = self.connection(timeout_s)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": content_type, "Accept": "application/json"})
            response = connection.getresponse()
            return Answer(response.status, parsed(response.read()))
        finally:
            connection.close()

    def connection(self, timeout_s: float | None = None) -> http.client.HTTPSConnection:
        """One of the caller's own, for answers that go on, such as watches."""
        return http.client.HTTPSConnection(self._address, context=self._tls, timeout=timeout_s)


def parsed(content: bytes) -> dict[str, Any]:
    """JSON objects as they are; anything else (a health check's plain "ok") as the message of one."""
    try:
        value = json.loads(content)
    except ValueError:
        value = content.decode(errors="replace")
    return value if isinstance(value, dict) else {"message": str(value)}
