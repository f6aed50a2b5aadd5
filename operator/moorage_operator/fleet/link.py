"""How the link to a node stands, and whom a session serves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from moorage_agent.protocol import HostFacts, NodeReport

from moorage_operator.fleet.target import Target


@dataclass(frozen=True)
class Link:
    """How a node's link stands. reason is "" while all is well, else stable and CamelCase; times are seconds since 1970."""

    connected: bool = False
    reason: str = "Connecting"
    message: str = "connecting"
    last_frame_at: float | None = None
    host_key_seen: str = ""
    facts: HostFacts | None = None
    bound: dict[str, Any] | None = None
    upgrade_failed: str = ""


@dataclass(frozen=True)
class Wish:
    """What a node's document shall hold: values of the protocol, or their wire form."""

    node_name: str
    tasks: tuple[Any, ...]
    images: tuple[Any, ...]


@dataclass(frozen=True)
class Claim:
    """Who we are to the host. adopt: take the host though it is bound to another swarm or Node."""

    swarm_id: str
    epoch: int
    adopt: bool


class Desk(Protocol):
    """What a session asks and where it reports; every call names the node's uid."""

    def wish(self, uid: str) -> Wish:
        """Raises InvalidSpec when nobody can tell."""

    def claim(self, uid: str, bound: dict[str, Any] | None) -> Claim: ...

    async def value(self, uid: str, key: str) -> bytes:
        """The bytes of a value the agent lacks. Raises MoorageError with the reason."""

    def changing_keys(self, uid: str) -> Iterable[str]:
        """Keys the node's document names whose contents may change while the key stays."""

    async def pin(self, uid: str, target: Target, host_keys: tuple[str, ...]) -> None:
        """Keep the host keys of a first contact with this target; nothing is sent to the host before this returns."""

    def on_link(self, uid: str, link: Link) -> None: ...

    def on_report(self, uid: str, report: NodeReport) -> None: ...

    async def on_newer_epoch(self, uid: str, epoch: int) -> None:
        """The agent obeyed a higher epoch of our own swarm."""

    def forget(self, uid: str) -> None:
        """Its session ended for good."""


class Standing:
    """The Link of one node as it changes."""

    def __init__(self, uid: str, desk: Desk) -> None:
        self.uid = uid
        self.link = Link()
        self._desk = desk

    def note(self, **changes: Any) -> None:
        """What nobody waits for."""
        self.link = replace(self.link, **changes)

    def tell(self, **changes: Any) -> None:
        """The desk looks at it."""
        self.note(**changes)
        self._desk.on_link(self.uid, self.link)
