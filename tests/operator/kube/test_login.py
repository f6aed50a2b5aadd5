"""Kubeconfigs, service accounts, plugins: how we are let in, and that no secret shows."""

from __future__ import annotations

import base64
import ssl
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from moorage_operator.errors import CredentialsError
from moorage_operator.kube.identity import REREAD_S, Command, ExecPlugin, Fixed, TokenFile, basic, bearer
from moorage_operator.kube.kubeconfig import from_kubeconfig
from moorage_operator.kube.login import in_cluster, load
from moorage_operator.kube.timestamp import timestamp

from tests.kube.certificates import Authority
from tests.operator.kube.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def write(path: Path, *, user: dict[str, Any], cluster: dict[str, Any] | None = None, name: str = "here", **context: str) -> str:
    config = {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **context}}],
        "clusters": [{"name": name, "cluster": {"server": "https://10.0.0.1:6443/", **(cluster or {})}}],
        "users": [{"name": name, "user": user}],
    }
    path.write_text(yaml.safe_dump(config))
    return str(path)


@pytest.mark.parametrize(
    ("user", "header"),
    [
        ({"token": "abc"}, "Bearer abc"),
        ({"username": "ann", "password": "x:y"}, "Basic " + base64.b64encode(b"ann:x:y").decode()),
        ({}, None),
    ],
)
async def test_a_kubeconfig_says_who_we_are(tmp_path: Path, clock: ManualClock, user: dict[str, Any], header: str | None) -> None:
    credentials = from_kubeconfig(write(tmp_path / "config", user=user, namespace="shop"), clock=clock)
    assert await credentials.identity.authorization() == header
    assert (credentials.server, credentials.namespace) == ("https://10.0.0.1:6443", "shop")
    assert credentials.tls is not None
    assert credentials.tls.verify_mode == ssl.CERT_REQUIRED


async def test_the_first_of_several_kubeconfigs_wins(tmp_path: Path, clock: ManualClock) -> None:
    first = write(tmp_path / "1", user={"token": "one"})
    second = write(tmp_path / "2", user={"token": "two"})
    third = write(tmp_path / "3", user={"token": "three"}, name="elsewhere")
    paths = ":".join((first, second, third))
    assert await from_kubeconfig(paths, clock=clock).identity.authorization() == "Bearer one"
    assert await from_kubeconfig(paths, "elsewhere", clock=clock).identity.authorization() == "Bearer three"


def test_a_client_certificate_is_read_from_memory_and_from_files(tmp_path: Path, clock: ManualClock) -> None:
    pair = Authority(tmp_path).issue("client")
    inline = {
        "client-certificate-data": base64.b64encode(pair.certificate.read_bytes()).decode(),
        "client-key-data": base64.b64encode(pair.key.read_bytes()).decode(),
    }
    from_kubeconfig(write(tmp_path / "inline", user=inline), clock=clock)
    files = {"client-certificate": pair.certificate.name, "client-key": pair.key.name}
    from_kubeconfig(write(tmp_path / "beside", user=files), clock=clock)


def test_a_key_that_is_no_key_is_an_error_without_its_content(tmp_path: Path, clock: ManualClock) -> None:
    secret = base64.b64encode(b"hunter2").decode()
    with pytest.raises(CredentialsError) as refused:
        from_kubeconfig(write(tmp_path / "c", user={"client-certificate-data": secret, "client-key-data": secret}), clock=clock)
    assert "hunter2" not in str(refused.value)
    assert secret not in str(refused.value)


def test_mistakes_are_named(tmp_path: Path, clock: ManualClock) -> None:
    with pytest.raises(CredentialsError, match=r"cannot read kubeconfig .*none: No such file"):
        from_kubeconfig(str(tmp_path / "none"), clock=clock)
    with pytest.raises(CredentialsError, match="no entry 'other' among its contexts"):
        from_kubeconfig(write(tmp_path / "c", user={}), "other", clock=clock)
    with pytest.raises(CredentialsError, match=r"auth-provider.*exec plugin"):
        from_kubeconfig(write(tmp_path / "c", user={"auth-provider": {"name": "gcp"}}), clock=clock)
    (tmp_path / "bad").write_text("users:\n- token: hunter2\n  bad: [\n")
    with pytest.raises(CredentialsError, match="not YAML at line") as refused:
        from_kubeconfig(str(tmp_path / "bad"), clock=clock)
    assert "hunter2" not in repr(refused.value.__cause__)


