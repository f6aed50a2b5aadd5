"""How paths inside a root that is not to be trusted are opened."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from moorage_agent.runtime.mounts import open_in

pytestmark = pytest.mark.root

RENAMES = """
import os
open("one", "w").close()
print("begun", flush=True)
while True:
    os.rename("one", "other")
    os.rename("other", "one")
"""


@pytest.fixture
def renames(tmp_path: Path) -> Iterator[None]:
    """Somewhere else on this machine something is renamed all the time."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", RENAMES], cwd=elsewhere, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield
        process.kill()


def test_a_busy_machine_keeps_nothing_from_being_opened(tmp_path: Path, renames: None) -> None:
    """The kernel then gives up looking up .. in a root, one time in ten or so, and wants to be asked again."""
    (tmp_path / "root/a/b").mkdir(parents=True)
    root = os.open(tmp_path / "root", os.O_PATH)
    try:
        for _ in range(20_000):
            os.close(open_in(root, b"a/b/../../a/b"))
    finally:
        os.close(root)
