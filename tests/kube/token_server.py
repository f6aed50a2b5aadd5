"""Who a registry sends its clients to for a token, as the public registries do (the distribution project's token specification)."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.kube.certificates import Authority

ISSUER, SERVICE = "moorage bench tokens", "moorage bench registry"


class TokenServer:
    """Gives out tokens for whatever is asked, to clients with the right Authorization header (`basic`; anybody when None)."""

    def __init__(self, folder: Path, address: str, basic: str | None, *, valid_s: int = 300) -> None:
        folder = folder / "tokens"
        folder.mkdir()
        authority = Authority(folder)
        pair = authority.issue("signer")
        self._key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
        self._chain = [base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()]
        self._basic = basic
        self._valid_s = valid_s
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer((address, 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="token-server", daemon=True)
        self._thread.start()
        self.realm = f"http://{address}:{self._server.server_port}/token"
        self.registry_settings = {"realm": self.realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(authority.certificate)}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str, authorization: str | None) -> tuple[int, dict[str, Any]]:
        """`asked` keeps the scopes, so that a test can see who wanted what."""
        scopes = parse_qs(urlsplit(path).query).get("scope", [])
        self.asked.extend(scopes)
        if self._basic is not None and authorization != self._basic:
            return 401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong user or password"}]}
        return 200, {"token": self._token(scopes), "expires_in": self._valid_s}

    def _token(self, scopes: list[str]) -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": SERVICE,
            "sub": "bench",
            "jti": secrets.token_hex(8),
            "iat": now,
            "nbf": now - 5,
            "exp": now + self._valid_s,
            "access": [access(scope) for scope in scopes],
        }
        signed = f"{encoded({'typ': 'JWT', 'alg': 'ES256', 'x5c': self._chain})}.{encoded(claims)}"
        assert isinstance(self._key, ec.EllipticCurvePrivateKey)
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = server.answer(self.path, self.headers.get("Authorization"))
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature of http.server
                return

        return Handler


def access(scope: str) -> dict[str, object]:
    """repository:team/app:pull,push"""
    kind, rest = scope.split(":", 1)
    name, actions = rest.rsplit(":", 1)
    return {"type": kind, "name": name, "actions": actions.split(",")}


def encoded(part: Mapping[str, Any]) -> str:
    return base64url(json.dumps(part).encode())


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
