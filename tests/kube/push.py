"""Pushing to a registry by the distribution project's HTTP interface."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

from tests.kube.images import Blob, Image, Index, Layer, busybox
from tests.kube.registry import Registry


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def push(registry: Registry, reference: str, what: Image | Index) -> str:
    """To `registry` as `reference` ("team/app:1.0"); returns the manifest's digest. Raises AssertionError when it is refused."""
    name, tag = reference.rsplit(":", 1)
    client = Client(registry, name)
    if isinstance(what, Index):
        for image in what.images:
            push_image(client, image, image.manifest().digest)
        return put_manifest(client, what.manifest(), tag)
    return push_image(client, what, tag)


def busybox_image(registry: Registry, reference: str, *layers: Layer, config: Mapping[str, Any] | None = None) -> str:
    """BusyBox with `layers` on top, pushed; returns its digest. Pull it as `f"{registry.host}/{reference}"`."""
    return push(registry, reference, busybox(*layers, config=config))


def push_image(client: Client, image: Image, tag: str) -> str:
    for blob in (*image.layer_blobs(), image.config_blob()):
        put_blob(client, blob)
    return put_manifest(client, image.manifest(), tag)


def put_blob(client: Client, blob: Blob) -> None:
    if client.ask("HEAD", f"blobs/{blob.digest}").status == 200:
        return
    started = client.ask("POST", "blobs/uploads/")
    assert started.status == 202, f"upload refused: {started}"
    target = started.headers["location"]
    done = client.ask("PUT", f"{target}{'&' if '?' in target else '?'}{urlencode({'digest': blob.digest})}", blob.data)
    assert done.status == 201, f"blob {blob.digest} refused: {done}"


def put_manifest(client: Client, manifest: Blob, tag: str) -> str:
    done = client.ask("PUT", f"manifests/{tag}", manifest.data, content_type=manifest.media_type)
    assert done.status == 201, f"manifest {tag} refused: {done}"
    return manifest.digest


class Client:
    """Requests about one repository; answers a challenge for a token once and keeps it."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self._name = name
        self._authorization = registry.login.basic if registry.login else None

    def ask(self, method: str, path: str, body: bytes | None = None, *, content_type: str = "application/octet-stream") -> Response:
        url = urljoin(f"{self._registry.url}/v2/{self._name}/", path)
        answer = self._send(method, url, body, content_type)
        if answer.status == 401 and "bearer" in answer.headers.get("www-authenticate", "").lower():
            self._authorization = f"Bearer {self._token(answer.headers['www-authenticate'])}"
            answer = self._send(method, url, body, content_type)
        return answer

    def _token(self, challenge: str) -> str:
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        basic, self._authorization = self._registry.login.basic if self._registry.login else None, None
        query = urlencode({"service": fields["service"], "scope": f"repository:{self._name}:pull,push"})
        answer = send("GET", f"{fields['realm']}?{query}", None, {"Authorization": basic} if basic else {})
        assert answer.status == 200, f"no token: {answer}"
        token: str = json.loads(answer.body)["token"]
        return token

    def _send(self, method: str, url: str, body: bytes | None, content_type: str) -> Response:
        headers = {"Content-Type": content_type, **({"Authorization": self._authorization} if self._authorization else {})}
        return send(method, url, body, headers)


def send(method: str, url: str, body: bytes | None, headers: dict[str, str], *, tls: ssl.SSLContext | None = None) -> Response:
    """Raises OSError. Without `tls` any certificate is taken: who the bench's own registry is, the bench knows."""
    parts = urlsplit(url)
    tls = tls or ssl._create_unverified_context()
    connection = (
        http.client.HTTPSConnection(parts.netloc, timeout=30, context=tls)
        if parts.scheme == "https"
        else http.client.HTTPConnection(parts.netloc, timeout=30)
    )
    try:
        connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, headers)
        answer = connection.getresponse()
        return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()
