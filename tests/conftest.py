"""Fixtures every lane shares: each thing is started once per run, on first use, and ended by process id."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, settings

from tests.fleet import BareHost, Bridge, HostSpec, KernelHost
from tests.fleet.own_kernel.linux import linux
from tests.fleet.own_kernel.root_image import root_image
from tests.kube import ControlPlane, Registry
from tests.machine import MissingOnMachine
from tests.machine.debs import unpacked
from tests.prepare import control_plane_programs

pytest_plugins = ["tests.skips"]

# How fast examples come says something about the machine's load, nothing about the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A control plane for tests that only add and remove objects of their own; to break one, start your own `ControlPlane()`."""
    try:
        control_plane_programs()
    except MissingOnMachine as missing:
        pytest.skip(str(missing))
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="session")
def zstd_program() -> None:
    """On PATH, though this machine may lack it."""
    if shutil.which("zstd") is None:
        os.environ["PATH"] += f"{os.pathsep}{unpacked('zstd')}/usr/bin"


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


@pytest.fixture
def kernel_hosts(bridge: Bridge) -> Iterator[Callable[..., list[KernelHost]]]:
    """`kernel_hosts(2)`: running hosts with kernels of their own, booted side by side, which end with the test."""
    made: list[KernelHost] = []

    def boot(count: int, *, memory_mb: int = 512) -> list[KernelHost]:
        try:
            made.extend(new := [bridge.kernel_host(boot=False, memory_mb=memory_mb) for _ in range(count)])
            for host in new:
                host.power_on()
        except MissingOnMachine as missing:
            pytest.skip(str(missing))
        for host in new:
            host.wait_for_sshd()
        return new

    yield boot
    for host in made:
        host.close()


def pytest_collection_finish(session: pytest.Session) -> None:
    """The first run on a machine builds for minutes: before any test's time limit starts, and with its progress to be seen."""
    if session.config.option.collectonly:
        return
    markers = {marker.name for item in session.items for marker in item.iter_markers()}
    made_for: dict[str, list[Callable[[], object]]] = {
        "kube": [control_plane_programs],
        "e2e": [control_plane_programs],
        "uml": [linux, root_image],
    }
    capture = session.config.pluginmanager.getplugin("capturemanager")
    for make in (make for marker, makers in made_for.items() if marker in markers for make in makers):
        with suppress(MissingOnMachine), capture.global_and_fixture_disabled():
            make()
