"""How the link to a node stands, as the planners read it; a session's Link fits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Protocol

from moorage_agent.protocol import HostFacts

SILENT_AFTER_S: Final = 15.0

# Anything else, from a refused connection to a changed host key, is an answer: the host lives, and its containers very likely too. Or it
# is a fault of ours, a name that does not resolve or no file descriptor left: then nobody knows, and nothing may be moved for it.
SILENT_REASONS: Final = frozenset({"", "Silent", "Connecting", "Unreachable"})


class Contact(Protocol):
    """reason is "" while all is well, else stable and CamelCase; last_frame_at is in seconds since 1970, None before the first frame."""

    @property
    def connected(self) -> bool: ...
    @property
    def reason(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def last_frame_at(self) -> float | None: ...
    @property
    def host_key_seen(self) -> str: ...
    @property
    def facts(self) -> HostFacts | None: ...
    @property
    def upgrade_failed(self) -> str: ...


def last_frame(contact: Contact | None) -> datetime | None:
    if contact is None or contact.last_frame_at is None:
        return None
    return datetime.fromtimestamp(contact.last_frame_at, UTC)


def connecting(contact: Contact | None) -> bool:
    """No attempt has ended yet: each waits for its turn behind a thousand others. That no word came is no silence of the host."""
    return contact is None or (contact.reason == "Connecting" and contact.last_frame_at is None)


def answers(contact: Contact | None) -> bool:
    """Whether the host says anything at all, even if only that it will not talk to us."""
    return contact is not None and contact.reason not in SILENT_REASONS


def silent(contact: Contact | None, *, now: datetime, after_s: float = SILENT_AFTER_S) -> bool:
    """Nothing was heard for longer than a frame may be late."""
    heard = last_frame(contact)
    return not answers(contact) and (heard is None or (now - heard).total_seconds() > after_s)
