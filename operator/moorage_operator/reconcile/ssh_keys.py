"""The SSH keys of Nodes, from their Secrets: read once per version, because a thousand Nodes may share one."""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict

from moorage_operator.errors import InvalidSpec, NotFound
from moorage_operator.fleet.target import Credentials
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.object import Key
from moorage_operator.kube.resource import SECRETS
from moorage_operator.plan.container_data import SECRET, DataObject
from moorage_operator.reconcile.data import Data

PRIVATE_KEY = "ssh-privatekey"
CERTIFICATE = "ssh-certificate"


class SshKeys:
    """`namespace` is the operator's own: keys are nowhere else."""

    def __init__(self, api: KubeApi, data: Data, namespace: str) -> None:
        self._api = api
        self._data = data
        self._namespace = namespace
        self._read: dict[str, tuple[str, Credentials]] = {}
        self._reading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def of(self, secret: str) -> Credentials:
        """Raises InvalidSpec naming what is missing. A rotated key is used for the next connection, the one that stands is kept."""
        async with self._reading[secret]:
            version = self._data.version(DataObject(SECRET, self._namespace, secret))
            known = self._read.get(secret)
            if known is None or version is None or known[0] != version:
                known = version or "", await self._fetch(secret)
                self._read[secret] = known
            return known[1]

    async def _fetch(self, secret: str) -> Credentials:
        self._read.pop(secret, None)
        key = Key(self._namespace, secret)
        try:
            found = await self._api.get(SECRETS, key)
        except NotFound as error:
            raise InvalidSpec(
                f"Secret {secret} of spec.ssh.keySecretRef does not exist in namespace {key.namespace}: create it with the private key "
                f"under {PRIVATE_KEY} (kubectl create secret generic {secret} -n {key.namespace} --type=kubernetes.io/ssh-auth "
                f"--from-file={PRIVATE_KEY}=KEYFILE)",
                reason="SecretMissing",
            ) from error
        data = found.get("data") or {}
        if PRIVATE_KEY not in data:
            raise InvalidSpec(
                f"Secret {secret} in namespace {key.namespace} has no key {PRIVATE_KEY}: write the private key under this name",
                reason="SecretMissing",
            )
        certificate = data.get(CERTIFICATE)
        return Credentials(base64.b64decode(data[PRIVATE_KEY]), base64.b64decode(certificate) if certificate else None)
