"""Registries that stall, refuse, lie, ignore and redirect: what is pulled is right or not there, and the reason is told."""

from __future__ import annotations

import base64
import gzip
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from moorage_agent.errors import ImageError, Interrupted
from moorage_agent.images.cancellation import Cancellation
from moorage_agent.images.store import ImageStore

from tests.kube import Image, make_layer
from tests.kube.certificates import Authority
from tests.kube.images import Blob, Layer
from tests.root.images.moody_registry import Answering, Mood, MoodyRegistry, as_json, dead_port
from tests.root.images.pulling import CREDENTIALS, noise_layer, pulled, resolved, source, untouched

pytestmark = pytest.mark.root
MIB = 1 << 20


@pytest.fixture
def registry() -> Iterator[MoodyRegistry]:
    with MoodyRegistry() as running:
        yield running


def one_layer(registry: MoodyRegistry, layer: Layer, name: str = "app") -> tuple[str, str]:
    """Added as `name`; the manifest's digest and the layer's path."""
    image = Image((layer,))
    digest = registry.add(name, image)
    return digest, f"/v2/{name}/blobs/{image.layer_blobs()[0].digest}"


# --- connections that break


def test_a_layer_continues_where_it_broke_off(registry: MoodyRegistry, store: ImageStore) -> None:
    digest, path = one_layer(registry, noise_layer(9 * MIB))
    registry.mood = lambda answering: answering.path == path and answering.seen < 4 and answering.hang_up(2 * MIB)
    pulled(source(f"{registry.host}/app:1"), store, digest)
    ranges = [headers.get("range") for headers in registry.asked(path)]
    assert ranges == [None, *(f"bytes={2 * MIB * number}-" for number in range(1, 5))]


def test_a_server_that_ignores_ranges_is_read_from_the_start(registry: MoodyRegistry, store: ImageStore) -> None:
    digest, path = one_layer(registry, noise_layer(3 * MIB))
    whole = registry.content[path][1]

    def mood(answering: Answering) -> bool:
        if answering.path == path:
            answering.status, answering.body = 200, whole
            answering.headers.pop("Content-Range", None)
            return answering.seen < 2 and answering.hang_up(MIB)
        return False

    registry.mood = mood
    assert pulled(source(f"{registry.host}/app:1"), store, digest)
    assert len(registry.asked(path)) == 3


def test_another_range_than_asked_for_is_not_believed(registry: MoodyRegistry, store: ImageStore) -> None:
    digest, path = one_layer(registry, noise_layer(3 * MIB))

    def mood(answering: Answering) -> bool:
        if answering.status == 206:
            answering.headers["Content-Range"] = "bytes 0-99/100"
        return answering.path == path and answering.seen == 0 and answering.hang_up(MIB)

    registry.mood = mood
    with pytest.raises(ImageError, match="another range"):
        pulled(source(f"{registry.host}/app:1"), store, digest)
    assert untouched(store)


def test_a_stalling_server_is_left_after_a_while(registry: MoodyRegistry, store: ImageStore) -> None:
    digest, path = one_layer(registry, noise_layer(2 * MIB))

    def mood(answering: Answering) -> bool:
        if answering.path != path:
            return False
        answering.hang_up(MIB if answering.seen == 0 else 0)
        return not registry.released.wait(20)

    registry.mood = mood
    with pytest.raises(ImageError, match="did not answer in time") as refused:
        pulled(source(f"{registry.host}/app:1"), store, digest)
    assert (refused.value.code, refused.value.retry_after_s) == ("RegistryUnreachable", 30)
    assert len(registry.asked(path)) == 3
    assert untouched(store)


def test_a_server_that_stalls_once_is_asked_again(registry: MoodyRegistry, store: ImageStore) -> None:
    digest, path = one_layer(registry, noise_layer(2 * MIB))

    def mood(answering: Answering) -> bool:
        if answering.path != path or answering.seen > 0:
            return False
        answering.hang_up(MIB)
        return not registry.released.wait(3)

    registry.mood = mood
    assert pulled(source(f"{registry.host}/app:1"), store, digest)


@pytest.mark.parametrize("reference", [f"{dead_port()}/app:1", "no.such.host.invalid/app:1"], ids=["no listener", "no such host"])
def test_nobody_there(store: ImageStore, reference: str) -> None:
    with pytest.raises(ImageError) as refused:
        resolved(source(reference), store)
    assert refused.value.code == "RegistryUnreachable"
    assert refused.value.retry_after_s is not None


