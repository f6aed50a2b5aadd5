"""Objects of the API and words of agents, with what a test does not care about filled in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from moorage_agent.protocol import Feature, HostFacts
from moorage_operator.api import Image, Node, Service, Task, rfc3339

GIB = 2**30
DIGEST = "sha256:" + "a" * 64


def node(name: str = "n1", *, status: dict[str, Any] | None = None, labels: dict[str, str] | None = None, **spec: Any) -> Node:
    deleted = spec.pop("deleted", None)
    meta = {"name": name, "uid": f"uid-{name}", "generation": 1, "labels": labels or {}}
    return Node.parse(
        {
            "metadata": meta | ({"deletionTimestamp": rfc3339(deleted)} if deleted else {}),
            "spec": {"ssh": {"host": "192.0.2.1", "keySecretRef": {"name": "key"}, "hostKeys": ["ssh-ed25519 AAAA"]}} | spec,
            "status": status or {},
        }
    )


def ready(status: str = "True", *, reason: str = "Ready", since: datetime | None = None) -> dict[str, Any]:
    """A Node's status with the condition Ready."""
    condition = {"type": "Ready", "status": status, "reason": reason} | ({"lastTransitionTime": rfc3339(since)} if since else {})
    return {"hostId": "h", "conditions": [condition]}


def task(name: str = "web-1-abc", *, status: dict[str, Any] | None = None, deleted: datetime | None = None, **spec: Any) -> Task:
    meta: dict[str, Any] = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "generation": 1}
    return Task.parse(
        {
            "metadata": meta | ({"deletionTimestamp": rfc3339(deleted)} if deleted else {}),
            "spec": {
                "service": "web",
                "slot": "1",
                "version": "v1",
                "container": {},
                "nodeName": "n1",
                "image": {"name": "app", "digest": DIGEST},
            }
            | spec,
            "status": status or {},
        }
    )


def service(**spec: Any) -> Service:
    return Service.parse({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"task": {"image": "app:1"}} | spec})


def image(*, status: dict[str, Any] | None = None, **spec: Any) -> Image:
    meta = {"name": "app", "namespace": "shop", "uid": "uid-app", "generation": 1}
    return Image.parse({"metadata": meta, "spec": spec or {"registry": {"reference": "app:1"}}, "status": status or {}})


@dataclass(frozen=True)
class Link:
    """What the fleet says of a node's link."""

    connected: bool = True
    reason: str = ""
    message: str = ""
    last_frame_at: float | None = None
    host_key_seen: str = ""
    facts: HostFacts | None = None
    upgrade_failed: str = ""


def facts(**changes: Any) -> HostFacts:
    values: dict[str, Any] = {
        "host_id": "h",
        "hostname": "alpha",
        "os": "Debian GNU/Linux 12",
        "kernel": "6.1.0",
        "arch": "amd64",
        "boot_id": "b",
        "python": "3.11.2",
        "agent_version": "f" * 64,
        "cpu_millis": 4000,
        "memory_bytes": 8 * GIB,
        "cgroup": "v2",
        "features": (Feature("overlay", True), Feature("seccomp", True)),
    }
    return HostFacts(**(values | changes))
