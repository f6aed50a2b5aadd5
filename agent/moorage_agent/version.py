"""Which agent this is: the name of the directory it was unpacked to, the sha256 of its archive. A checkout is "dev"."""

from __future__ import annotations

import os

DEV = "dev"


def home() -> str:
    """The directory that holds the package: what `python3 <home> serve` runs. Links are followed: `current` is no version's name."""
    return os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


def _version(directory: str) -> str:
    name = os.path.basename(directory)
    return name if len(name) == 64 and not name.strip("0123456789abcdef") else DEV


VERSION = _version(home())
