"""Reads kubeconfig files (https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/) into Credentials."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from moorage_operator.errors import CredentialsError
from moorage_operator.kube.clock import Clock
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.identity import Command, ExecPlugin, Fixed, Identity, TokenFile, basic, bearer


def from_kubeconfig(paths: str, context: str = "", *, clock: Clock) -> Credentials:
    """`paths` may be several, separated by colons: the first that names a thing defines it, as for kubectl."""
    config = _merged([path for path in paths.split(os.pathsep) if path])
    chosen = _named(config, "contexts", context or config.get("current-context") or "", paths)["context"]
    cluster = _named(config, "clusters", chosen["cluster"], paths)["cluster"]
    user = _named(config, "users", chosen["user"], paths)["user"]
    tls = _tls(cluster, user)
    return Credentials(
        server=str(cluster["server"]).rstrip("/"),
        identity=_identity(user, cluster, tls, clock),
        tls=tls if str(cluster["server"]).startswith("https:") else None,
        tls_server_name=cluster.get("tls-server-name"),
        proxy=cluster.get("proxy-url"),
        namespace=chosen.get("namespace") or "default",
    )


def _merged(paths: list[str]) -> dict[str, Any]:
    merged: dict[str, Any] = {"contexts": [], "clusters": [], "users": []}
    for path in paths:
        config = _read(path)
        merged.setdefault("current-context", config.get("current-context"))
        for section in ("contexts", "clusters", "users"):
            merged[section] += [_resolved(entry, Path(path).parent) for entry in config.get(section) or ()]
    return merged


def _read(path: str) -> dict[str, Any]:
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CredentialsError(f"cannot read kubeconfig {path}: {error.strerror}; set KUBECONFIG to the file to use") from error
    except yaml.YAMLError as error:
        # The parser quotes the lines around its mistake, and these may hold a token.
        where = getattr(error, "problem_mark", None)
        raise CredentialsError(f"cannot parse kubeconfig {path}: not YAML{f' at line {where.line + 1}' if where else ''}") from None
    return config if isinstance(config, dict) else {}


def _resolved(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Paths inside a kubeconfig are relative to its folder."""
    for part in (entry.get("cluster"), entry.get("user")):
        for name in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
            if part and part.get(name):
                part[name] = str(folder / part[name])
    return entry


def _named(config: Mapping[str, Any], section: str, name: str, paths: str) -> dict[str, Any]:
    for entry in config[section]:
        if entry.get("name") == name:
            return dict(entry)
    raise CredentialsError(f"kubeconfig {paths} has no entry {name!r} among its {section}; kubectl config get-contexts shows what it has")


def _identity(user: Mapping[str, Any], cluster: Mapping[str, Any], tls: ssl.SSLContext, clock: Clock) -> Identity:
    if user.get("token"):
        return bearer(str(user["token"]))
    if user.get("tokenFile"):
        return TokenFile(str(user["tokenFile"]), clock=clock)
    if user.get("exec"):
        return _plugin(user["exec"], cluster, tls, clock)
    if user.get("username"):
        return basic(str(user["username"]), str(user.get("password") or ""))
    if user.get("auth-provider"):
        raise CredentialsError("kubeconfig uses auth-provider, which Kubernetes 1.26 removed; use an exec plugin instead")
    return Fixed(None)


def _plugin(entry: Mapping[str, Any], cluster: Mapping[str, Any], tls: ssl.SSLContext, clock: Clock) -> ExecPlugin:
    command = Command(
        argv=(str(entry["command"]), *(str(argument) for argument in entry.get("args") or ())),
        env={str(pair["name"]): str(pair["value"]) for pair in entry.get("env") or ()},
        api_version=str(entry.get("apiVersion") or "client.authentication.k8s.io/v1"),
        hint=str(entry.get("installHint") or "").strip(),
    )
    about = {name: cluster[name] for name in ("server", "certificate-authority-data", "tls-server-name") if cluster.get(name)}
    return ExecPlugin(
        command,
        clock=clock,
        on_certificate=lambda certificate, key: load_client_certificate(tls, certificate.encode(), key.encode()),
        cluster=about if entry.get("provideClusterInfo") else None,
    )


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    authority = _material(cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _material(user, "client-certificate"), _material(user, "client-key")
    if certificate and key:
        load_client_certificate(context, certificate, key)
    return context


def _material(entry: Mapping[str, Any], name: str) -> bytes | None:
    """Certificates and keys come inline as base64, or as the name of a file; inline wins, as for kubectl."""
    inline, path = entry.get(f"{name}-data"), entry.get(name)
    if inline:
        return base64.b64decode(inline)
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise CredentialsError(f"cannot read {name} {path}: {error.strerror}") from error


def load_client_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """For all connections made from now on. OpenSSL reads both from files only: these are in memory and have no name."""
    certificate_file, key_file = _memory_file(certificate), _memory_file(key)
    try:
        context.load_cert_chain(f"/proc/self/fd/{certificate_file}", f"/proc/self/fd/{key_file}")
    except ssl.SSLError as error:
        raise CredentialsError(f"cannot use the client certificate: {error.reason or 'not PEM, or the key is not its own'}") from error
    finally:
        os.close(certificate_file)
        os.close(key_file)


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("moorage-tls", os.MFD_CLOEXEC)
    os.write(descriptor, content)
    return descriptor
