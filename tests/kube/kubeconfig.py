"""Kubeconfig files. Written as JSON, which every reader of YAML takes."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path

from tests.kube.certificates import KeyPair


def write_kubeconfig(path: Path, *, server: str, authority: Path, user: Mapping[str, str], namespace: str = "default") -> Path:
    """A kubeconfig with everything inside it, readable by its owner only."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": server, "certificate-authority-data": encoded(authority)}}],
        "users": [{"name": "bench", "user": dict(user)}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench", "namespace": namespace}}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(content))
    return path


def by_certificate(pair: KeyPair) -> dict[str, str]:
    return {"client-certificate-data": encoded(pair.certificate), "client-key-data": encoded(pair.key)}


def by_token(token: str) -> dict[str, str]:
    return {"token": token}


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
