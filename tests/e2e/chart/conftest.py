"""What the tests of the chart share: helm, the image's Python, and a release on a control plane of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.chart.helm import Helm
from tests.e2e.chart.image import build
from tests.e2e.chart.release import ChartSwarm, Release
from tests.fleet import Bridge
from tests.kube import ControlPlane, Registry, binary
from tests.machine import MissingOnMachine
from tests.machine.scratch import scratch_folder


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """For what needs no cluster: rendering and checking."""
    try:
        binary("helm")
    except MissingOnMachine as missing:
        pytest.skip(str(missing))
    return Helm(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def image_python() -> Iterator[Path]:
    """The Python that the operator's image would bring."""
    folder = scratch_folder("image")
    folder.chmod(0o755)  # any account may run what is in an image
    try:
        yield build(folder)
    except MissingOnMachine as missing:
        pytest.skip(str(missing))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """The module's own: a chart owns cluster-wide names."""
    try:
        binary("helm")
        plane = ControlPlane()
    except MissingOnMachine as missing:
        pytest.skip(str(missing))
    with plane:
        yield plane


@pytest.fixture(scope="module")
def release(plane: ControlPlane, image_python: Path) -> Release:
    """Not installed yet."""
    return Release(plane, image_python)


@pytest.fixture(scope="module")
def swarm(release: Release, bridge: Bridge, registry: Registry, request: pytest.FixtureRequest) -> Iterator[ChartSwarm]:
    """The chart installed with the module's VALUES (and its namespaces made before), its operator running, and one host."""
    for namespace in getattr(request.module, "NAMESPACES", ()):
        release.plane.kubectl("create", "namespace", namespace)
    with ChartSwarm(release, getattr(request.module, "VALUES", None), bridge=bridge, registry=registry) as swarm:
        swarm.add_hosts(1)
        yield swarm
