"""Fixtures every lane shares: each thing is started once per run, on first use, and ended by process id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.kube import ControlPlane, binary
from tests.machine import MissingOnMachine


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A control plane for tests that only add and remove objects of their own; to break one, start your own `ControlPlane()`."""
    try:
        build()
    except MissingOnMachine as missing:
        pytest.skip(str(missing))
    with ControlPlane() as plane:
        yield plane


def pytest_collection_finish(session: pytest.Session) -> None:
    """The first run on a machine builds for minutes: before any test's time limit starts, and with its progress to be seen."""
    needs_control_plane = any(item.get_closest_marker(marker) for item in session.items for marker in ("kube", "e2e"))
    if needs_control_plane and not session.config.option.collectonly:
        capture = session.config.pluginmanager.getplugin("capturemanager")
        with suppress(MissingOnMachine), capture.global_and_fixture_disabled():
            build()


def build() -> None:
    for name in ("kubectl", "etcd", "kube-apiserver", "kube-controller-manager"):
        binary(name)
