"""Manifests as a user would write them, from the few things a test cares about."""

from __future__ import annotations

from typing import Any

from moorage_operator.api import API_VERSION

from tests.fleet import BareHost, KernelHost

Manifest = dict[str, Any]


def node(host: BareHost | KernelHost, *, secret: str = "hosts", **spec: Any) -> Manifest:
    """The Node of a bare host, its key pinned; further `ssh` options and spec fields by name."""
    ssh = {"host": host.address, "keySecretRef": {"name": secret}, "hostKeys": [host.host_key], **spec.pop("ssh", {})}
    labels = spec.pop("labels", {})
    return {
        "apiVersion": API_VERSION,
        "kind": "Node",
        "metadata": {"name": host.name, "labels": labels},
        "spec": {"ssh": ssh, **spec},
    }


def task(image: str, *command: str, **fields: Any) -> Manifest:
    """`image` is a reference, or "image/NAME" for an Image object."""
    source: Manifest = {"imageRef": {"name": image.removeprefix("image/")}} if image.startswith("image/") else {"image": image}
    return {**source, **({"command": list(command)} if command else {}), **fields}


def service(name: str, image: str, *command: str, namespace: str = "default", replicas: int | None = 1, **fields: Any) -> Manifest:
    """Fields of spec.task go in `task`, those of spec by name."""
    spec: Manifest = {"task": task(image, *command, **fields.pop("task", {})), **fields}
    if replicas is not None and spec.get("mode") != "Global":
        spec["replicas"] = replicas
    return {"apiVersion": API_VERSION, "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def stack(name: str, *services: Manifest, namespace: str = "default") -> Manifest:
    """A Stack of these Services."""
    entries = [{"name": each["metadata"]["name"], **each["spec"]} for each in services]
    return {"apiVersion": API_VERSION, "kind": "Stack", "metadata": {"name": name, "namespace": namespace}, "spec": {"services": entries}}
