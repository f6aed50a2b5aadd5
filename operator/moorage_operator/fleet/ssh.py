"""The only module that speaks SSH: opens connections with our own defaults and translates what can go wrong.

Nothing is read from the operator's home directory or environment, one key is offered, no agent, no forwarding, and a host key is always
checked before anything is sent. Bulk ciphers: AES-GCM first, it costs half of ChaCha20's CPU here.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from typing import Final

import asyncssh

from moorage_operator.errors import (
    AuthenticationFailed,
    HostKeyMismatch,
    InvalidSpec,
    LoginTooSlow,
    MoorageError,
    NameUnresolved,
    OperatorExhausted,
    Refused,
    Unreachable,
)
from moorage_operator.fleet.target import Credentials, Target

RESOLVE_TIMEOUT_S: Final = 10
CONNECT_TIMEOUT_S: Final = 10
LOGIN_TIMEOUT_S: Final = 20  # key exchange and authentication on a host that is busy, or asks a directory who we are
KEEPALIVE_S: Final = 15
KEEPALIVE_MISSES: Final = 3
HOST_KEYS_WAIT_S: Final = 1.0

_CIPHERS: Final = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr", "aes128-ctr")
_NO_DNS: Final = re.compile("[Tt]emporary failure in name resolution")  # the jump host's resolver got no answer
_SILENCE: Final = re.compile("keepalive|[Tt]imeout")
_ALIVE: Final = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE})  # the host's kernel answered
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})  # ours did not try
_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")


class Channel:
    """A running command's stdin, stdout and stderr, as bytes."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self._process = process

    async def read(self, limit: int = 1 << 18) -> bytes:
        """The next bytes of stdout; empty at its end. Raises Unreachable when the connection is lost."""
        with translated(""):
            return await self._process.stdout.read(limit)

    async def write(self, data: bytes) -> None:
        with translated(""):
            self._process.stdin.write(data)
            await self._process.stdin.drain()

    def end_input(self) -> None:
        self._process.stdin.write_eof()

    async def stderr(self, limit: int = 4096) -> str:
        """What the command said on stderr so far, once it has ended."""
        with translated(""):
            return (await self._process.stderr.read(limit)).decode(errors="replace").strip()

    async def exit_status(self) -> int | None:
        """The command's exit status once it has ended; None when the connection ended first or a signal ended it."""
        await self._process.wait_closed()
        return self._process.exit_status

    def close(self) -> None:
        self._process.close()


class Connection:
    """One authenticated connection to a host."""

    def __init__(self, target: Target, connection: asyncssh.SSHClientConnection, seen: _HostKeys) -> None:
        self.target = target
        self.raw = connection
        self._seen = seen

    async def host_keys(self) -> tuple[str, ...]:
        """Every public key the host proved to hold (OpenSSH's hostkeys-00 extension); at least the one it used."""
        return await self._seen.all()

    @asynccontextmanager
    async def channel(self, command: str) -> AsyncIterator[Channel]:
        """Run a command and talk to it; it is ended when the block is left, whatever happened.

        asyncssh leaves the process and the channel behind when a waiter is cancelled, and sshd allows ten sessions only.
        """
        with translated(self.target.address):
            process = await self.raw.create_process(command, encoding=None, stderr=asyncssh.PIPE)
        try:
            yield Channel(process)
        finally:
            process.close()

    async def closed(self) -> None:
        await self.raw.wait_closed()

    def abort(self) -> None:
        self.raw.abort()


async def connect(target: Target, *, through: Connection | None = None) -> Connection:
    """Open and authenticate a connection, through a jump host's connection when given.

    Raises Unreachable, Refused, NameUnresolved, OperatorExhausted, AuthenticationFailed, HostKeyMismatch, or InvalidSpec for keys that
    cannot be read.
    """
    keys = _client_keys(target.credentials)
    trusted = _public_keys(target)
    is_ca = target.policy == "CertificateAuthority"
    seen = _HostKeys(certified=is_ca)
    first_use = target.policy == "TrustOnFirstUse" and not trusted
    if through is None:
        await _resolve(target)
    with translated(target.address, seen=seen, through=through.target.address if through else ""):
        async with asyncio.timeout(CONNECT_TIMEOUT_S) as limit:
            connection = await asyncssh.connect(
                target.host,
                target.port,
                tunnel=through.raw if through else (),
                username=target.user,
                client_keys=keys,
                known_hosts=([], trusted, []) if is_ca else (trusted, [], []),
                client_factory=lambda: _Client(seen, limit, accept=first_use),
                server_host_keys_handler=seen.proved,
                server_host_key_algs=_host_key_algorithms(() if is_ca else trusted, certified=is_ca),
                encryption_algs=_CIPHERS,
                compression_algs=None,
                preferred_auth=("publickey",),
                disable_trivial_auth=True,
                config=None,
                agent_path=None,
                gss_host=None,
                x509_trusted_certs=None,
                connect_timeout=None,
                login_timeout=0,
                keepalive_interval=KEEPALIVE_S,
                keepalive_count_max=KEEPALIVE_MISSES,
            )
    return Connection(target, connection, seen)


