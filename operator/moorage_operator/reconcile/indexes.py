"""Under which values objects are found besides their names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from moorage_operator.kube.object import Obj

SERVICE: Final = "service"
"""Tasks by namespace/name of their Service."""

NODE: Final = "node"
"""Tasks by the name of their node."""

IMAGE: Final = "image"
"""Services by namespace/name of the Image their task.imageRef names."""

DATA: Final = "data"
"""Services and Images by kind/namespace/name of each Secret and ConfigMap they read."""

OWNER: Final = "owner"
"""Anything by the uid of its controller."""

NAMESPACE: Final = "namespace"

KEY_SECRET: Final = "key-secret"  # noqa: S105 (a name)
"""Nodes by the name of the Secret with their SSH key."""


def task_service(obj: Obj) -> Iterator[str]:
    yield f"{obj['metadata'].get('namespace', '')}/{obj['spec'].get('service', '')}"


def task_node(obj: Obj) -> Iterator[str]:
    if node := obj["spec"].get("nodeName"):
        yield node


def service_image(obj: Obj) -> Iterator[str]:
    task, namespace = obj["spec"].get("task") or {}, obj["metadata"].get("namespace", "")
    if name := (task.get("imageRef") or {}).get("name"):
        yield f"{namespace}/{name}"


def service_data(obj: Obj) -> Iterator[str]:
    task, namespace = obj["spec"].get("task") or {}, obj["metadata"].get("namespace", "")
    found = set(_references(task))
    return (f"{kind}/{namespace}/{name}" for kind, name in found)


def image_data(obj: Obj) -> Iterator[str]:
    """Credentials, certificates, and the archive itself."""
    registry, archive = obj["spec"].get("registry") or {}, obj["spec"].get("archive") or {}
    named = (
        ("Secret", registry.get("pullSecretRef")),
        ("ConfigMap", registry.get("caBundle")),
        ("ConfigMap", archive.get("configMapRef")),
    )
    for kind, reference in named:
        if reference:
            yield f"{kind}/{obj['metadata'].get('namespace', '')}/{reference['name']}"


def _references(task: Obj) -> Iterator[tuple[str, str]]:
    for entry in [*(variable.get("valueFrom") or {} for variable in task.get("env") or ()), *(task.get("envFrom") or ())]:
        for field, kind in (
            ("secretKeyRef", "Secret"),
            ("secretRef", "Secret"),
            ("configMapKeyRef", "ConfigMap"),
            ("configMapRef", "ConfigMap"),
        ):
            if name := (entry.get(field) or {}).get("name"):
                yield kind, name
    for entry in [*(task.get("secrets") or ()), *(task.get("configs") or ())]:
        for field, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
            if name := (entry.get(field) or {}).get("name"):
                yield kind, name


def owner(obj: Obj) -> Iterator[str]:
    for reference in obj["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            yield reference["uid"]


def namespace(obj: Obj) -> Iterator[str]:
    yield obj["metadata"].get("namespace", "")


def node_key_secret(obj: Obj) -> Iterator[str]:
    if name := ((obj["spec"].get("ssh") or {}).get("keySecretRef") or {}).get("name"):
        yield name


TASK_IMAGE: Final = "image"
"""Tasks by namespace/name of their Image."""


def task_image(obj: Obj) -> Iterator[str]:
    if name := (obj["spec"].get("image") or {}).get("name"):
        yield f"{obj['metadata'].get('namespace', '')}/{name}"


DIGEST: Final = "digest"
"""Images by what they were resolved to."""

PREFETCH: Final = "prefetch"
"""Images that nodes should have before a task needs them, all under the empty value."""


def image_digest(obj: Obj) -> Iterator[str]:
    if digest := (obj.get("status") or {}).get("digest"):
        yield digest


def image_prefetch(obj: Obj) -> Iterator[str]:
    if obj["spec"].get("prefetch") is not None:
        yield ""


MODE: Final = "mode"
"""Services by their mode."""

UNRESOLVED: Final = "unresolved"
"""Images without a digest, all under the empty value."""


def service_mode(obj: Obj) -> Iterator[str]:
    yield obj["spec"].get("mode") or "Replicated"


def image_unresolved(obj: Obj) -> Iterator[str]:
    if not (obj.get("status") or {}).get("digest"):
        yield ""


STACK_INDEXES: Final = {NAMESPACE: namespace}
SERVICE_INDEXES: Final = {IMAGE: service_image, DATA: service_data, OWNER: owner, NAMESPACE: namespace, MODE: service_mode}
IMAGE_INDEXES: Final = {DATA: image_data, OWNER: owner, DIGEST: image_digest, PREFETCH: image_prefetch, UNRESOLVED: image_unresolved}
NODE_INDEXES: Final = {KEY_SECRET: node_key_secret}
TASK_INDEXES: Final = {SERVICE: task_service, NODE: task_node, TASK_IMAGE: task_image}
