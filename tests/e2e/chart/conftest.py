"""What the tests of the chart share: helm, the image's Python, and a release on a control plane of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.chart.helm import Helm
from tests.e2e.chart.image import build
from tests.e2e.chart.release import Release
from tests.kube import ControlPlane, binary
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
def image_python() -> Path:
    """The Python that the operator's image would bring."""
    folder = scratch_folder("image")
    folder.chmod(0o755)  # any account may run what is in an image
    try:
        return build(folder)
    except MissingOnMachine as missing:
        pytest.skip(str(missing))


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
def may(plane: ControlPlane) -> Callable[..., bool]:
    """`may(user, "create", "pods", namespace="x")`: what the API server's authorizer says. `groups` as of a service account by default."""

    def ask(user: str, verb: str, resource: str, *, namespace: str = "", name: str = "") -> bool:
        plural, _, group = resource.partition(".")
        plural, _, subresource = plural.partition("/")
        about = {"verb": verb, "group": group, "resource": plural, "subresource": subresource, "namespace": namespace, "name": name}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": user, "resourceAttributes": about}}
        answer = plane.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
        assert answer.ok, answer.body
        return bool(answer.body["status"].get("allowed"))

    return ask