async def _resolve(target: Target) -> None:
    """Sees to it that the name leads somewhere: what goes wrong afterwards is between us and the host."""
    with suppress(ValueError):
        ip_address(target.host)
        return
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (TimeoutError, socket.gaierror, UnicodeError) as error:
        raise unresolved(target.host, error) from error


def unresolved(host: str, error: Exception) -> MoorageError:
    """A name that somebody who knows calls unknown went with its host; that nobody answered is no news of the host."""
    if isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME:
        return Unreachable(f"there is no host of the name {host}; correct spec.ssh.host, or set spec.outOfService if it is gone for good")
    if isinstance(error, TimeoutError):
        return NameUnresolved(f"the name {host} is not resolved in {RESOLVE_TIMEOUT_S:g} s; look at the operator's DNS")
    why = getattr(error, "strerror", None) or error
    return NameUnresolved(f"the name {host} does not resolve: {why}; correct spec.ssh.host, or the operator's DNS")


class _HostKeys:
    """What a host showed on one connection. `certified`: only those keys count that an authority has signed."""

    def __init__(self, *, certified: bool = False) -> None:
        self.certified = certified
        self.used: asyncssh.SSHKey | None = None
        self.connection: asyncssh.SSHClientConnection | None = None
        self._proved: asyncio.Future[list[asyncssh.SSHKey]] = asyncio.get_running_loop().create_future()

    @property
    def spoke(self) -> bool:
        """Whether its sshd said anything."""
        return self.connection is not None and bool(self.connection.get_extra_info("server_version"))

    def proved(self, added: list[asyncssh.SSHKey], _removed: object, retained: list[asyncssh.SSHKey], _revoked: object) -> None:
        if not self._proved.done():
            self._proved.set_result(added + retained)

    async def all(self) -> tuple[str, ...]:
        keys = [self.used] if self.used else []
        with suppress(TimeoutError):  # an sshd older than 6.8 does not tell
            keys += await asyncio.wait_for(asyncio.shield(self._proved), HOST_KEYS_WAIT_S)
        return tuple(sorted({_text(key) for key in keys}))


class _Client(asyncssh.SSHClient):
    """Decides about a host key that is not pinned: accepted on first use only, remembered in any case.

    `limit` is the time for the way there; the login has its own.
    """

    def __init__(self, seen: _HostKeys, limit: asyncio.Timeout, *, accept: bool) -> None:
        self._seen = seen
        self._limit = limit
        self._accept = accept

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._seen.connection = conn
        self._limit.reschedule(asyncio.get_running_loop().time() + LOGIN_TIMEOUT_S)

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        self._seen.used = key
        return self._accept


