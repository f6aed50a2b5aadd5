"""An operator that starts before what it needs is there waits for it; it ends when told to, and when waiting is no use."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kube import ControlPlane
from tests.machine.addresses import own_loopback
from tests.machine.waiting import eventually
from tests.swarm import OperatorProcess
from tests.swarm.operator import NAMESPACE

pytestmark = pytest.mark.kube

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        plane.install_crds(CRDS)
        plane.kubectl("create", "namespace", NAMESPACE)
        yield plane


@pytest.fixture
def without_server(plane: ControlPlane) -> Iterator[None]:
    plane.stop_api()
    yield
    plane.wait_ready()


@pytest.fixture
def operator(plane: ControlPlane, tmp_path: Path) -> Iterator[OperatorProcess]:
    """Not started yet."""
    operator = OperatorProcess(plane.kubeconfig, tmp_path)
    yield operator
    operator.kill()


@pytest.mark.usefixtures("without_server")
def test_an_operator_started_while_the_server_is_away_is_ready_soon_after_it_comes(plane: ControlPlane, operator: OperatorProcess) -> None:
    operator.start(wait=False)
    eventually("it has tried twice", lambda: operator.log().count("not started yet") >= 2)
    assert (operator.get("/healthz"), operator.get("/readyz")) == (200, 503), "an API server that is away is no fault of the operator"
    plane.start_api()
    operator.wait_ready()
    eventually("it leads", lambda: operator.metric("moorage_leader") == 1)


@pytest.mark.usefixtures("without_server")
def test_an_operator_that_waits_for_the_server_ends_when_told_to(plane: ControlPlane, operator: OperatorProcess) -> None:
    operator.start(wait=False)
    eventually("it has tried", lambda: "not started yet" in operator.log())
    assert operator.server is not None
    operator.server.stop(grace_s=20)
    assert "Traceback" not in operator.log()
    assert "Unclosed" not in operator.log()
    plane.start_api()


def test_an_operator_that_found_the_identity_of_its_swarm_damaged_goes_on_when_it_is_repaired(
    plane: ControlPlane, operator: OperatorProcess
) -> None:
    plane.kubectl("delete", "secret", "moorage-swarm", "-n", NAMESPACE, "--ignore-not-found")
    plane.kubectl("create", "secret", "generic", "moorage-swarm", "-n", NAMESPACE, "--from-literal=swarmId=")
    operator.start(wait=False)
    eventually("it says so", lambda: f"Secret {NAMESPACE}/moorage-swarm is damaged" in operator.log())
    assert operator.get("/readyz") == 503
    short = {"swarmId": base64.b64encode(b"one").decode(), "key": base64.b64encode(b"k").decode()}
    plane.kubectl("patch", "secret", "moorage-swarm", "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"data": short}))
    eventually("it says what to do", lambda: "or key is shorter than 32 bytes; restore it, or delete it" in operator.log())
    whole = {"swarmId": base64.b64encode(b"one").decode(), "key": base64.b64encode(b"k" * 32).decode()}
    plane.kubectl("patch", "secret", "moorage-swarm", "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"data": whole}))
    operator.wait_ready()


def test_an_operator_whose_port_is_taken_ends_and_says_so(plane: ControlPlane, tmp_path: Path) -> None:
    with socket.create_server((own_loopback(), 0)) as taken:
        address, port = taken.getsockname()
        environment = {"MOORAGE_HTTP_HOST": address, "MOORAGE_HTTP_PORT": str(port)}
        operator = OperatorProcess(plane.kubeconfig, tmp_path, environment=environment).start(wait=False)
        try:
            assert operator.server is not None
            assert operator.server.wait(60) != 0
            assert "address already in use" in operator.log()
        finally:
            operator.kill()
