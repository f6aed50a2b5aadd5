"""A store of its own for each test. Root is needed: owners, device nodes as whiteouts, trusted attributes, mounts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from moorage_agent.images.store import ImageStore
from moorage_agent.paths import Paths


@pytest.fixture(autouse=True)
def _root_only() -> None:
    if os.geteuid() != 0:
        pytest.skip("root is missing")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    made = ImageStore(Paths(str(tmp_path / "root"), str(tmp_path / "run")))
    made.recover()
    return made