def test_a_pull_that_failed_goes_on_where_it_ended(registry: MoodyRegistry, store: ImageStore) -> None:
    digest, path = one_layer(registry, noise_layer(20 * MIB))
    registry.mood = lambda answering: answering.path == path and answering.hang_up(12 * MIB if answering.seen == 0 else 0)
    with pytest.raises(ImageError):
        pulled(source(f"{registry.host}/app:1"), store, digest)
    assert untouched(store)
    tried = len(registry.asked(path))
    registry.mood = lambda _: False
    pulled(source(f"{registry.host}/app:1"), store, digest)
    assert [headers.get("range") for headers in registry.asked(path)[tried:]] == [f"bytes={12 * MIB}-"]


def test_a_kept_download_that_went_bad_is_had_again_in_full(registry: MoodyRegistry, store: ImageStore) -> None:
    digest, path = one_layer(registry, noise_layer(20 * MIB))
    registry.mood = lambda answering: answering.path == path and answering.hang_up(12 * MIB if answering.seen == 0 else 0)
    with pytest.raises(ImageError):
        pulled(source(f"{registry.host}/app:1"), store, digest)
    (part,) = Path(store.paths.images, "making").glob("*/*.part")
    data = bytearray(part.read_bytes())
    data[5 * MIB] ^= 1
    part.write_bytes(data)
    registry.mood = lambda _: False
    assert pulled(source(f"{registry.host}/app:1"), store, digest).digest == digest


# --- refusals


@pytest.mark.parametrize("status", [429, 503, 500, 408])
def test_a_busy_registry_is_asked_again(registry: MoodyRegistry, store: ImageStore, status: int) -> None:
    registry.add("app", Image((make_layer({"a": "b"}),)))

    def mood(answering: Answering) -> bool:
        if answering.seen < 2:
            answering.status, answering.body = status, b"{}"
        return False

    registry.mood = mood
    assert pulled(source(f"{registry.host}/app:1"), store)


def test_the_servers_own_waiting_time_is_kept(registry: MoodyRegistry, store: ImageStore) -> None:
    registry.add("app", Image((make_layer({"a": "b"}),)))

    def mood(answering: Answering) -> bool:
        if "manifests" in answering.path and answering.seen == 0:
            answering.status = 429
            answering.headers["Retry-After"] = "0"
        return False

    registry.mood = mood
    assert resolved(source(f"{registry.host}/app:1"), store)

    def later(answering: Answering) -> bool:
        answering.status, answering.headers["Retry-After"] = 429, "7200"
        answering.body = as_json({"errors": [{"code": "TOOMANYREQUESTS", "message": "pull rate\n\x1b[31mlimit"}]})
        return False

    registry.requests.clear()
    registry.mood = later
    with pytest.raises(ImageError, match="TOOMANYREQUESTS: pull rate") as refused:
        resolved(source(f"{registry.host}/app:1"), store)
    assert (refused.value.code, refused.value.retry_after_s) == ("RateLimited", 7200)
    assert "\x1b" not in str(refused.value)
    assert len(registry.asked("manifests")) == 1, "it asked to be left alone"


def test_a_date_to_come_back_at_is_understood(registry: MoodyRegistry, store: ImageStore) -> None:
    def mood(answering: Answering) -> bool:
        answering.status = 503
        answering.headers["Retry-After"] = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 900))
        return False

    registry.mood = mood
    with pytest.raises(ImageError) as refused:
        resolved(source(f"{registry.host}/app:1"), store)
    assert refused.value.retry_after_s == pytest.approx(900, abs=30)


# --- lies


@pytest.mark.parametrize("size", [MIB, 10 * MIB])
@pytest.mark.parametrize("lie", ["other bytes", "fewer bytes", "more bytes", "a page", "nothing", "endless"])
def test_a_lying_registry_leaves_nothing(registry: MoodyRegistry, store: ImageStore, lie: str, size: int) -> None:
    digest, path = one_layer(registry, noise_layer(size))
    true = registry.content[path][1]
    told = {
        "other bytes": true[:-2000] + b"\1" + true[-1999:],
        "fewer bytes": true[:-1024],
        "more bytes": true + bytes(1024),
        "a page": b"<html>Welcome to the hotel's network</html>",
        "nothing": b"",
        "endless": true + bytes(30 * MIB),
    }[lie]
    registry.content[path] = ("application/octet-stream", told)
    with pytest.raises(ImageError) as refused:
        pulled(source(f"{registry.host}/app:1"), store, digest)
    assert refused.value.code in ("DigestMismatch", "InvalidImage", "RegistryUnreachable")
    assert untouched(store)
    registry.content[path] = ("application/octet-stream", true)
    assert pulled(source(f"{registry.host}/app:1"), store, digest).digest == digest


