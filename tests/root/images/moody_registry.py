"""A registry in the test's own process whose moods are set per path: it stalls, lies, breaks off, redirects, refuses.

It speaks enough of the distribution protocol for pulls. The real one is tests.kube.Registry.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.kube import Image, Index
from tests.kube.certificates import KeyPair
from tests.kube.images import Blob

Handler = http.server.BaseHTTPRequestHandler
Mood = Callable[["Answering"], bool]


@dataclass
class Answering:
    """One request being answered; a mood may change the answer, or give it itself and return True."""

    handler: Handler
    status: int
    headers: dict[str, str]
    body: bytes
    seen: int

    @property
    def path(self) -> str:
        return self.handler.path

    def send(self) -> None:
        self.handler.send_response(self.status)
        for name, value in {"Content-Length": str(len(self.body)), **self.headers}.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        self.handler.wfile.write(self.body)

    def hang_up(self, after: int) -> bool:
        """Send `after` bytes of the body, then close the connection."""
        self.handler.send_response(self.status)
        for name, value in {"Content-Length": str(len(self.body)), **self.headers}.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        self.handler.wfile.write(self.body[:after])
        self.handler.close_connection = True
        return True


@dataclass
class MoodyRegistry:
    """`mood` is called for each request, with how often its path was asked before. With `tls` it speaks nothing else."""

    content: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    mood: Mood = lambda _: False
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    tls: KeyPair | None = None

    def __enter__(self) -> Self:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if self.tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.tls.certificate, self.tls.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def asked(self, part: str) -> list[Mapping[str, str]]:
        """The headers of each request whose path has `part`."""
        return [headers for path, headers in self.requests if part in path]

    def add(self, name: str, what: Image | Index, tag: str = "1") -> str:
        """Returns the digest of the manifest."""
        images = what.images if isinstance(what, Index) else (what,)
        for image in images:
            for blob in (image.config_blob(), *image.layer_blobs()):
                self.content[f"/v2/{name}/blobs/{blob.digest}"] = ("application/octet-stream", blob.data)
            self.add_manifest(name, image.manifest())
        return self.add_manifest(name, what.manifest(), tag)

    def add_manifest(self, name: str, manifest: Blob, tag: str | None = None) -> str:
        for version in (manifest.digest, *([tag] if tag else [])):
            self.content[f"/v2/{name}/manifests/{version}"] = (manifest.media_type, manifest.data)
        return manifest.digest

    def answer(self, handler: Handler) -> None:
        seen = self.paths.count(handler.path)
        self.requests.append((handler.path, {name.lower(): value for name, value in handler.headers.items()}))
        kind, body = self.content.get(handler.path, ("", b""))
        answering = Answering(handler, 200 if kind else 404, {"Content-Type": kind} if kind else {}, body, seen)
        if kind and (match := re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))):
            start = int(match.group(1))
            answering.status, answering.body = 206, body[start:]
            answering.headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        if not self.mood(answering):
            answering.send()

    def _handler(self) -> type[Handler]:
        registry = self

        class Answer(Handler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:  # noqa: N802 - the name http.server calls
                try:
                    registry.answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            do_POST = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        return Answer


def as_json(data: Any) -> bytes:
    return json.dumps(data).encode()


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def dead_port() -> str:
    """An address nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
