"""How the operator reaches a host."""

from __future__ import annotations

from typing import Annotated, Literal

from moorage_operator.api.meta import LocalRef
from moorage_operator.api.scalars import Port
from moorage_operator.api.schema import Model, atomic_list, one_of, published, rule, text

HostAddress = Annotated[
    str,
    text(253, rule("self.matches('^[a-zA-Z0-9:]([-.:%a-zA-Z0-9]*[a-zA-Z0-9:])?$')", "write a host name or an IP address, without a port")),
]
UserName = Annotated[str, text(64, rule("self.matches('^[a-zA-Z0-9_][-._a-zA-Z0-9]*[$]?$')", "write the name of an account, such as root"))]
HostKey = Annotated[
    str,
    text(
        4096,
        rule(
            "self.matches('^(ssh-|ecdsa-|sk-)[-.@a-z0-9]+ AAAA[A-Za-z0-9+/]+=*( .*)?$')",
            'write a key as ssh-keyscan prints it, without the host: "ssh-ed25519 AAAA..."',
        ),
    ),
]
HostKeys = Annotated[tuple[HostKey, ...], atomic_list(16)]
HostKeyPolicy = Literal["Pinned", "TrustOnFirstUse", "CertificateAuthority"]


class Jump(Model):
    """The host through which this one is reached."""

    rules = (
        one_of("nodeRef", "host", hint="write nodeRef: {name: ...} for a Node of this swarm, or host and hostKeys for another machine"),
        rule(
            "!has(self.host) || (has(self.hostKeys) && self.hostKeys.size() > 0)",
            'a jump host needs hostKeys: write what "ssh-keyscan HOST" prints, without the host',
            field=".hostKeys",
        ),
    )

    node_ref: LocalRef | None = None
    """Another Node of this swarm."""

    host: HostAddress | None = None
    """Name or address of a machine that is no Node. It is entered with the key of this Node."""

    port: Port = 22
    """Its SSH port."""

    user: UserName = "root"
    """Account there."""

    host_keys: HostKeys = ()
    """Its host keys, such as "ssh-ed25519 AAAA..."."""


class Ssh(Model):
    """How the operator reaches the host."""

    rules = (
        rule(
            "self.hostKeyPolicy == 'TrustOnFirstUse' || (has(self.hostKeys) && self.hostKeys.size() > 0)",
            'hostKeys is needed: write what "ssh-keyscan HOST" prints, without the host, or set hostKeyPolicy: TrustOnFirstUse',
            field=".hostKeys",
        ),
    )

    host: HostAddress
    """Name or address of the host."""

    port: Port = published(22)
    """Its SSH port."""

    user: UserName = "root"
    """Account to log in with."""

    key_secret_ref: LocalRef
    """Secret of type kubernetes.io/ssh-auth, in the operator's namespace: ssh-privatekey, and ssh-certificate if there is one."""

    become: Literal["Auto", "None", "Sudo", "Doas"] = "Auto"
    """How the account becomes root. Auto: not at all for root, else sudo or doas, whichever there is."""

    host_keys: HostKeys = ()
    """Keys the host may show, such as "ssh-ed25519 AAAA..."; with hostKeyPolicy CertificateAuthority, those of the authorities.

    A changed key is never accepted by itself.
    """

    host_key_policy: HostKeyPolicy = published("Pinned")
    """Pinned: only hostKeys. TrustOnFirstUse: the key seen first is written there. CertificateAuthority: keys signed by one of them."""

    jump: Jump | None = None
    """The host through which this one is reached."""
