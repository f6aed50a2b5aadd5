"""Two API servers with the same kinds: one in memory, one real. A test that takes `server` runs against both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import SystemClock
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.kubeconfig import from_kubeconfig
from moorage_operator.kube.object import Key, Obj
from moorage_operator.kube.resource import NAMESPACES, Resource

from tests.kube import ControlPlane
from tests.operator.fakeapi import FakeApi
from tests.operator.kube.widgets import WIDGETS, WIDGETS_CRD, wrong_with


@dataclass
class Server:
    """`namespace` is the test's own. `fake` is None for the real one."""

    api: KubeApi
    credentials: Credentials
    namespace: str
    fake: FakeApi | None

    def key(self, name: str) -> Key:
        return Key(self.namespace, name)

    def widget(self, name: str, **spec: Any) -> Obj:
        return {"metadata": {"namespace": self.namespace, "name": name}, "spec": spec}


@pytest.fixture
def fake(fake: FakeApi) -> FakeApi:
    fake.store.register(WIDGETS, selectable=("spec.color",), validate=wrong_with)
    return fake


@pytest.fixture(scope="session")
def plane_with_widgets(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    control_plane.apply(WIDGETS_CRD)
    control_plane.kubectl("wait", "--for=condition=Established", "crd/widgets.test.moorage.dev", "--timeout=30s")
    yield control_plane
    control_plane.kubectl("delete", "crd", "widgets.test.moorage.dev", "--wait=false")


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.kube)])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    fake: FakeApi | None = None
    if request.param == "real":
        credentials = from_kubeconfig(str(request.getfixturevalue("plane_with_widgets").kubeconfig), clock=SystemClock())
    else:
        fake = FakeApi(bookmark_s=1.0)
        await fake.start()
        fake.store.register(WIDGETS, selectable=("spec.color",), validate=wrong_with)
        credentials = fake.credentials
    async with KubeApi(credentials, clock=SystemClock()) as api:
        namespace = f"t-{uuid4().hex[:8]}"
        await api.create(NAMESPACES, {"metadata": {"name": namespace}})
        await _served(api, WIDGETS)
        yield Server(api, credentials, namespace, fake)
        await api.delete(NAMESPACES, Key("", namespace))
    if fake is not None:
        await fake.stop()


@pytest.fixture
def dice() -> Random:
    return Random(7)


async def _served(api: KubeApi, resource: Resource) -> None:
    # A kind just established answers 429 "storage is (re)initializing"; the client waits as it is told.
    await api.list(resource)
