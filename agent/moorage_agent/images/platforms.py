"""Which of an image's variants runs on a machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from moorage_agent.errors import ImageError

# uname's machine → GOARCH and GOARM-like variant, as image configurations spell them.
_MACHINES = {
    "x86_64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "armv8l": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "ppc64le": ("ppc64le", ""),
    "riscv64": ("riscv64", ""),
    "s390x": ("s390x", ""),
    "loongarch64": ("loong64", ""),
}
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm", "armel": "arm"}


@dataclass(frozen=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def host_platform(machine: str | None = None) -> Platform:
    """Of this machine, or of one whose uname says `machine`."""
    machine = machine or os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


def parse_platform(text: str) -> Platform:
    """`linux/arm64/v8`, `linux/amd64`. Raises ImageError(InvalidReference)."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(part.isascii() and part.replace("-", "").replace("_", "").isalnum() for part in parts):
        raise ImageError("InvalidReference", f"platform {text[:80]!r} is not os/architecture or os/architecture/variant, like linux/amd64")
    return normalised(Platform(*(part.lower() for part in parts)))


def normalised(platform: Platform) -> Platform:
    """One spelling each: arm64 is v8 unless said otherwise, arm is v7, amd64 v1 is plain amd64."""
    architecture = _ALIASES.get(platform.architecture, platform.architecture)
    variant = platform.variant if platform.variant.startswith("v") or not platform.variant else f"v{platform.variant}"
    if architecture == "arm64" and not variant:
        variant = "v8"
    elif architecture == "arm" and not variant:
        variant = {"armel": "v6"}.get(platform.architecture, "v7")
    elif architecture == "amd64" and variant == "v1":
        variant = ""
    return Platform(platform.os, architecture, variant)


def runs(wanted: Platform, offered: Platform) -> int | None:
    """How well `offered` suits a machine that is `wanted`: 0 is best, higher is worse, None is not at all."""
    wanted, offered = normalised(wanted), normalised(offered)
    if (wanted.os, wanted.architecture) != (offered.os, offered.architecture):
        return None
    step = _level(wanted) - _level(offered)
    return step if step >= 0 else None


Choice = TypeVar("Choice")


def choose(wanted: Platform, offers: Sequence[tuple[Platform, Choice]], *, of: str) -> Choice:
    """The best offer for `wanted`; of equals the first. Raises ImageError(NoMatchingPlatform) listing what there is."""
    ranked = [(suits, index) for index, (platform, _) in enumerate(offers) if (suits := runs(wanted, platform)) is not None]
    if not ranked:
        raise no_match(wanted, [platform for platform, _ in offers], of=of)
    return offers[min(ranked)[1]][1]


def no_match(wanted: Platform, offered: Iterable[Platform], *, of: str) -> ImageError:
    there = ", ".join(sorted({str(platform) for platform in offered})) or "nothing that runs"
    return ImageError("NoMatchingPlatform", f"{of} has no variant for {wanted}; it offers {there}")


def _level(platform: Platform) -> int:
    """Variants of arm, arm64 and amd64 are levels: a machine runs its own and all lower ones."""
    digits = platform.variant[1:]
    if platform.variant.startswith("v") and digits.isdigit() and len(digits) < 3:
        return int(digits)
    return {"amd64": 1}.get(platform.architecture, 0)
