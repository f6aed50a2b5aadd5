"""An API server with our kinds."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.kube import ControlPlane
from tests.operator.api.cases import ROOT
from tests.operator.api.door import Door


@pytest.fixture(scope="session")
def door(control_plane: ControlPlane) -> Iterator[Door]:
    control_plane.install_crds(ROOT / "crds")
    namespace = f"api-{os.getpid()}"
    control_plane.kubectl("create", "namespace", namespace)
    yield Door(control_plane, namespace)
    control_plane.kubectl("delete", "namespace", namespace, "--wait=false")
