"""What is needed to open a session on a host, as values. Keys never show in a repr."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal

HostKeyPolicy = Literal["Pinned", "TrustOnFirstUse", "CertificateAuthority"]
Become = Literal["Auto", "None", "Sudo", "Doas"]


@dataclass(frozen=True)
class Credentials:
    """A private key in OpenSSH or PEM form and, optionally, its certificate. Exactly this one key is offered."""

    private_key: bytes = field(repr=False)
    certificate: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Target:
    """One host: where it is, who we are there, and which host keys it may show (CA keys under CertificateAuthority).

    adopt: take it though it is bound to another swarm or Node.
    """

    host: str
    user: str
    credentials: Credentials
    port: int = 22
    host_keys: tuple[str, ...] = ()
    policy: HostKeyPolicy = "Pinned"
    become: Become = "Auto"
    adopt: bool = False
    jump: Target | None = None

    @property
    def route(self) -> Target:
        """Where it leads, as whom: without what matters only while a connection is made."""
        jump = self.jump.route if self.jump else None
        return replace(self, credentials=_NOBODYS, host_keys=(), policy="Pinned", adopt=False, jump=jump)

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 22 else f"{host}:{self.port}"


_NOBODYS: Final = Credentials(b"")
