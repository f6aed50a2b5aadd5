"""What is known of images beside their objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from moorage_agent.protocol import ImageReport

from moorage_operator.api import Image
from moorage_operator.plan.image import Attempt
from moorage_operator.plan.image_source import source_text


@dataclass
class ImageNews:
    """Tries that failed since the last answer, and what nodes hold. Rebuilt by reports."""

    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    held: dict[str, dict[str, ImageReport]] = field(default_factory=dict)
    unwritten_since: dict[str, datetime] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)
    """Nodes that told all they have since this process began."""

    def take(self, node: str, reports: tuple[ImageReport, ...], *, full: bool) -> set[str]:
        """What a node said about images; returns the digests."""
        if full:
            self.heard.add(node)
        for report in reports:
            self.held.setdefault(report.digest, {})[node] = report
        return {report.digest for report in reports}

    def tries(self, image: Image) -> list[Attempt]:
        """Failures with the present source: another one begins anew."""
        uid, source = image.metadata.uid, source_text(image)
        if self.asked.get(uid) != source:
            self.asked[uid] = source
            self.attempts[uid] = []
        return self.attempts[uid]

    def forget_attempts(self, uid: str) -> None:
        """What failed may succeed now."""
        self.attempts.pop(uid, None)
        self.asked.pop(uid, None)

    def forget(self, uid: str) -> None:
        for known in (self.attempts, self.asked, self.unwritten_since):
            known.pop(uid, None)
