"""The credentials for one repository out of a Secret of type kubernetes.io/dockerconfigjson."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from moorage_operator.errors import InvalidSpec

DOCKER_CONFIG = ".dockerconfigjson"
_REMEDY = "make it with kubectl create secret docker-registry"
_HUB = ("index.docker.io", "docker.io", "registry-1.docker.io")


def registry_credentials(entries: Mapping[str, bytes], repository: str, *, secret: str) -> dict[str, str]:
    """`repository` is the reference without tag; the entry with the longest matching prefix counts, as kubelet has it.

    {"username", "password"}, {"identitytoken"}, or {} where the Secret has nothing for that registry: the pull is then anonymous.
    Raises InvalidSpec when the Secret is none of that type.
    """
    try:
        auths = json.loads(entries[DOCKER_CONFIG])["auths"]
        found = {_normal(name): entry for name, entry in auths.items()}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InvalidSpec(f"Secret {secret} holds no registry credentials: {_REMEDY}", reason="InvalidPullSecret") from error
    matching = [name for name in found if _covers(name, _normal(repository))]
    return _read(found[max(matching, key=len)], secret) if matching else {}


def _normal(name: str) -> str:
    """Host and path, without a scheme and the "/v1/" that docker login writes for Docker Hub."""
    bare = name.split("://", 1)[-1].rstrip("/")
    for version in ("/v1", "/v2"):
        bare = bare.removesuffix(version)
    host, slash, path = bare.partition("/")
    if host in _HUB:
        return f"docker.io{slash}{path}"
    # A first part without dot, colon or capital is no host: the reference means Docker Hub.
    return bare if "." in host or ":" in host or host == "localhost" or host != host.lower() else f"docker.io/{bare}"


def _covers(prefix: str, repository: str) -> bool:
    return repository == prefix or repository.startswith(prefix + "/")


def _read(entry: Any, secret: str) -> dict[str, str]:
    if entry.get("identitytoken"):
        return {"identitytoken": str(entry["identitytoken"])}
    if entry.get("username") is not None:
        return {"username": str(entry["username"]), "password": str(entry.get("password", ""))}
    try:
        username, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
    except (KeyError, ValueError) as error:
        raise InvalidSpec(f"an entry of Secret {secret} has neither username nor auth: {_REMEDY}", reason="InvalidPullSecret") from error
    return {"username": username, "password": password}
