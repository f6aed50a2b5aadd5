"""Pulls from a real registry: what is asked for, by whom, and what is here afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from moorage_agent.errors import ImageError
from moorage_agent.images.pull_process import pull_apart, resolve_apart
from moorage_agent.images.store import ImageStore
from moorage_agent.protocol import ImageConfig, ImageSpec

from tests.kube import Image, Index, Login, Registry, busybox, busybox_image, make_layer, push
from tests.kube.certificates import Authority
from tests.kube.images import NATIVE, busybox_layer, for_other_machine
from tests.root.images.pulling import CREDENTIALS, content, noise_layer, pulled, resolved, source, untouched
from tests.root.images.trees import overlay, tree_of

pytestmark = pytest.mark.root
LOGIN = Login("puller", "a password")
NOTHING: dict[str, bytes] = {}
NO_VALUES = NOTHING.__getitem__


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry() as running:
        yield running


def test_an_image_is_pulled_and_runs(registry: Registry, store: ImageStore, tmp_path: Path) -> None:
    layer = make_layer({"etc/greeting": "hello", "tmp/x": "", "run/.wh..wh..opq": "", "bin/.wh.vi": ""})
    digest = busybox_image(registry, "team/app:1.0", layer, config={"User": "nobody", "Env": ["A=b"]})
    found = resolved(source(f"{registry.host}/team/app:1.0"), store)
    assert (found.digest, found.platform, len(found.layers)) == (digest, f"linux/{NATIVE}", 2)
    assert found.config == ImageConfig(command=("sh",), env=("A=b",), user="nobody")
    told: list[tuple[int, int]] = []
    image = pulled(source(f"{registry.host}/team/app:1.0"), store, digest, told=told)
    assert image.digest == digest
    assert image.config == found.config
    assert told[-1] == (found.size, found.size)
    with overlay(image.layers, tmp_path / "mount") as root:
        tree = tree_of(root)
    assert tree["etc/greeting"].content == b"hello"
    assert "bin/vi" not in tree
    assert tree["tmp"].mode == 0o1777, "the layer on top only implies it"


def test_an_image_that_is_here_is_had_without_a_word(registry: Registry, store: ImageStore) -> None:
    digest = busybox_image(registry, "quiet:1")
    pulled(source(f"{registry.host}/quiet:1"), store, digest)
    before = len(registry.requests())
    assert pulled(source(f"{registry.host}/quiet:1"), store, digest).digest == digest
    assert len(registry.requests()) == before


def test_what_was_resolved_is_asked_for_once(registry: Registry, store: ImageStore) -> None:
    digest = busybox_image(registry, "once:1", make_layer({"once": "x"}))
    before = len(registry.requests())
    pulled(source(f"{registry.host}/once:1"), store)
    asked = registry.requests()[before:]
    assert [path for path in asked if "manifests" in path] == ["GET /v2/once/manifests/1"]
    assert len(asked) == 4, "the manifest, the configuration, two layers"
    assert store.get(digest) is not None


def test_shared_layers_are_kept_once(registry: Registry, store: ImageStore) -> None:
    busybox_image(registry, "one:1", make_layer({"one": "1"}))
    busybox_image(registry, "two:1", make_layer({"two": "2"}))
    one = pulled(source(f"{registry.host}/one:1"), store)
    before = len(registry.requests())
    two = pulled(source(f"{registry.host}/two:1"), store)
    assert len([path for path in registry.requests()[before:] if "blobs" in path]) == 2, "a configuration and one layer"
    assert one.layers[-1] == two.layers[-1]
    assert len(store.sizes()) == 3


def test_an_image_of_one_layer_twice_runs(registry: Registry, store: ImageStore, tmp_path: Path) -> None:
    same = make_layer({"same": "x"})
    digest = push(registry, "twice:1", Image((same, busybox_layer(), make_layer({".wh.same": ""}), same)))
    image = pulled(source(f"{registry.host}/twice:1"), store)
    with overlay(image.layers, tmp_path / "mount") as root:
        assert (root / "same").read_text() == "x"
        assert (root / "bin/busybox").exists()
    record = Path(store.paths.images, "records", digest[7:])
    said = json.loads(record.read_bytes())
    record.write_text(json.dumps({**said, "layers": [*said["layers"], said["layers"][0]]}))
    assert store.get(digest) == image, "as it was written down before each layer was named once"


@pytest.mark.parametrize("docker", [True, False])
def test_of_an_index_the_own_platform_is_pulled(registry: Registry, store: ImageStore, docker: bool) -> None:
    mine = busybox(make_layer({"mine": "x"}), docker=docker)
    index = Index((for_other_machine(mine, "s390x"), mine, for_other_machine(mine, "riscv64")), docker=docker)
    digest = push(registry, f"many-{docker:d}:1", index)
    found = resolved(source(f"{registry.host}/many-{docker:d}:1"), store)
    assert found.digest == mine.manifest().digest
    assert set(found.platforms) == {"linux/s390x", f"linux/{NATIVE}", "linux/riscv64"}
    by_digest = resolved(source(f"{registry.host}/many-{docker:d}@{digest}"), store)
    assert by_digest.digest == found.digest, "an index' digest leads to the platform's manifest"
    other = resolved(source(f"{registry.host}/many-{docker:d}:1", platform="linux/s390x"), store)
    assert (other.platform, other.digest) == ("linux/s390x", index.images[0].manifest().digest)
    assert pulled(source(f"{registry.host}/many-{docker:d}@{digest}"), store, found.digest).digest == found.digest


def test_an_index_is_no_pin(registry: Registry, store: ImageStore) -> None:
    digest = push(registry, "pinned:1", Index((busybox(),)))
    with pytest.raises(ImageError, match="pin the digest of one of them") as refused:
        pulled(source(f"{registry.host}/pinned:1"), store, digest)
    assert refused.value.code == "InvalidReference"


def test_an_image_for_other_machines_only_is_refused(registry: Registry, store: ImageStore) -> None:
    push(registry, "foreign:1", for_other_machine(busybox(), "s390x"))
    push(registry, "foreign:2", Index((for_other_machine(busybox(), "s390x"),)))
    for tag in "12":
        with pytest.raises(ImageError, match="it offers linux/s390x") as refused:
            resolved(source(f"{registry.host}/foreign:{tag}"), store)
        assert (refused.value.code, refused.value.retry_after_s) == ("NoMatchingPlatform", None)


@pytest.mark.usefixtures("zstd_program")
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_every_compression_is_taken_off(registry: Registry, store: ImageStore, compression: str) -> None:
    push(registry, f"packed-{compression}:1", Image((make_layer({"file": compression * 1000}, compression=compression),)))
    assert content(pulled(source(f"{registry.host}/packed-{compression}:1"), store), "file") == compression.encode() * 1000


def test_what_is_not_there_is_named(registry: Registry, store: ImageStore) -> None:
    busybox_image(registry, "there:1")
    for name in ("there:2", "nowhere:1"):
        with pytest.raises(ImageError, match=f"{name} was not found") as refused:
            resolved(source(f"{registry.host}/{name}"), store)
        assert refused.value.code == "NotFound"


# --- who may pull


@pytest.mark.parametrize("tokens", [True, False])
def test_credentials_open_a_private_repository(store: ImageStore, tokens: bool) -> None:
    with Registry(login=LOGIN, tokens=tokens) as registry:
        busybox_image(registry, "team/private:1", noise_layer(100_000))
        where = source(f"{registry.host}/team/private:1", credentials="pull/ns/secret")
        assert pulled(where, store, values={"pull/ns/secret": CREDENTIALS}).layers
        for value in (b'{"username": "puller", "password": "wrong"}', b'{"username": "other", "password": "a password"}'):
            with pytest.raises(ImageError, match="check the pull secret") as refused:
                resolved(where, store, {"pull/ns/secret": value})
            assert refused.value.code == "Unauthorized"
            assert "password" not in str(refused.value).replace("user and password", "")
        with pytest.raises(ImageError, match="name a pull secret"):
            resolved(source(f"{registry.host}/team/private:1"), store)


def test_no_secret_reaches_the_disk(store: ImageStore) -> None:
    with Registry(login=LOGIN, tokens=True) as registry:
        busybox_image(registry, "private:1")
        where = source(f"{registry.host}/private:1", credentials="key")
        digest = resolve_apart(where, {"key": CREDENTIALS}.__getitem__, store).digest
        pull_apart(ImageSpec(digest, where), {"key": CREDENTIALS}.__getitem__, store, lambda *_: None)
    for path in Path(store.paths.images).rglob("*"):
        if path.is_file() and not path.is_symlink() and "layers" not in path.parts:
            assert b"a password" not in path.read_bytes()


# --- TLS


def test_a_registry_with_a_certificate_of_its_own_needs_its_authority(store: ImageStore, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("registry", names=("127.0.0.1",))
    with Registry(address="127.0.0.1", tls=pair) as registry:
        busybox_image(registry, "safe:1")
        values = {"ca": authority.certificate.read_bytes(), "junk": b"no certificate"}
        assert resolved(source(f"{registry.host}/safe:1", insecure=False, ca_bundle="ca"), store, values)
        assert resolved(source(f"{registry.host}/safe:1", insecure=True), store)
        with pytest.raises(ImageError, match="caBundle") as refused:
            resolved(source(f"{registry.host}/safe:1", insecure=False), store)
        assert refused.value.code == "CertificateRejected"
        with pytest.raises(ImageError, match="PEM"):
            resolved(source(f"{registry.host}/safe:1", insecure=False, ca_bundle="junk"), store, values)


def test_plain_http_is_for_those_who_ask_for_it(registry: Registry, store: ImageStore) -> None:
    busybox_image(registry, "plain:1")
    before = len(registry.requests())
    with pytest.raises(ImageError) as refused:
        resolved(source(f"{registry.host}/plain:1", insecure=False), store)
    assert refused.value.code == "RegistryUnreachable"
    assert len(registry.requests()) == before


# --- bad images


def test_a_bad_layer_spoils_nothing(registry: Registry, store: ImageStore) -> None:
    for number, layer in enumerate([make_layer({"../up": "x"}), make_layer({"a": "x", "a/b": "y"}), make_layer({".wh.": ""})]):
        push(registry, f"bad-{number}:1", Image((busybox_layer(), layer)))
        with pytest.raises(ImageError, match="layer sha256:") as refused:
            pulled(source(f"{registry.host}/bad-{number}:1"), store)
        assert (refused.value.code, refused.value.retry_after_s) == ("InvalidImage", None)
        assert untouched(store)
    assert pulled(source(f"{registry.host}/bad-0:1".replace("bad-0", "good")), store, busybox_image(registry, "good:1"))


def test_an_image_without_layers_is_refused(registry: Registry, store: ImageStore) -> None:
    push(registry, "empty:1", Image(()))
    with pytest.raises(ImageError, match="no layers"):
        resolved(source(f"{registry.host}/empty:1"), store)


def test_the_process_tells_what_the_call_would(registry: Registry, store: ImageStore) -> None:
    digest = busybox_image(registry, "apart:1", noise_layer(300_000))
    where = source(f"{registry.host}/apart:1")
    assert resolve_apart(where, NO_VALUES, store) == resolved(where, store)
    told: list[tuple[int, int]] = []
    image = pull_apart(ImageSpec(digest, where), NO_VALUES, store, lambda done, total: told.append((done, total)))
    assert image == store.get(digest)
    assert told[-1][0] == told[-1][1] > 300_000
    with pytest.raises(ImageError) as refused:
        resolve_apart(source(f"{registry.host}/apart:2"), NO_VALUES, store)
    assert (refused.value.code, refused.value.retry_after_s) == ("NotFound", 60)


def test_a_record_of_another_form_is_pulled_again(registry: Registry, store: ImageStore) -> None:
    digest = busybox_image(registry, "again:1")
    image = pulled(source(f"{registry.host}/again:1"), store, digest)
    record = Path(store.paths.images, "records", digest[7:])
    for damage in (b"", b"[]", b"{", json.dumps({"digest": 5}).encode()):
        record.write_bytes(damage)
        assert store.get(digest) is None
        assert pulled(source(f"{registry.host}/again:1"), store, digest) == image


# --- what another version of the agent wrote


@pytest.mark.parametrize("form", [b'"shiny":1,', None], ids=["says more", "unreadable"])
def test_a_layer_is_not_taken_from_below_containers_because_a_later_agent_made_it(
    registry: Registry, store: ImageStore, form: bytes | None
) -> None:
    busybox_image(registry, "later:1", make_layer({"one": "1"}))
    pulled(source(f"{registry.host}/later:1"), store)
    layers = sorted(Path(store.paths.images, "layers").iterdir())
    before = [(layer / "fs").stat().st_ino for layer in layers]
    for layer in layers:
        said = (layer / "ok").read_bytes()
        (layer / "ok").write_bytes(b"{" + form + said[1:] if form else b"another form")
    busybox_image(registry, "later:2", make_layer({"two": "2"}))
    if form:
        assert content(pulled(source(f"{registry.host}/later:2"), store), "two") == b"2"
    else:
        with pytest.raises(ImageError, match="cannot read") as refused:
            pulled(source(f"{registry.host}/later:2"), store)
        assert (refused.value.code, refused.value.retry_after_s) == ("StoreFailed", 300)
    assert [(layer / "fs").stat().st_ino for layer in layers] == before


def test_the_layers_of_an_image_whose_record_a_later_agent_wrote_stay(registry: Registry, store: ImageStore) -> None:
    digest, other = busybox_image(registry, "kept:1", make_layer({"one": "1"})), busybox_image(registry, "aged:1", make_layer({"two": "2"}))
    image = pulled(source(f"{registry.host}/kept:1"), store, digest)
    pulled(source(f"{registry.host}/aged:1"), store, other)
    record = Path(store.paths.images, "records", digest[7:])
    said = record.read_bytes()
    record.write_bytes(b"another form")
    assert store.sweep([digest]).images == (other,)
    assert all(Path(layer).exists() for layer in image.layers)
    record.write_bytes(said)
    assert store.get(digest) == image
    assert store.sweep([digest]).layers == 1, "the other image's own"
