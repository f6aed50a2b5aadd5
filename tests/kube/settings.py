"""What one control plane is made of: its folder, addresses, keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.kube.certificates import Authority, KeyPair, signing_key
from tests.kube.kubeconfig import by_certificate, write_kubeconfig
from tests.machine.addresses import free_port, free_ports, own_loopback


@dataclass(frozen=True)
class Settings:
    """Everything one control plane is made of. `address` is where the API server listens; etcd and the rest stay on `loopback`."""

    folder: Path
    address: str
    loopback: str
    api_port: int
    etcd_port: int
    peer_port: int
    controller_port: int
    authority: Path
    serving: KeyPair
    proxy_authority: Path
    proxy: KeyPair
    tokens: KeyPair
    controller_kubeconfig: Path
    api_flags: tuple[str, ...] = ()

    @property
    def api_url(self) -> str:
        return f"https://{self.address}:{self.api_port}"

    @property
    def etcd_url(self) -> str:
        return f"http://{self.loopback}:{self.etcd_port}"

    @property
    def etcd_data(self) -> Path:
        return self.folder / "etcd"


def prepare(
    folder: Path, authority: Authority, address: str | None, names: tuple[str, ...], api_flags: tuple[str, ...]
) -> tuple[Settings, KeyPair]:
    """Keys, ports and the controllers' kubeconfig; returns the settings and the administrator's key pair."""
    loopback = own_loopback()
    address = address or loopback
    proxy_authority = Authority(folder, "proxy-ca")
    served = (address, "127.0.0.1", "localhost", "kubernetes.default.svc", *names)
    admin = authority.issue("bench-admin", organization="system:masters")
    etcd, peer, controller, port = free_ports(loopback, 4)
    if address != loopback:
        port = free_port(address)
    settings = Settings(
        folder=folder,
        address=address,
        loopback=loopback,
        api_port=port,
        etcd_port=etcd,
        peer_port=peer,
        controller_port=controller,
        authority=authority.certificate,
        serving=authority.issue("kube-apiserver", names=served),
        proxy_authority=proxy_authority.certificate,
        proxy=proxy_authority.issue("front-proxy-client"),
        tokens=signing_key(folder, "service-accounts"),
        controller_kubeconfig=write_kubeconfig(
            folder / "controllers.kubeconfig",
            server=f"https://{address}:{port}",
            authority=authority.certificate,
            user=by_certificate(authority.issue("system:kube-controller-manager")),
        ),
        api_flags=api_flags,
    )
    return settings, admin