def test_another_manifest_than_asked_for_is_refused(registry: MoodyRegistry, store: ImageStore) -> None:
    digest = registry.add("app", Image((make_layer({"a": "b"}),)))
    other = Image((make_layer({"evil": "x"}),)).manifest()
    registry.content[f"/v2/app/manifests/{digest}"] = (other.media_type, other.data)
    with pytest.raises(ImageError) as refused:
        pulled(source(f"{registry.host}/app:1"), store, digest)
    assert refused.value.code == "DigestMismatch"


def test_another_configuration_than_named_is_refused(registry: MoodyRegistry, store: ImageStore) -> None:
    image = Image((make_layer({"a": "b"}),))
    digest = registry.add("app", image)
    evil = Image(image.layers, {"User": "root", "Cmd": ["evil"]}).config_blob()
    registry.content[f"/v2/app/blobs/{image.config_blob().digest}"] = ("application/octet-stream", evil.data)
    with pytest.raises(ImageError) as refused:
        pulled(source(f"{registry.host}/app:1"), store, digest)
    assert refused.value.code == "DigestMismatch"


def test_a_layer_that_unpacks_to_another_than_configured_is_refused(registry: MoodyRegistry, store: ImageStore) -> None:
    """The manifest is signed by its digest; the layer below it is not the one the configuration names."""
    image, other = Image((make_layer({"a": "b"}),)), make_layer({"evil": "x"})
    blob = Blob("application/vnd.oci.image.layer.v1.tar", other.tar)
    body = {"schemaVersion": 2, "config": image.config_blob().descriptor, "layers": [blob.descriptor]}
    manifest = Blob("application/vnd.oci.image.manifest.v1+json", as_json(body))
    registry.content[f"/v2/app/blobs/{image.config_blob().digest}"] = ("", image.config_blob().data)
    registry.content[f"/v2/app/blobs/{blob.digest}"] = ("x", blob.data)
    registry.content[f"/v2/app/blobs/{image.config_blob().digest}"] = ("x", image.config_blob().data)
    digest = registry.add_manifest("app", manifest, "1")
    with pytest.raises(ImageError, match="configuration says") as refused:
        pulled(source(f"{registry.host}/app:1"), store, digest)
    assert refused.value.code == "DigestMismatch"
    assert untouched(store)


def test_a_registry_without_types_and_lengths_is_understood(registry: MoodyRegistry, store: ImageStore) -> None:
    digest = registry.add("app", Image((noise_layer(2 * MIB),)))

    def mood(answering: Answering) -> bool:
        handler = answering.handler
        handler.send_response(answering.status)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(answering.body)
        handler.close_connection = True
        return True

    registry.mood = mood
    assert pulled(source(f"{registry.host}/app:1"), store).digest == digest


def test_a_bomb_is_refused_early(registry: MoodyRegistry, store: ImageStore) -> None:

    bomb = gzip.compress(make_layer({"zeros": bytes(300 * MIB)}, compression="none").tar, 9)
    config = Image((make_layer({"a": "b"}),)).config_blob()
    blob = Blob("application/vnd.oci.image.layer.v1.tar+gzip", bomb)
    for part in (config, blob):
        registry.content[f"/v2/app/blobs/{part.digest}"] = ("x", part.data)
    body = {"schemaVersion": 2, "config": config.descriptor, "layers": [blob.descriptor]}
    digest = registry.add_manifest("app", Blob("application/vnd.oci.image.manifest.v1+json", as_json(body)), "1")
    with pytest.raises(ImageError, match="a bomb"):
        pulled(source(f"{registry.host}/app:1"), store, digest)
    assert untouched(store)


# --- redirects, and who learns what


def test_storage_behind_a_redirect_never_learns_the_authorization(registry: MoodyRegistry, store: ImageStore) -> None:
    with MoodyRegistry() as storage:
        digest, path = one_layer(registry, noise_layer(MIB))
        storage.content["/store/layer?signature=1"] = registry.content[path]
        basic = "Basic " + base64.b64encode(b"puller:a password").decode()

        def mood(answering: Answering) -> bool:
            if answering.handler.headers.get("Authorization") != basic:
                answering.status, answering.headers["WWW-Authenticate"] = 401, 'Basic realm="x"'
            elif answering.path == path:
                answering.status, answering.body = 307, b""
                answering.headers["Location"] = f"http://{storage.host}/store/layer?signature=1"
            return False

        registry.mood = mood
        pulled(source(f"{registry.host}/app:1", credentials="c"), store, digest, values={"c": CREDENTIALS})
        assert len(storage.requests) == 1
        assert all("authorization" not in headers for _, headers in storage.requests)
        assert any("authorization" in headers for headers in registry.asked(path))


