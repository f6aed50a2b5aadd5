"""A real SSH server on loopback, inside the test's own loop: its commands are coroutines that behave like an agent."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import asyncssh
from moorage_operator.fleet.target import Credentials, Target

Process = asyncssh.SSHServerProcess[bytes]
Serve = Callable[[Process], Awaitable[None]]


class LoopbackSshd:
    """Accepts one user key, and those its authority has signed; `attempts` counts authentication requests."""

    def __init__(self, serve: Serve) -> None:
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.user_key = asyncssh.generate_private_key("ssh-ed25519")
        self.authority = asyncssh.generate_private_key("ssh-ed25519")
        self.port = 0
        self.attempts = 0
        self._serve = serve

    @asynccontextmanager
    async def running(self, *, port: int = 0) -> AsyncIterator[Self]:
        server = await asyncssh.listen(
            "127.0.0.1",
            port,
            server_factory=lambda: _Server(self),
            server_host_keys=[self.host_key],
            process_factory=self._serve,
            encoding=None,
            config=[],
        )
        self.port = server.get_port()
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    def target(self, *, pinned: bool = True, key: asyncssh.SSHKey | None = None, **changes: object) -> Target:
        values = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "root",
            "credentials": Credentials((key or self.user_key).export_private_key()),
            "host_keys": (self.public_host_key,) if pinned else (),
            "become": "None",
        }
        return Target(**(values | changes))  # type: ignore[arg-type]

    def node_ssh(self) -> dict[str, Any]:
        """spec.ssh of a Node that leads here; its key is in Secret key."""
        ssh = {"host": "127.0.0.1", "port": self.port, "keySecretRef": {"name": "key"}, "become": "None"}
        return {**ssh, "hostKeys": [self.public_host_key]}

    def key_secret(self, namespace: str) -> dict[str, Any]:
        key = base64.b64encode(self.user_key.export_private_key()).decode()
        return {"metadata": {"name": "key", "namespace": namespace}, "data": {"ssh-privatekey": key}}

    async def decide(self, key: asyncssh.SSHKey) -> bool:
        return bool(key.public_data == self.user_key.public_data)

    @property
    def public_host_key(self) -> str:
        return " ".join(self.host_key.export_public_key().decode().split()[:2])


class _Server(asyncssh.SSHServer):
    def __init__(self, sshd: LoopbackSshd) -> None:
        self._sshd = sshd

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self._sshd.attempts += 1
        return await self._sshd.decide(key)

    def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return bool(key.public_data == self._sshd.authority.public_data)
