"""helm upgrade: CRDs and roles follow the chart, and nothing that users made is touched."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.chart.helm import CHART
from tests.e2e.chart.release import Release
from tests.kube import ControlPlane
from tests.machine.waiting import eventually
from tests.swarm import service, stack

pytestmark = pytest.mark.e2e

FIELD = "restartToken"
RELEASE_SECRET_LIMIT = 1024 * 1024


@pytest.fixture
def older_chart(tmp_path: Path) -> Path:
    """The chart as it was before a field of Service was added."""
    older = tmp_path / "moorage"
    shutil.copytree(CHART, older)
    chart = older / "Chart.yaml"
    chart.write_text(chart.read_text().replace("version: 0.1.0", "version: 0.0.9"))
    crd = older / "files" / "crds" / "swarmservices.yaml"
    lines = crd.read_text().split("\n")
    start = next(number for number, line in enumerate(lines) if line.strip() == f"{FIELD}:")
    indent = len(lines[start]) - len(lines[start].lstrip())
    end = next(number for number in range(start + 1, len(lines)) if len(lines[number]) - len(lines[number].lstrip()) <= indent)
    crd.write_text("\n".join(lines[:start] + lines[end:]))
    return older


def test_an_upgrade_brings_new_fields_and_keeps_every_object(plane: ControlPlane, release: Release, older_chart: Path) -> None:
    release.install({"replicaCount": 1, "logLevel": "DEBUG"}, chart=older_chart)
    plane.kubectl("wait", "--for=condition=Established", "crd/swarmservices.moorage.dev", "crd/swarmstacks.moorage.dev", "--timeout=30s")
    manifest = service("web", "registry.example/app:1", restartToken="now")
    eventually("the kinds are served", lambda: plane.kubectl("get", "sstk,ssvc", check=False).returncode == 0)
    unknown = plane.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(manifest), check=False)
    assert f'unknown field "spec.{FIELD}"' in unknown.stderr
    plane.apply([service("web", "registry.example/app:1"), stack("shop", service("db", "registry.example/db:1"))])
    before = versions(plane)

    release.upgrade({"replicaCount": 3})
    manifest["metadata"]["name"] = "another"
    create = ("create", "--dry-run=server", "-f", "-")
    eventually("the new field is known", lambda: plane.kubectl(*create, input=json.dumps(manifest), check=False).returncode == 0)
    assert versions(plane) == before
    deployment = plane.get("deployment", "moorage", "moorage-system")
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 3
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "MOORAGE_LOG_LEVEL", "value": "INFO"} in environment


def test_an_upgrade_that_would_leave_services_alone_is_refused(plane: ControlPlane, release: Release) -> None:
    for namespace in ("shop", "lab"):
        plane.kubectl("create", "namespace", namespace)
    before = plane.get("deployment", "moorage", "moorage-system")
    narrowed = ("upgrade", release.name, CHART, "-n", release.namespace, "--reuse-values", "--set=watchNamespaces={shop}")
    refused = release.helm(*narrowed, check=False)
    assert refused.returncode != 0
    assert "watchNamespaces leaves out namespaces with Services: default/" in refused.stderr
    assert plane.get("deployment", "moorage", "moorage-system") == before
    plane.kubectl("delete", "sstk,ssvc", "--all", "-n", "default")
    release.helm(*narrowed)

    plane.apply([service("web", "registry.example/app:1", namespace="shop"), service("web", "registry.example/app:1", namespace="default")])
    moved = ("upgrade", release.name, CHART, "-n", release.namespace, "--reuse-values", "--set=watchNamespaces={lab}")
    refused = release.helm(*moved, check=False)
    assert "with Services: shop/web;" in refused.stderr, "what another operator serves is not ours to count"
    release.helm(*moved, "--set=uninstallGuard.enabled=false")
    plane.kubectl("delete", "ssvc/web", "-n", "shop")
    plane.kubectl("delete", "ssvc/web", "-n", "default")


def test_values_from_before_are_kept_where_asked(plane: ControlPlane, release: Release) -> None:
    release.upgrade({"watchNamespaces": ["shop"]})
    release.helm("upgrade", release.name, CHART, "-n", release.namespace, "--reuse-values", "--set=logLevel=WARNING")
    assert plane.get("role", "moorage-served", "shop")
    release.helm("upgrade", release.name, CHART, "-n", release.namespace, "--reuse-values", "--set-json=watchNamespaces=[]")
    assert plane.get("role", "moorage-served", "shop") is None
    release.helm("rollback", release.name, "-n", release.namespace)
    assert plane.get("role", "moorage-served", "shop")


def test_what_helm_keeps_of_a_release_fits_into_its_secret(plane: ControlPlane) -> None:
    secrets = plane.request("GET", "/api/v1/namespaces/moorage-system/secrets?labelSelector=owner%3Dhelm").body["items"]
    assert secrets
    largest = max(len(base64.b64decode(secret["data"]["release"])) for secret in secrets)
    assert largest < RELEASE_SECRET_LIMIT / 4, f"{largest} bytes"
    assert gzip.decompress(base64.b64decode(base64.b64decode(secrets[0]["data"]["release"])))


def versions(plane: ControlPlane) -> dict[str, Any]:
    """Uid and generation of what users made: neither deleted, nor made anew, nor changed."""
    found = [each for kind in ("swarmservices", "swarmstacks") for each in _items(plane, kind)]
    return {each["metadata"]["uid"]: each["metadata"]["generation"] for each in found}


def _items(plane: ControlPlane, kind: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = plane.request("GET", f"/apis/moorage.dev/v1alpha1/{kind}").body["items"]
    return items
