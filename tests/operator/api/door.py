"""Manifests as strictly validated requests to an API server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moorage_operator.api import API_VERSION, KINDS

from tests.kube import ControlPlane

KIND_OF = {model.KIND.name: model.KIND for model in KINDS}


class Door:
    """Where manifests come in. `namespace` is the test run's own."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace

    def manifest(self, kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}

    def create(self, manifest: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """The server's answer: the object, or a Status that says why not."""
        return self._ask("POST", self.path(manifest["kind"]), manifest, dry_run=dry_run)

    def change(self, manifest: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
        """Puts `manifest` in place of `before`, an object the server returned, without effect."""
        path = f"{self.path(manifest['kind'])}/{before['metadata']['name']}"
        return self._ask("PUT", path, {**manifest, "metadata": before["metadata"]}, dry_run=True)

    def delete(self, manifest: Mapping[str, Any]) -> None:
        self.plane.request("DELETE", f"{self.path(manifest['kind'])}/{manifest['metadata']['name']}")

    def path(self, kind: str) -> str:
        scope = f"/namespaces/{self.namespace}" if KIND_OF[kind].namespaced else ""
        return f"/apis/{API_VERSION}{scope}/{KIND_OF[kind].plural}"

    def _ask(self, method: str, path: str, body: Mapping[str, Any], *, dry_run: bool) -> dict[str, Any]:
        query = f"fieldValidation=Strict{'&dryRun=All' if dry_run else ''}"
        return self.plane.request(method, f"{path}?{query}", body).body
