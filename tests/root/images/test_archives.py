"""Images from files: what docker saves, OCI layouts, root file systems; by path, by URL, and in memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from moorage_agent.errors import ImageError
from moorage_agent.images.store import ImageStore
from moorage_agent.protocol import ImageSource

from tests.kube import Image, Index, make_layer
from tests.kube.archives import write_docker_save, write_oci_layout, write_rootfs, write_tar
from tests.kube.images import as_json, for_other_machine
from tests.root.images.moody_registry import Answering, MoodyRegistry
from tests.root.images.pulling import content, pulled, resolved, untouched

pytestmark = pytest.mark.root
IMAGE = Image((make_layer({"a": "1", "b": "2"}), make_layer({"b": "3"}, compression="none")), {"Cmd": ["run"]})
ONE_LAYER = Image((make_layer({"a": "1", "manifest.json": "{}", "etc/x": "y"}, compression="none"),))


def at(path: Path, **more: Any) -> ImageSource:
    return ImageSource(kind="ArchivePath", path=str(path), **more)


def zipped(path: Path) -> Path:
    path.write_bytes(gzip.compress(path.read_bytes()))
    return path


@pytest.mark.parametrize("pack", [lambda path: path, zipped], ids=["plain", "gzip"])
def test_what_docker_saves_is_known_by_its_configuration(store: ImageStore, tmp_path: Path, pack: Callable[[Path], Path]) -> None:
    where = at(pack(write_docker_save(tmp_path / "image.tar", IMAGE, "team/app:1")))
    found = resolved(where, store)
    assert (found.digest, found.config.command, len(found.layers)) == (IMAGE.config_blob().digest, ("run",), 2)
    image = pulled(where, store, found.digest)
    assert (content(image, "a"), content(image, "b")) == (b"1", b"3")


@pytest.mark.parametrize("pack", [lambda path: path, zipped], ids=["plain", "gzip"])
def test_an_oci_layout_is_known_by_its_manifest(store: ImageStore, tmp_path: Path, pack: Callable[[Path], Path]) -> None:
    where = at(pack(write_oci_layout(tmp_path / "image.tar", IMAGE, tag="1")))
    image = pulled(where, store)
    assert image.digest == IMAGE.manifest().digest
    assert content(image, "b") == b"3"


def test_of_a_layout_for_many_platforms_the_own_is_taken(store: ImageStore, tmp_path: Path) -> None:
    path = write_oci_layout(tmp_path / "image.tar", Index((for_other_machine(IMAGE, "s390x"), IMAGE)))
    assert resolved(at(path), store).digest == IMAGE.manifest().digest
    assert resolved(at(path, platform="linux/s390x"), store).platform == "linux/s390x"


def test_a_layout_may_lack_what_is_not_wanted(store: ImageStore, tmp_path: Path) -> None:
    foreign = for_other_machine(IMAGE, "s390x")
    path = write_oci_layout(tmp_path / "image.tar", Index((foreign, IMAGE)))
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    del files[f"blobs/{foreign.manifest().digest.replace(':', '/')}"]
    write_tar(path, files)
    assert pulled(at(path), store).digest == IMAGE.manifest().digest
    with pytest.raises(ImageError, match="lacks the blob"):
        resolved(at(path, platform="linux/s390x"), store)


@pytest.mark.parametrize("pack", [lambda path: path, zipped], ids=["plain", "gzip"])
def test_a_root_file_system_is_known_by_its_files(store: ImageStore, tmp_path: Path, pack: Callable[[Path], Path]) -> None:
    where = at(pack(write_rootfs(tmp_path / "rootfs.tar", ONE_LAYER)))
    image = pulled(where, store)
    assert content(image, "etc/x") == b"y"
    again = at(write_rootfs(tmp_path / "copy.tar", ONE_LAYER))
    assert resolved(again, store).digest == image.digest, "wherever it lies, and however it is packed"


def test_newer_docker_writes_both_and_the_layout_counts(store: ImageStore, tmp_path: Path) -> None:
    path = write_oci_layout(tmp_path / "image.tar", IMAGE)
    with tarfile.open(path, "a") as archive:
        blobs = [f"blobs/{blob.digest.replace(':', '/')}" for blob in IMAGE.layer_blobs()]
        body = as_json([{"Config": f"blobs/{IMAGE.config_blob().digest.replace(':', '/')}", "RepoTags": ["a:1"], "Layers": blobs}])
        add(archive, "manifest.json", body)
    assert pulled(at(path), store).digest == IMAGE.manifest().digest


def test_a_layer_may_be_a_link_to_another(store: ImageStore, tmp_path: Path) -> None:
    same = make_layer({"same": "x"})
    image = Image((same, make_layer({"other": "y"}), same))
    config = image.config_blob()
    with tarfile.open(tmp_path / "image.tar", "w") as archive:
        add(archive, "./one/layer.tar", same.tar)
        add(archive, "./two/layer.tar", image.layers[1].tar)
        link = tarfile.TarInfo("three/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../one/layer.tar"
        archive.addfile(link)
        add(archive, "config.json", config.data)
        add(archive, "manifest.json", as_json([{"Config": "config.json", "Layers": ["one/layer.tar", "two/layer.tar", "three/layer.tar"]}]))
    image_here = pulled(at(tmp_path / "image.tar"), store)
    assert (image_here.digest, content(image_here, "same"), content(image_here, "other")) == (config.digest, b"x", b"y")


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def test_of_several_images_one_must_be_named(store: ImageStore, tmp_path: Path) -> None:
    other = Image((make_layer({"c": "4"}),))
    files: dict[str, bytes] = {}
    entries = []
    for name, image in (("a:1", IMAGE), ("b:1", other)):
        config = f"{image.config_blob().digest[7:]}.json"
        layers = {f"{layer.diff_id[7:]}/layer.tar": layer.tar for layer in image.layers}
        files |= {config: image.config_blob().data, **layers}
        entries.append({"Config": config, "RepoTags": [name], "Layers": list(layers)})
    path = write_tar(tmp_path / "image.tar", {**files, "manifest.json": as_json(entries)})
    with pytest.raises(ImageError, match="holds 2 images"):
        resolved(at(path), store)
    assert resolved(at(path, reference="b:1"), store).digest == other.config_blob().digest
    with pytest.raises(ImageError, match="0 images called c:1"):
        resolved(at(path, reference="c:1"), store)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"oci-layout": b"{}", "index.json": b"{"}, "not JSON"),
        ({"oci-layout": b"{}", "index.json": as_json({"schemaVersion": 2, "manifests": []})}, "holds no image"),
        ({"manifest.json": as_json([{"Config": "../../etc/passwd", "Layers": ["x"]}])}, "outside of its root"),
        ({"manifest.json": as_json([{"Config": "none.json", "Layers": ["x"]}])}, "lacks the configuration"),
        ({"manifest.json": as_json([{"Config": 5, "Layers": ["x"]}])}, "malformed"),
        ({"manifest.json": as_json([{"Config": "c", "Layers": ["x"]}]), "c": IMAGE.config_blob().data}, "other layers"),
        ({"manifest.json": as_json([{"Config": "c", "Layers": ["x", "y"]}]), "c": IMAGE.config_blob().data}, "lacks the layer"),
    ],
)
def test_broken_archives_are_refused(store: ImageStore, tmp_path: Path, files: dict[str, bytes], why: str) -> None:
    with pytest.raises(ImageError, match=why) as refused:
        resolved(at(write_tar(tmp_path / "image.tar", files)), store)
    assert refused.value.code == "InvalidImage"


def test_a_layer_with_other_content_than_configured_is_refused(store: ImageStore, tmp_path: Path) -> None:
    path = write_docker_save(tmp_path / "image.tar", IMAGE)
    data = path.read_bytes()
    path.write_bytes(data.replace(IMAGE.layers[1].tar[:600], make_layer({"b": "4"}).tar[:600]))
    with pytest.raises(ImageError) as refused:
        pulled(at(path), store)
    assert refused.value.code == "DigestMismatch"
    assert untouched(store)


def test_what_is_no_archive_is_refused(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    (tmp_path / "half.tar").write_bytes(write_docker_save(tmp_path / "x.tar", IMAGE).read_bytes()[:2000])
    for name, code in (("junk", "InvalidImage"), ("half.tar", "InvalidImage"), ("none", "NotFound"), (".", "InvalidImage")):
        with pytest.raises(ImageError) as refused:
            resolved(at(tmp_path / name), store)
        assert refused.value.code == code
    with pytest.raises(ImageError, match="no file but something else"):
        resolved(ImageSource(kind="ArchivePath", path="/dev/zero"), store)


def test_an_archive_that_changed_is_not_what_was_pinned(store: ImageStore, tmp_path: Path) -> None:
    where = at(write_docker_save(tmp_path / "image.tar", IMAGE))
    digest = resolved(where, store).digest
    write_docker_save(tmp_path / "image.tar", Image((make_layer({"new": "x"}),)))
    with pytest.raises(ImageError, match="has changed since") as refused:
        pulled(where, store, digest)
    assert refused.value.code == "DigestMismatch"


def test_an_archive_may_be_a_value(store: ImageStore, tmp_path: Path) -> None:
    data = zipped(write_docker_save(tmp_path / "image.tar", IMAGE)).read_bytes()
    image = pulled(ImageSource(kind="ArchiveData", key="config/ns/name/key"), store, values={"config/ns/name/key": data})
    assert image.digest == IMAGE.config_blob().digest


# --- by URL


def by_url(server: MoodyRegistry, **more: Any) -> ImageSource:
    return ImageSource(kind="ArchiveUrl", url=f"http://{server.host}/image.tar", insecure=True, **more)


def test_a_download_is_kept_from_resolving_to_pulling(store: ImageStore, tmp_path: Path) -> None:
    with MoodyRegistry() as server:
        data = write_docker_save(tmp_path / "image.tar", IMAGE).read_bytes()
        server.content["/image.tar"] = ("application/x-tar", data)
        told: list[tuple[int, int]] = []
        digest = resolved(by_url(server), store).digest
        assert pulled(by_url(server), store, digest, told=told).digest == IMAGE.config_blob().digest
        assert len(server.requests) == 1
        resolved(by_url(server), store)
        assert len(server.requests) == 2, "what a URL means right now, only its server knows"
        right = hashlib.sha256(data).hexdigest()
        for _ in range(2):
            resolved(by_url(server, sha256=right), store)
        assert len(server.requests) == 3, "what a digest means never changes"


def test_a_download_that_breaks_off_goes_on_if_it_is_still_the_same(store: ImageStore, tmp_path: Path) -> None:
    with MoodyRegistry() as server:
        data = write_docker_save(tmp_path / "image.tar", Image((make_layer({"x": "y" * 500_000}, compression="none"),))).read_bytes()
        server.content["/image.tar"] = ("application/x-tar", data)

        def mood(answering: Answering) -> bool:
            answering.headers["ETag"] = '"v1"'
            return answering.seen == 0 and answering.hang_up(200_000)

        server.mood = mood
        assert resolved(by_url(server), store)
        (_, second) = server.asked("image.tar")
        assert (second["range"], second["if-range"]) == ("bytes=200000-", '"v1"')


def test_another_file_than_named_by_its_digest_is_refused(store: ImageStore, tmp_path: Path) -> None:
    with MoodyRegistry() as server:
        server.content["/image.tar"] = ("x", write_docker_save(tmp_path / "image.tar", IMAGE).read_bytes())
        with pytest.raises(ImageError) as refused:
            resolved(by_url(server, sha256="0" * 64), store)
        assert refused.value.code == "DigestMismatch"
        assert list(Path(store.archives).iterdir()) == []
        with pytest.raises(ImageError) as refused:
            resolved(ImageSource(kind="ArchiveUrl", url=f"http://{server.host}/none.tar", insecure=True), store)
        assert refused.value.code == "NotFound"
        with pytest.raises(ImageError, match="insecure"):
            resolved(ImageSource(kind="ArchiveUrl", url=f"http://{server.host}/image.tar"), store)


@pytest.mark.parametrize(
    "where", [ImageSource(kind="Other"), ImageSource(kind="Registry"), ImageSource(kind="ArchiveUrl"), ImageSource(kind="ArchivePath")]
)
def test_a_source_without_what_it_needs_is_refused(store: ImageStore, where: ImageSource) -> None:
    with pytest.raises(ImageError, match="lacks what that kind needs"):
        resolved(where, store)