def test_a_redirect_on_the_same_host_keeps_the_authorization(registry: MoodyRegistry, store: ImageStore) -> None:
    digest, path = one_layer(registry, noise_layer(MIB))
    registry.content["/moved"] = registry.content[path]

    def mood(answering: Answering) -> bool:
        if "authorization" not in {name.lower() for name in answering.handler.headers}:
            answering.status, answering.headers["WWW-Authenticate"] = 401, 'Basic realm="x"'
        elif answering.path == path:
            answering.status, answering.headers["Location"] = 302, "/moved"
        return False

    registry.mood = mood
    pulled(source(f"{registry.host}/app:1", credentials="c"), store, digest, values={"c": CREDENTIALS})
    assert all("authorization" in headers for headers in registry.asked("/moved"))


def test_storage_that_asks_for_a_password_gets_none(registry: MoodyRegistry, store: ImageStore) -> None:
    with MoodyRegistry() as storage:
        digest, path = one_layer(registry, noise_layer(MIB))
        storage.mood = Thief('Bearer realm="http://{host}/steal"', storage)
        registry.mood = redirecting(path, 307, f"http://{storage.host}/layer")
        with pytest.raises(ImageError, match=f"{storage.host} answered 401") as refused:
            pulled(source(f"{registry.host}/app:1", credentials="c"), store, digest, values={"c": CREDENTIALS})
        assert refused.value.code == "Unauthorized"
        assert storage.paths == ["/layer"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_token_server_cannot_send_the_password_elsewhere(registry: MoodyRegistry, store: ImageStore, status: int) -> None:
    with MoodyRegistry() as elsewhere:
        registry.add("app", Image((make_layer({"a": "b"}),)))
        elsewhere.mood = thief = Thief("", elsewhere)
        gate = TokenGate(registry, knows_post=True)
        redirect = redirecting("/token", status, f"http://{elsewhere.host}/steal")
        registry.mood = lambda answering: redirect(answering) or gate.check(answering)
        with pytest.raises(ImageError) as refused:
            resolved(source(f"{registry.host}/app:1", credentials="c"), store, {"c": CREDENTIALS})
        assert refused.value.code in ("Unauthorized", "RegistryUnreachable")
        assert not thief.bodies
        assert all("authorization" not in headers for _, headers in elsewhere.requests)


def test_a_token_server_may_move_on_its_own_host(registry: MoodyRegistry, store: ImageStore) -> None:
    registry.add("app", Image((make_layer({"a": "b"}),)))
    gate = TokenGate(registry, knows_post=True)
    redirect = redirecting("/token", 307, "/token/here")
    registry.mood = lambda answering: redirect(answering) or gate(answering)
    assert resolved(source(f"{registry.host}/app:1", credentials="c"), store, {"c": CREDENTIALS})
    assert "grant_type=password" in gate.forms[-1]


@pytest.mark.parametrize("credentials", ["c", None])
def test_a_password_given_for_an_encrypted_registry_is_not_sent_in_clear(
    registry: MoodyRegistry, store: ImageStore, tmp_path: Path, credentials: str | None
) -> None:
    pair = Authority(tmp_path).issue("registry", names=("127.0.0.1",))
    with MoodyRegistry(tls=pair) as encrypted:
        encrypted.add("app", Image((make_layer({"a": "b"}),)))
        registry.mood = gate = TokenGate(registry, knows_post=True)
        encrypted.mood = lambda answering: answering.path != "/v2/" and gate.check(answering)
        where = source(f"{encrypted.host}/app:1", credentials=credentials)
        if credentials:
            with pytest.raises(ImageError, match="without encryption"):
                resolved(where, store, {"c": CREDENTIALS})
            assert not registry.requests
        else:
            assert resolved(where, store), "who has no password needs to hide none"


class Thief:
    """A mood: whoever asks shall log in as `challenge` says. Keeps what it is sent."""

    def __init__(self, challenge: str, registry: MoodyRegistry) -> None:
        self.challenge, self.registry = challenge, registry
        self.bodies: list[bytes] = []

    def __call__(self, answering: Answering) -> bool:
        length = int(answering.handler.headers.get("Content-Length", 0))
        if length:
            self.bodies.append(answering.handler.rfile.read(length))
        answering.status = 401
        answering.headers["WWW-Authenticate"] = self.challenge.format(host=self.registry.host)
        return False


def redirecting(path: str, status: int, target: str) -> Mood:
    def mood(answering: Answering) -> bool:
        if answering.path.partition("?")[0] != path:
            return False
        answering.handler.rfile.read(int(answering.handler.headers.get("Content-Length", 0)))
        answering.status, answering.body, answering.headers["Location"] = status, b"", target
        answering.send()
        return True

    return mood


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "//", "http://", "http://[", "http://x:y/"])
def test_redirects_lead_to_web_servers_only(registry: MoodyRegistry, store: ImageStore, target: str) -> None:
    digest, path = one_layer(registry, noise_layer(MIB))

    def mood(answering: Answering) -> bool:
        if answering.path == path:
            answering.status, answering.headers["Location"] = 302, target
        return False

    registry.mood = mood
    with pytest.raises(ImageError):
        pulled(source(f"{registry.host}/app:1"), store, digest)


