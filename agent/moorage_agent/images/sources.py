"""From a protocol.ImageSource to something that offers content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Protocol

from moorage_agent.errors import ImageError
from moorage_agent.images.auth import Credentials
from moorage_agent.images.cancellation import Cancellation
from moorage_agent.images.content import Content
from moorage_agent.images.patience import Patience
from moorage_agent.images.platforms import Platform
from moorage_agent.images.reference import parse_reference
from moorage_agent.images.registry import Registry
from moorage_agent.images.registry_source import RegistrySource
from moorage_agent.images.store import ImageStore
from moorage_agent.images.transport import Timeouts, Transport
from moorage_agent.protocol import ImageSource

Values = Callable[[str], bytes]
"""The value of a key of the source: credentials, a CA bundle, an archive. Raises KeyError, or an AgentError of its own."""


@dataclass(frozen=True)
class Settings:
    """How patient to be with the network."""

    patience: Patience
    timeouts: Timeouts


DEFAULT = Settings(Patience(), Timeouts())


class Source(Protocol):
    def content(self, wanted: Platform) -> Content: ...


def opened(
    source: ImageSource, digest: str | None, values: Values, store: ImageStore, *, cancellation: Cancellation, settings: Settings
) -> Source:
    """`digest`: the image that was pinned; None to find out. Raises ImageError."""
    if source.kind == "Registry" and source.reference:
        reference = parse_reference(source.reference)
        reference = reference.pinned(digest) if digest else reference
        transport = _transport(source, values, cancellation, settings)
        return RegistrySource(reference, Registry(reference, transport, _credentials(source, values), settings.patience), store)
    raise ImageError("InvalidReference", f"an image source of kind {source.kind} without what that kind needs")


def _transport(source: ImageSource, values: Values, cancellation: Cancellation, settings: Settings) -> Transport:
    bundle = values(source.ca_bundle).decode("ascii", "replace") if source.ca_bundle else None
    return Transport(insecure=source.insecure, ca_bundle=bundle, timeouts=settings.timeouts, cancellation=cancellation)


def _credentials(source: ImageSource, values: Values) -> Credentials | None:
    return Credentials.from_json(values(source.credentials)) if source.credentials else None
