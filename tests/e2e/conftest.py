"""One swarm of three hosts for all tests that break nothing; each works in a namespace of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.fleet import Bridge
from tests.kube import ControlPlane, Registry
from tests.machine import MissingOnMachine
from tests.swarm import Swarm

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def swarm(bridge: Bridge, registry: Registry) -> Iterator[Swarm]:
    with swarm_on(bridge, registry) as swarm:
        swarm.add_hosts(3)
        yield swarm


@pytest.fixture
def own_swarm(bridge: Bridge, registry: Registry) -> Iterator[Swarm]:
    """A swarm without hosts, to be broken."""
    with swarm_on(bridge, registry) as swarm:
        yield swarm


@contextmanager
def swarm_on(bridge: Bridge, registry: Registry, **options: Any) -> Iterator[Swarm]:
    """A swarm with a control plane of its own; `options` as in Swarm."""
    try:
        plane = ControlPlane(address=bridge.address)
    except MissingOnMachine as missing:
        pytest.skip(str(missing))
    with plane, Swarm(bridge=bridge, plane=plane, registry=registry, **options) as swarm:
        yield swarm


@pytest.fixture
def namespace(swarm: Swarm) -> Iterator[str]:
    """A namespace of the test's own; with it goes all that is in it."""
    name = f"test-{next(_numbers)}"
    swarm.kubectl("create", "namespace", name)
    yield name
    swarm.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def image(swarm: Swarm) -> str:
    """Its stop signal is SIGKILL: `sleep` as process 1 ignores SIGTERM, and only tests of stopping want to wait for a grace period."""
    return swarm.image("busybox:1", config={"StopSignal": "SIGKILL"})


@pytest.fixture
def app(swarm: Swarm, namespace: str, image: str) -> str:
    """An Image object in the test's namespace, to be named as `image/app`."""
    swarm.apply(image_manifest("app", image, namespace))
    return "image/app"


def image_manifest(name: str, reference: str, namespace: str, **registry: object) -> dict[str, object]:
    return {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "Image",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"registry": {"reference": reference, "insecure": True, **registry}},
    }