def test_redirects_in_a_circle_end(registry: MoodyRegistry, store: ImageStore) -> None:
    def mood(answering: Answering) -> bool:
        answering.status, answering.headers["Location"] = 302, answering.path
        return False

    registry.mood = mood
    with pytest.raises(ImageError, match="circle"):
        resolved(source(f"{registry.host}/app:1"), store)


# --- a proxy


def test_a_proxy_learns_its_password_and_nobody_else_does(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with MoodyRegistry() as proxy, MoodyRegistry() as storage:
        digest, path = one_layer(proxy, noise_layer(MIB))
        for asked, answer in list(proxy.content.items()):
            proxy.content[f"http://registry.invalid{asked}"] = answer
        storage.content["/layer"] = proxy.content[path]
        redirect = redirecting(f"http://registry.invalid{path}", 307, f"http://{storage.host}/layer")

        def mood(answering: Answering) -> bool:
            if answering.handler.headers.get("Proxy-Authorization") != "Basic dXNAZXI6cDp3":
                answering.status = 407
                return False
            return redirect(answering)

        proxy.mood = mood
        monkeypatch.setenv("http_proxy", f"http://us%40er:p%3Aw@{proxy.host}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        pulled(source("registry.invalid/app:1"), store, digest)
        assert all("proxy-authorization" not in headers for _, headers in storage.requests)
        assert storage.paths == ["/layer"]


# --- tokens


class TokenGate:
    """A mood: a token is wanted, and /token gives some. `knows_post`: it also speaks OAuth2."""

    def __init__(self, registry: MoodyRegistry, *, knows_post: bool, lifetime: int = 10**9, realm: str | None = None) -> None:
        self.registry, self.knows_post, self.lifetime = registry, knows_post, lifetime
        self.realm = realm or f"http://{registry.host}/token"
        self.given = self.uses = 0
        self.forms: list[str] = []

    def __call__(self, answering: Answering) -> bool:
        if answering.path.startswith("/token"):
            self.give(answering)
        elif answering.path != "/v2/":
            self.check(answering)
        return False

    def give(self, answering: Answering) -> None:
        handler = answering.handler
        if handler.command == "POST" and not self.knows_post:
            answering.status = 404
            return
        if handler.command == "POST":
            self.forms.append(handler.rfile.read(int(handler.headers["Content-Length"])).decode())
        self.given += 1
        self.uses = 0
        answering.status = 200
        answering.body = as_json({"access_token" if self.knows_post else "token": f"token-{self.given}", "expires_in": 60})

    def check(self, answering: Answering) -> bool:
        self.uses += 1
        if answering.handler.headers.get("Authorization") != f"Bearer token-{self.given}" or self.uses > self.lifetime:
            answering.status, answering.body = 401, b""
            answering.headers["WWW-Authenticate"] = f'Bearer realm="{self.realm}",service="test",scope="repository:app:pull"'
        return False


@pytest.mark.parametrize("knows_post", [True, False])
def test_one_token_serves_all_layers(registry: MoodyRegistry, store: ImageStore, knows_post: bool) -> None:
    digest = registry.add("app", Image(tuple(noise_layer(MIB, f"f{number}") for number in range(6))))
    registry.mood = gate = TokenGate(registry, knows_post=knows_post)
    pulled(source(f"{registry.host}/app:1", credentials="c"), store, digest, values={"c": CREDENTIALS})
    assert gate.given == 1
    assert ("grant_type=password" in gate.forms[0]) if knows_post else not gate.forms


def test_an_identity_token_is_exchanged(registry: MoodyRegistry, store: ImageStore) -> None:
    registry.add("app", Image((make_layer({"a": "b"}),)))
    registry.mood = gate = TokenGate(registry, knows_post=True)
    resolved(source(f"{registry.host}/app:1", credentials="c"), store, {"c": b'{"identitytoken": "id-token"}'})
    assert "grant_type=refresh_token" in gate.forms[0]
    assert "refresh_token=id-token" in gate.forms[0]


def test_a_token_that_expires_is_renewed(registry: MoodyRegistry, store: ImageStore) -> None:
    digest = registry.add("app", Image(tuple(noise_layer(MIB, f"f{number}") for number in range(6))))
    registry.mood = gate = TokenGate(registry, knows_post=False, lifetime=5)
    pulled(source(f"{registry.host}/app:1"), store, digest)
    assert gate.given >= 2


def test_a_registry_that_accepts_no_token_of_its_own_is_not_asked_forever(registry: MoodyRegistry, store: ImageStore) -> None:
    registry.mood = gate = TokenGate(registry, knows_post=False, lifetime=0)
    with pytest.raises(ImageError) as refused:
        resolved(source(f"{registry.host}/app:1"), store)
    assert (refused.value.code, gate.given) == ("Unauthorized", 1)


@pytest.mark.parametrize("realm", ["http://[/token", "http://x:99999/token"])
def test_a_token_server_with_a_broken_address_is_told_of(registry: MoodyRegistry, store: ImageStore, realm: str) -> None:
    registry.mood = TokenGate(registry, knows_post=False, realm=realm)
    with pytest.raises(ImageError, match="no address") as refused:
        resolved(source(f"{registry.host}/app:1"), store)
    assert refused.value.code == "RegistryUnreachable"


@pytest.mark.parametrize("realm", ["", "ftp://x/token", "file:///etc/passwd", "token"])
def test_a_token_server_without_an_address_is_no_token_server(registry: MoodyRegistry, store: ImageStore, realm: str) -> None:
    registry.mood = TokenGate(registry, knows_post=False, realm=realm or " ")
    with pytest.raises(ImageError) as refused:
        resolved(source(f"{registry.host}/app:1", credentials="c"), store, {"c": CREDENTIALS})
    assert refused.value.code == "Unauthorized"


# --- cancelling, and several at once


def test_cancelling_ends_a_pull_that_waits_for_the_network(registry: MoodyRegistry, store: ImageStore) -> None:
    digest, path = one_layer(registry, noise_layer(9 * MIB))
    waiting, cancellation = threading.Event(), Cancellation()

    def mood(answering: Answering) -> bool:
        if answering.path != path:
            return False
        answering.hang_up(2 * MIB)
        waiting.set()
        return not registry.released.wait(20)

    registry.mood = mood

    def change_mind() -> None:
        waiting.wait(20)
        cancellation.cancel()

    threading.Thread(target=change_mind).start()
    before = time.monotonic()
    with pytest.raises(Interrupted):
        pulled(source(f"{registry.host}/app:1"), store, digest, cancellation=cancellation)
    assert time.monotonic() - before < 10
    assert untouched(store)


def test_two_pulls_of_one_image_fetch_each_layer_once(registry: MoodyRegistry, store: ImageStore) -> None:
    image = Image(tuple(noise_layer(MIB, f"f{number}") for number in range(5)))
    digest = registry.add("app", image)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            pulled(source(f"{registry.host}/app:1"), store, digest)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for blob in image.layer_blobs():
        assert len(registry.asked(blob.digest)) == 1
    assert store.get(digest) is not None


def test_a_failed_layer_ends_the_others(registry: MoodyRegistry, store: ImageStore) -> None:
    image = Image((noise_layer(2 * MIB, "slow"), make_layer({"../bad": "x"})))
    digest = registry.add("app", image)
    slow = image.layer_blobs()[0].digest

    def mood(answering: Answering) -> bool:
        if slow not in answering.path:
            return False
        answering.hang_up(MIB)
        return not registry.released.wait(20)

    registry.mood = mood
    before = time.monotonic()
    with pytest.raises(ImageError, match="outside of its root"):
        pulled(source(f"{registry.host}/app:1"), store, digest)
    assert time.monotonic() - before < 10
    assert untouched(store)
