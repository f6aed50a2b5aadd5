"""Manifests kept as data beside the tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@dataclass(frozen=True)
class Refused:
    """A wrong manifest: `spec` on its own, or as a change of an object whose spec is `before`."""

    kind: str
    case: str
    spec: dict[str, Any]
    says: tuple[str, ...]
    name: str = "case"
    before: dict[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.case}"


def refused() -> Iterator[Refused]:
    for file in sorted((HERE / "refused").glob("*.yaml")):
        content = yaml.safe_load(file.read_text())
        for case in content["cases"]:
            yield Refused(**{**case, "kind": content["kind"], "says": tuple(case["says"])})


def documents(file: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


def accepted() -> Iterator[dict[str, Any]]:
    for file in sorted((HERE / "accepted").glob("*.yaml")):
        yield from documents(file)