def test_no_secret_in_any_repr(tmp_path: Path, clock: ManualClock) -> None:
    command = Command(("plugin",), {"PASSWORD": "hunter2"}, "client.authentication.k8s.io/v1")
    for holder in (
        bearer("hunter2"),
        basic("ann", "hunter2"),
        command,
        from_kubeconfig(write(tmp_path / "c", user={"token": "hunter2"}), clock=clock),
    ):
        assert "hunter2" not in repr(holder)
        assert base64.b64encode(b"ann:hunter2").decode() not in repr(holder)


# --- as a Pod


def service_account(folder: Path, token: str = "one") -> Path:
    Authority(folder)  # writes ca.crt
    (folder / "namespace").write_text("moorage\n")
    (folder / "token").write_text(token)
    return folder


@pytest.mark.parametrize(("host", "server"), [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")])
async def test_a_pod_uses_its_service_account(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, host: str, server: str
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    credentials = in_cluster(str(service_account(tmp_path)), clock=clock)
    assert (credentials.server, credentials.namespace) == (server, "moorage")
    assert await credentials.identity.authorization() == "Bearer one"


async def test_a_rotated_token_is_read_again_in_time_or_when_refused(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "token"
    path.write_text("one\n")
    identity = TokenFile(str(path), clock=clock)
    assert await identity.authorization() == "Bearer one"
    path.write_text("two\n")
    clock.jump(REREAD_S / 2)
    assert await identity.authorization() == "Bearer one"
    clock.jump(REREAD_S / 2)
    assert await identity.authorization() == "Bearer two"
    path.write_text("three\n")
    assert await identity.authorization(refused=True) == "Bearer three"


def test_a_pod_without_service_account_is_told_so(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    with pytest.raises(CredentialsError, match="automountServiceAccountToken"):
        in_cluster(str(tmp_path), clock=clock)


async def test_the_named_kubeconfig_comes_first_then_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", write(tmp_path / "env", user={"token": "env"}))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    named = write(tmp_path / "named", user={"token": "named"})
    assert await load(named).identity.authorization() == "Bearer named"
    assert await load().identity.authorization() == "Bearer env"
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube" / "config", user={"token": "home"})
    assert await load().identity.authorization() == "Bearer home"


# --- plugins


def plugin(clock: ManualClock, script: str, **env: str) -> ExecPlugin:
    command = Command((sys.executable, "-c", script), env, "client.authentication.k8s.io/v1", hint="install it")
    return ExecPlugin(command, clock=clock, on_certificate=lambda *_: None)


COUNTING = """
import json, os, pathlib
count = pathlib.Path(os.environ["COUNT"]); number = int(count.read_text()) + 1; count.write_text(str(number))
assert json.loads(os.environ["KUBERNETES_EXEC_INFO"])["spec"]["interactive"] is False
print(json.dumps({"kind": "ExecCredential", "status": {"token": f"t{number}", "expirationTimestamp": os.environ["EXPIRES"]}}))
"""


async def test_a_plugins_token_is_kept_until_it_expires_or_is_refused(tmp_path: Path, clock: ManualClock) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    identity = plugin(clock, COUNTING, COUNT=str(count), EXPIRES=timestamp(clock.now() + timedelta(minutes=10)))
    assert [await identity.authorization() for _ in range(3)] == ["Bearer t1"] * 3
    assert await identity.authorization(refused=True) == "Bearer t2"
    clock.jump(9 * 60 + 40)
    assert await identity.authorization() == "Bearer t3"


async def test_a_plugins_certificate_is_handed_on(clock: ManualClock) -> None:
    handed: list[tuple[str, str]] = []
    script = 'print(\'{"status": {"clientCertificateData": "C", "clientKeyData": "K"}}\')'
    command = Command((sys.executable, "-c", script), {}, "client.authentication.k8s.io/v1")
    identity = ExecPlugin(command, clock=clock, on_certificate=lambda certificate, key: handed.append((certificate, key)))
    assert await identity.authorization() is None
    assert handed == [("C", "K")]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise SystemExit(3)", "ended with code 3"),
        ("print('hunter2')", "printed no ExecCredential"),
        ("print('{\"status\": {}}')", "neither a token nor a certificate"),
    ],
)
async def test_a_plugin_that_fails_is_named_and_its_output_is_not(clock: ManualClock, script: str, message: str) -> None:
    with pytest.raises(CredentialsError, match=message) as refused:
        await plugin(clock, script).authorization()
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


async def test_a_plugin_that_is_not_installed_says_how_to_get_it(clock: ManualClock) -> None:
    command = Command(("no-such-plugin",), {}, "client.authentication.k8s.io/v1", hint="install it from here")
    with pytest.raises(CredentialsError, match="No such file or directory; install it from here"):
        await ExecPlugin(command, clock=clock, on_certificate=lambda *_: None).authorization()


async def test_nobody_needs_no_header() -> None:
    assert await Fixed(None).authorization() is None
