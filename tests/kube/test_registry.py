"""The bench's registry is a real one, its images are ones other programs accept, and its archives say the same as its manifests."""

from __future__ import annotations

import io
import json
import socket
import ssl
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kube import Entry, Image, Index, Login, Registry, busybox, busybox_image, make_layer, push
from tests.kube.archives import write_docker_save, write_oci_layout, write_rootfs
from tests.kube.certificates import Authority
from tests.kube.images import OCI_INDEX, OCI_MANIFEST, busybox_layer, digest_of, for_other_machine, symlink
from tests.kube.push import Response, send

pytestmark = pytest.mark.kube

LOGIN = Login("puller", "a password")


@pytest.fixture(scope="module")
def open_registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


def ask(
    registry: Registry, path: str, *, accept: str = "*/*", authorization: str | None = None, tls: ssl.SSLContext | None = None
) -> Response:
    headers = {"Accept": accept, **({"Authorization": authorization} if authorization else {})}
    return send("GET", f"{registry.url}/v2/{path}", None, headers, tls=tls)


def fetch(registry: Registry, path: str, *, accept: str = "*/*") -> bytes:
    answer = ask(registry, path, accept=accept)
    assert answer.status == 200, answer
    return answer.body


def test_a_pushed_image_comes_back_bit_for_bit(open_registry: Registry) -> None:
    greeting = make_layer({"etc/greeting": "hello\n", "hi": symlink("etc/greeting")})
    digest = busybox_image(open_registry, "team/greeter:1.0", greeting, config={"Cmd": ["cat", "/hi"]})
    content = fetch(open_registry, "team/greeter/manifests/1.0", accept=OCI_MANIFEST)
    assert digest_of(content) == digest
    manifest = json.loads(content)
    assert json.loads(fetch(open_registry, f"team/greeter/blobs/{manifest['config']['digest']}"))["config"]["Cmd"] == ["cat", "/hi"]
    for layer in manifest["layers"]:
        assert digest_of(fetch(open_registry, f"team/greeter/blobs/{layer['digest']}")) == layer["digest"]


def test_the_registry_tells_what_it_was_asked(open_registry: Registry) -> None:
    busybox_image(open_registry, "asked:1")
    fetch(open_registry, "asked/manifests/1", accept=OCI_MANIFEST)
    assert open_registry.requests()[-1] == "GET /v2/asked/manifests/1"


def test_an_index_offers_an_image_per_platform(open_registry: Registry) -> None:
    image = busybox()
    push(open_registry, "many:1", Index((image, for_other_machine(image, "riscv64"))))
    index = json.loads(fetch(open_registry, "many/manifests/1", accept=OCI_INDEX))
    assert {entry["platform"]["architecture"] for entry in index["manifests"]} == {image.architecture, "riscv64"}


@pytest.mark.usefixtures("zstd_program")
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("docker", [True, False])
def test_every_kind_of_layer_is_accepted(open_registry: Registry, compression: str, docker: bool) -> None:
    image = Image((make_layer({"file": "x"}, compression=compression),), docker=docker)
    name = f"kinds/{compression}-{'docker' if docker else 'oci'}"
    push(open_registry, f"{name}:1", image)
    blob = image.layer_blobs()[0]
    assert fetch(open_registry, f"{name}/blobs/{blob.digest}") == blob.data


def test_a_wrong_password_is_refused() -> None:
    with Registry(login=LOGIN) as registry:
        busybox_image(registry, "private:1")
        answers = [
            ask(registry, "private/manifests/1", accept=OCI_MANIFEST, authorization=authorization).status
            for authorization in (LOGIN.basic, None, Login("puller", "another").basic)
        ]
        assert answers == [200, 401, 401]


def test_tokens_are_asked_for_where_the_registry_says() -> None:
    with Registry(login=LOGIN, tokens=True) as registry:
        busybox_image(registry, "team/private:1")
        assert registry.token_server is not None
        assert set(registry.token_server.asked) == {"repository:team/private:pull,push"}
        refused = ask(registry, "team/private/manifests/1", accept=OCI_MANIFEST, authorization=LOGIN.basic)
        assert refused.status == 401
        assert registry.token_server.realm in refused.headers["www-authenticate"]


def test_tls_is_spoken_with_the_given_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("registry", names=("127.0.0.1",))
    with Registry(address="127.0.0.1", tls=pair) as registry:
        busybox_image(registry, "safe:1")
        trusting = ssl.create_default_context(cafile=str(authority.certificate))
        assert ask(registry, "safe/manifests/1", accept=OCI_MANIFEST, tls=trusting).status == 200
        with socket.create_connection((registry.address, registry.port)) as plain, pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_stopped_registry_refuses_and_comes_back_with_what_it_held() -> None:
    with Registry() as registry:
        busybox_image(registry, "kept:1")
        registry.stop()
        with pytest.raises(ConnectionRefusedError):
            fetch(registry, "kept/manifests/1")
        registry.start()
        fetch(registry, "kept/manifests/1", accept=OCI_MANIFEST)


# --- images and archives


def members(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.isreg()}  # type: ignore[union-attr]


def test_the_same_entries_make_the_same_layer() -> None:
    entries: dict[str, Any] = {"a": "text", "b": Entry(b"x", 0o4755, 7, 8, xattrs={"user.note": b"seen"}), "c": Entry(None)}
    assert make_layer(entries).diff_id == make_layer(entries).diff_id
    with tarfile.open(fileobj=io.BytesIO(make_layer(entries).tar)) as archive:
        member = archive.getmember("b")
    assert (member.mode, member.uid, member.gid) == (0o4755, 7, 8)
    assert member.pax_headers["SCHILY.xattr.user.note"] == "seen"


def test_a_docker_archive_names_its_parts(tmp_path: Path) -> None:
    image = busybox(make_layer({"file": "x"}))
    files = members(write_docker_save(tmp_path / "image.tar", image, "team/app:1").read_bytes())
    (manifest,) = json.loads(files["manifest.json"])
    assert manifest["RepoTags"] == ["team/app:1"]
    assert [digest_of(files[name]) for name in manifest["Layers"]] == json.loads(files[manifest["Config"]])["rootfs"]["diff_ids"]


def test_an_oci_layout_holds_every_blob_it_refers_to(tmp_path: Path) -> None:
    image = busybox()
    files = members(write_oci_layout(tmp_path / "layout.tar", Index((image, for_other_machine(image, "s390x"))), tag="1").read_bytes())
    todo = json.loads(files["index.json"])["manifests"]
    while todo:
        entry = todo.pop()
        content = files[f"blobs/{entry['digest'].replace(':', '/')}"]
        assert digest_of(content) == entry["digest"]
        if "json" in entry["mediaType"]:
            found = json.loads(content)
            todo += [*found.get("manifests", []), *found.get("layers", []), *([found["config"]] if "layers" in found else [])]


def test_a_root_file_system_is_the_files_alone(tmp_path: Path) -> None:
    assert "bin/busybox" in members(write_rootfs(tmp_path / "rootfs.tar", Image((busybox_layer(),))).read_bytes())


def test_a_login_does_not_show_its_password() -> None:
    assert "a password" not in f"{LOGIN!r} {LOGIN}"
