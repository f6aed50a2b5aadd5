"""The zygote's import budget: each module costs every container memory and time, and what is not imported cannot be wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

AGENT = Path(__file__).parents[3] / "agent"
OURS = [
    "cgroup",
    "confine",
    "devices",
    "entry",
    "execute",
    "home",
    "init",
    "linux",
    "logs",
    "maker",
    "mounts",
    "passwd",
    "reaper",
    "record",
    "scene",
    "shim",
    "supervisor",
    "zygote",
]


def imported() -> list[str]:
    """What the zygote adds to the bare interpreter."""
    code = f"""
import sys
before = set(sys.modules)
sys.path.insert(0, {str(AGENT)!r})
import moorage_agent.runtime.entry
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-E", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_zygote_imports_less_than_25_modules_of_the_standard_library() -> None:
    assert len([name for name in imported() if not name.startswith("moorage_agent")]) < 25


def test_zygote_imports_its_own_modules_and_nothing_else_of_the_agent() -> None:
    ours = [name for name in imported() if name.startswith("moorage_agent.")]
    assert ours == ["moorage_agent.runtime", *(f"moorage_agent.runtime.{name}" for name in OURS)]
