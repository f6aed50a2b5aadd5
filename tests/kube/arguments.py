"""How the servers of a control plane are started. Pure: settings in, argument lists out."""

from __future__ import annotations

from tests.kube.settings import Settings

# No kubelet, scheduler or workload controllers: Moorage needs owner references, namespaces, service accounts and RBAC aggregation.
CONTROLLERS = (
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "clusterrole-aggregation-controller",
    "validatingadmissionpolicy-status-controller",
)


def etcd_arguments(settings: Settings) -> list[str]:
    peer = f"http://{settings.loopback}:{settings.peer_port}"
    return [
        "--name=bench",
        f"--data-dir={settings.etcd_data}",
        f"--listen-client-urls={settings.etcd_url}",
        f"--advertise-client-urls={settings.etcd_url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=bench={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def api_server_arguments(settings: Settings) -> list[str]:
    return [
        f"--etcd-servers={settings.etcd_url}",
        f"--bind-address={settings.address}",
        f"--secure-port={settings.api_port}",
        f"--cert-dir={settings.folder}",
        f"--tls-cert-file={settings.serving.certificate}",
        f"--tls-private-key-file={settings.serving.key}",
        f"--client-ca-file={settings.authority}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={settings.tokens.certificate}",
        f"--service-account-signing-key-file={settings.tokens.key}",
        "--service-cluster-ip-range=10.96.0.0/16",
        # Nothing here reaches a cluster address; and the reconciler refuses to publish a loopback one.
        "--endpoint-reconciler-type=none",
        *aggregation_arguments(settings),
        *settings.api_flags,
    ]


def aggregation_arguments(settings: Settings) -> list[str]:
    """The API server calls aggregated APIs with its proxy certificate and names the user in headers, which they trust for its sake."""
    return [
        f"--requestheader-client-ca-file={settings.proxy_authority}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={settings.proxy.certificate}",
        f"--proxy-client-key-file={settings.proxy.key}",
    ]


def controller_manager_arguments(settings: Settings) -> list[str]:
    return [
        f"--kubeconfig={settings.controller_kubeconfig}",
        f"--controllers={','.join(CONTROLLERS)}",
        f"--bind-address={settings.loopback}",
        f"--secure-port={settings.controller_port}",
        f"--cert-dir={settings.folder}",
        f"--root-ca-file={settings.authority}",
        f"--service-account-private-key-file={settings.tokens.key}",
        "--use-service-account-credentials",
        "--leader-elect=false",
    ]
