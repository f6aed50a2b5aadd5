"""Finds the way into the API server: a kubeconfig, or as a Pod the service account's files.

An own reader of these files costs no import; the official client's costs 20 MB and 390 modules for the same few fields.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from moorage_operator.errors import CredentialsError
from moorage_operator.kube.clock import Clock, SystemClock
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.identity import TokenFile
from moorage_operator.kube.kubeconfig import from_kubeconfig

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def load(kubeconfig: str = "", context: str = "", *, clock: Clock | None = None) -> Credentials:
    """The named kubeconfig; else $KUBECONFIG; else, in a Pod, its service account; else ~/.kube/config."""
    clock = clock or SystemClock()
    if kubeconfig or os.environ.get("KUBECONFIG"):
        return from_kubeconfig(kubeconfig or os.environ["KUBECONFIG"], context, clock=clock)
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return in_cluster(clock=clock)
    return from_kubeconfig(str(Path("~/.kube/config").expanduser()), context, clock=clock)


def in_cluster(directory: str = SERVICE_ACCOUNT, *, clock: Clock) -> Credentials:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    folder = Path(directory)
    try:
        tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        namespace = (folder / "namespace").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise CredentialsError(
            f"cannot read the service account in {directory}: {error.strerror or error}; is automountServiceAccountToken off?"
        ) from error
    address = f"[{host}]" if ":" in host else host
    return Credentials(f"https://{address}:{port}", TokenFile(str(folder / "token"), clock=clock), tls, namespace=namespace)
