"""HTTP for image downloads: what http.client leaves out. Redirects, TLS settings, proxies, time-outs, cancelling, errors with a meaning."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import os
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from moorage_agent.errors import ImageError
from moorage_agent.images.cancellation import Cancellation
from moorage_agent.images.proxy import proxy_for, proxy_headers
from moorage_agent.version import VERSION

_MAX_REDIRECTS = 10
_CHUNK = 1 << 17


class Transient(Exception):
    """Another try may succeed. `code` is what to report when it does not; retry_after_s what the server asked for."""

    def __init__(self, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after_s = code, message, retry_after_s


@dataclass(frozen=True)
class Timeouts:
    """connect: per address, with the TLS handshake. idle: between two reads. No limit on the whole: layers may be large."""

    connect_s: float = 10.0
    idle_s: float = 60.0


class Response:
    """An answer whose body is still to be read; any failure of the connection is Transient."""

    def __init__(self, response: http.client.HTTPResponse, url: str) -> None:
        self.status, self.headers, self.url = response.status, response.headers, url
        self._response = response

    def chunks(self) -> Iterator[bytes]:
        buffer = memoryview(bytearray(_CHUNK))
        while count := self._into(buffer):
            yield bytes(buffer[:count])

    def skip(self, count: int) -> None:
        buffer = memoryview(bytearray(_CHUNK))
        while count:
            got = self._into(buffer[: min(count, _CHUNK)])
            if not got:
                raise Transient("RegistryUnreachable", f"{_where(self.url)} sent less than before")
            count -= got

    @property
    def host(self) -> str:
        """Who answered, in the end: not always who was asked."""
        return _host(self.url)

    @property
    def retry_after_s(self) -> float | None:
        """What the server asks for: in seconds, or as a date."""
        said = self.headers.get("Retry-After", "").strip()
        if said.isascii() and said.isdigit() and len(said) < 8:
            return float(said)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
        except (TypeError, ValueError, IndexError, OverflowError):
            return None

    def _into(self, buffer: memoryview) -> int:
        with _failures(self.url):
            return self._response.readinto(buffer)

    def body(self, most: int) -> bytes:
        """Raises ImageError(InvalidImage) when there is more than `most`."""
        with _failures(self.url):
            data = self._response.read(most + 1)
        if len(data) > most:
            raise ImageError(
                "InvalidImage", f"the answer of {_where(self.url)} is larger than {most >> 10} KiB, which is not what was asked for"
            )
        return data


class Transport:
    """`ca_bundle`: PEM text trusted beside the system's authorities. `insecure`: no certificate is checked and plain HTTP is allowed."""

    def __init__(
        self,
        *,
        insecure: bool = False,
        ca_bundle: str | None = None,
        timeouts: Timeouts = Timeouts(),
        cancellation: Cancellation | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.insecure = insecure
        self.cancellation = cancellation or Cancellation()
        self._ca_bundle, self._timeouts, self._environ = ca_bundle, timeouts, environ
        self._tls: ssl.SSLContext | None = None

    @contextmanager
    def open(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Iterator[Response]:
        """Follow redirects to an answer, of any status. Raises Transient, ImageError, Interrupted.

        Authorization and body go to the first host only: storage behind a registry must not learn them, nor whoever can make it redirect.
        """
        url, sent = _address(url), dict(headers)
        for _ in range(_MAX_REDIRECTS):
            with self._exchange(method, url, sent, body) as response:
                status = response.status
                target = response.headers.get("Location") if status in (301, 302, 303, 307, 308) else None
                if target is None:
                    yield response
                    return
            target = _address(url, target)
            if status in (301, 302, 303) and body is not None:  # RFC 9110 section 15.4: what was posted is not posted again
                method, body = "GET", None
            if not same_origin(url, target):
                if body is not None:
                    text = f"{_where(url)} wants what it was sent to be sent to {_where(target)}, which might hold a password"
                    raise ImageError("RegistryUnreachable", text, 300)
                sent = {name: value for name, value in sent.items() if name.lower() != "authorization"}
            url = target
        raise ImageError("RegistryUnreachable", f"{_where(url)} redirects in a circle", 300)

    @contextmanager
    def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Iterator[Response]:
        parts = urlsplit(url)
        self._refuse_downgrade(parts)
        connection, path, to_proxy = self._connection(parts)
        with contextlib.closing(connection):
            with _failures(url):
                connection.connect()
                connection.sock.settimeout(self._timeouts.idle_s)
            with self.cancellation.breaking(lambda sock=connection.sock: _shut(sock)):  # type: ignore[misc]
                try:
                    with _failures(url):
                        connection.request(method, path, body, {"User-Agent": f"moorage-agent/{VERSION}", **headers, **to_proxy})
                        response = connection.getresponse()
                    with contextlib.closing(response):  # it owns the socket when the server wants to close the connection
                        yield Response(response, url)
                except Transient:
                    self.cancellation.check()  # a socket shut by `cancel` looks like a lost connection
                    raise

    def _refuse_downgrade(self, parts: SplitResult) -> None:
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ImageError("RegistryUnreachable", f"{parts.scheme[:20]}://{parts.netloc[:80]} is no address to download from", 300)
        if parts.scheme == "http" and not self.insecure:
            remedy = "allow it with `insecure: true`, for an archive by its sha256"
            raise ImageError("RegistryUnreachable", f"{parts.netloc} would be asked without encryption; {remedy}")

    def _connection(self, parts: SplitResult) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
        """A connection, not yet connected, what to ask it for, and headers for a proxy: of plain requests it wants the whole address."""
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        proxy = proxy_for(parts.scheme, host, self._environ)
        timeout = self._timeouts.connect_s
        at = (proxy.hostname or "", proxy.port or 3128) if proxy else (host, port)
        if parts.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(*at, timeout=timeout, context=self._context())
        else:
            connection = http.client.HTTPConnection(*at, timeout=timeout)
        if proxy and parts.scheme == "https":
            connection.set_tunnel(host, port, proxy_headers(proxy))
        if proxy and parts.scheme == "http":
            return connection, parts.geturl(), proxy_headers(proxy)
        return connection, path, {}

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = _tls(insecure=self.insecure, ca_bundle=self._ca_bundle)
        return self._tls


def _tls(*, insecure: bool, ca_bundle: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_bundle:
        try:
            context.load_verify_locations(cadata=ca_bundle)
        except (ssl.SSLError, ValueError) as error:
            raise ImageError("InvalidCABundle", f"the CA bundle holds no certificates in PEM form: {error}") from error
    return context


@contextmanager
def _failures(url: str) -> Iterator[None]:
    """Translate what the standard library raises. Certificates do not heal by a quick retry; all else may."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        remedy = "add the authority to `caBundle`, or set `insecure: true`"
        raise ImageError(
            "CertificateRejected", f"the certificate of {_where(url)} was refused: {error.verify_message}; {remedy}", 300
        ) from error
    except socket.gaierror as error:
        raise Transient("RegistryUnreachable", f"the name of {_where(url)} cannot be resolved: {error.strerror}") from error
    except (socket.timeout, TimeoutError) as error:
        raise Transient("RegistryUnreachable", f"{_where(url)} did not answer in time") from error
    except (OSError, http.client.HTTPException) as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Transient("RegistryUnreachable", f"the connection to {_where(url)} failed: {text}") from error


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _address(url: str, location: str = "") -> str:
    """`location` as seen from `url`. Raises ImageError for what is none: servers may say anything."""
    try:
        address = urljoin(url, location)
        _origin(address)
    except ValueError as error:
        raise ImageError("RegistryUnreachable", f"{(location or url)[:80]!r} is no address to download from: {error}", 300) from error
    return address


def same_origin(one: str, other: str) -> bool:
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _where(url: str) -> str:
    """Host and path for messages: queries of storage hosts hold signatures."""
    return f"{_host(url)}{urlsplit(url).path[:120]}"


def _host(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}{f':{parts.port}' if parts.port else ''}"
