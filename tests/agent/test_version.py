from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from moorage_agent import version

SHA = "ab" * 32


def test_a_checkout_is_no_version() -> None:
    assert version.VERSION == version.DEV


def test_an_agent_started_by_the_link_to_the_current_version_is_that_version(tmp_path: Path) -> None:
    """Otherwise a boot script that starts `current` makes the link point to a version that is not there."""
    package = tmp_path / SHA / "moorage_agent"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "version.py").write_text(Path(version.__file__).read_text())
    (tmp_path / SHA / "__main__.py").write_text("from moorage_agent.version import VERSION, home\nprint(VERSION, home())\n")
    (tmp_path / "current").symlink_to(SHA)
    said = subprocess.run([sys.executable, "-I", "-S", "-E", tmp_path / "current"], capture_output=True, text=True, check=True).stdout
    assert said.split() == [SHA, str((tmp_path / SHA).resolve())]
