"""Fixtures every lane shares: each thing is started once per run, on first use, and ended by process id."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.fleet import BareHost, Bridge, HostSpec
from tests.kube import ControlPlane, Registry, binary
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


@pytest.fixture(scope="session")
def bridge() -> Iterator[Bridge]:
    """The network bare hosts hang on; `bridge.address` is this machine's own in it."""
    try:
        bridge = Bridge()
    except MissingOnMachine as missing:
        pytest.skip(str(missing))
    with bridge:
        yield bridge


@pytest.fixture(scope="session")
def registry(bridge: Bridge) -> Iterator[Registry]:
    """An open registry that every bare host reaches, speaking plain HTTP. For passwords, TLS or faults start your own `Registry`."""
    try:
        registry = Registry(address=bridge.address).start()
    except MissingOnMachine as missing:
        pytest.skip(str(missing))
    yield registry
    registry.close()


@pytest.fixture
def hosts(bridge: Bridge) -> Iterator[Callable[..., list[BareHost]]]:
    """`hosts(3)` or `hosts(1, HostSpec(...))`: running bare hosts, which end with the test."""
    made: list[BareHost] = []

    def boot(count: int, spec: HostSpec = HostSpec()) -> list[BareHost]:  # noqa: B008 - frozen
        try:
            made.extend(new := [bridge.host(spec=spec) for _ in range(count)])
        except MissingOnMachine as missing:
            pytest.skip(str(missing))
        return new

    yield boot
    for host in made:
        host.close()


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