class translated:  # noqa: N801 (reads as a phrase: with translated(address))
    """Turns asyncssh's and the system's exceptions into ours, once, at the edge."""

    def __init__(self, address: str, *, seen: _HostKeys | None = None, through: str = "") -> None:
        self._address = address
        self._seen = seen
        self._through = through

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, asyncssh.Error | OSError | TimeoutError):
            raise self._translate(error) from error

    def _translate(self, error: BaseException) -> MoorageError:
        at = f" to {self._address}" if self._address else ""
        if isinstance(error, asyncssh.HostKeyNotVerifiable) or (
            isinstance(error, asyncssh.KeyExchangeFailed) and "host key" in error.reason
        ):
            return self._mismatch()
        if isinstance(error, asyncssh.PermissionDenied):
            return AuthenticationFailed(
                f"{self._address} refused the key: {error.reason}; "
                "add its public key to the account's authorized_keys, or correct user or key"
            )
        if isinstance(error, asyncssh.ConnectionLost) and _SILENCE.search(error.reason):
            return Unreachable(f"no answer from {self._address or 'the host'}: {error.reason}")
        if isinstance(error, asyncssh.ChannelOpenError) and self._through:
            return self._no_way_through(error)
        lost = isinstance(error, asyncssh.ChannelOpenError) and error.reason == "SSH connection closed"
        if isinstance(error, asyncssh.ChannelOpenError) and not lost:
            return Refused(f"{self._address or 'the host'} opened no session: {error.reason}; see MaxSessions of its sshd")
        if lost or isinstance(error, asyncssh.ConnectionLost | ConnectionResetError):
            return Refused(f"the SSH connection{at} was closed; sshd may be starting, full (MaxStartups) or penalising this address")
        if isinstance(error, asyncssh.KeyExchangeFailed | asyncssh.ProtocolError):
            return Refused(f"no SSH session{at}: {error}")
        if isinstance(error, TimeoutError) and self._seen and self._seen.spoke:
            return LoginTooSlow(
                f"{self._address} answers, but did not let us in within {LOGIN_TIMEOUT_S:g} s; look at its load, and at what its sshd asks "
                "(UseDNS, PAM, a directory); if it hangs for good, set spec.outOfService"
            )
        if isinstance(error, TimeoutError):
            return Unreachable(f"no answer from {self._address or 'the host'} in time")
        if isinstance(error, socket.gaierror):
            return unresolved(self._address, error)
        found = _errnos(error)
        if found and found <= _EXHAUSTED:
            return OperatorExhausted(f"the operator cannot begin a connection{at}: {error}; look at its limits: open files, ports, memory")
        if found & _ALIVE:
            return Refused(f"the connection{at} was refused; is sshd running there?")
        return Unreachable(f"no SSH connection{at}: {error}")

    def _no_way_through(self, error: asyncssh.ChannelOpenError) -> MoorageError:
        jump, node = self._through, self._address
        if error.code != asyncssh.OPEN_CONNECT_FAILED:
            return Refused(
                f"the jump host {jump} opens no connection to {node}: {error.reason}; see AllowTcpForwarding and PermitOpen of its sshd, "
                "and restrictions in authorized_keys there"
            )
        if "refused" in error.reason:
            return Refused(f"the connection to {node} was refused, says the jump host {jump}; is sshd running there?")
        if _NO_DNS.search(error.reason):
            remedy = "correct spec.ssh.host, or the DNS of the jump host"
            return NameUnresolved(f"the jump host {jump} does not resolve the name {node}: {error.reason}; {remedy}")
        return Unreachable(f"no way to {node} through the jump host {jump}: {error.reason}")

    def _mismatch(self) -> MoorageError:
        used = self._seen.used if self._seen else None
        if used is None or (self._seen and self._seen.certified):
            shown = "a host key" if used is None else f"host key {used.get_fingerprint()}"
            return HostKeyMismatch(
                f"{self._address} showed {shown} that no pinned certificate authority has signed; nothing was sent to it", seen=""
            )
        return HostKeyMismatch(
            f"{self._address} showed host key {used.get_fingerprint()}, which is not pinned; nothing was sent to it", seen=_text(used)
        )


def _errnos(error: BaseException) -> set[int]:
    """Of all addresses that were tried: asyncio keeps those of several in the text alone."""
    number = error.errno if isinstance(error, OSError) else None
    return {number} if number is not None else {int(found) for found in _ERRNO.findall(str(error))}


def _client_keys(credentials: Credentials) -> Sequence[asyncssh.SSHKeyPair]:
    try:
        key = asyncssh.import_private_key(credentials.private_key)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError) as error:
        raise InvalidSpec(
            f"the private key cannot be read: {error}; it must be an OpenSSH or PEM key without a passphrase", reason="InvalidKey"
        ) from error
    if not credentials.certificate:
        return asyncssh.load_keypairs([key])
    try:
        certificate = asyncssh.import_certificate(credentials.certificate)
        return asyncssh.load_keypairs([(key, certificate)])
    except (asyncssh.KeyImportError, ValueError) as error:
        raise InvalidSpec(
            f"the certificate cannot be used: {error}; it must be an OpenSSH certificate of the private key beside it", reason="InvalidKey"
        ) from error


def _public_keys(target: Target) -> list[asyncssh.SSHKey]:
    keys = []
    for text in target.host_keys:
        try:
            keys.append(asyncssh.import_public_key(text))
        except asyncssh.KeyImportError as error:
            raise InvalidSpec(f"host key {text[:40]!r} cannot be read: {error}; write it as in known_hosts: type, then base64") from error
    return keys


def _host_key_algorithms(trusted: Sequence[asyncssh.SSHKey], *, certified: bool) -> list[str]:
    """Certificates or the pinned types first, then the rest: a host without them still shows a key, so the message can name it.

    With nothing in common it would only close the connection, as a full one does.
    """
    certificates = [f"{name}-cert-v01@openssh.com" for name in _ALGORITHM_ORDER] if certified else []
    first = [name for key in trusted for name in _ALGORITHMS.get(key.get_algorithm(), (key.get_algorithm(),))]
    return list(dict.fromkeys([*certificates, *first, *_ALGORITHM_ORDER]))


_ALGORITHMS: Final = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
_ALGORITHM_ORDER: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)


def _text(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])
