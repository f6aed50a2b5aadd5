"""What ended pulls left behind goes, whenever that is; what may be wanted again stays for as long as there is room for it."""

from __future__ import annotations

import os
import tarfile
import threading
import time
from pathlib import Path

import pytest
from moorage_agent.images.store import ImageStore
from moorage_agent.protocol import ImageSource

from tests.kube import Image, make_layer
from tests.root.images.moody_registry import Answering, MoodyRegistry
from tests.root.images.pulling import pulled, resolved, source

pytestmark = pytest.mark.root
MINUTES = 60.0
HOURS = 3600.0


def left(store: ImageStore, path: str, *, age_s: float = 0.0) -> Path:
    """A file below images/ that was last written `age_s` ago."""
    file = Path(store.paths.images, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"left behind")
    os.utime(file, (time.time() - age_s,) * 2)
    return file


def test_a_start_waits_for_no_cleaning(store: ImageStore) -> None:
    files = [left(store, "making/0123/fs/a/b"), left(store, "trash/0123.1/fs/a/b"), left(store, "archives/part.dead")]
    store.recover()
    assert all(file.exists() for file in files)
    store.tidy()
    assert not any(file.exists() for file in files)
    assert not os.listdir(Path(store.paths.images, "making"))


@pytest.mark.parametrize("path", ["making/0123/4567.part", "archives/0123", "blobs/0123"])
@pytest.mark.parametrize(
    ("age_s", "disk_is_full", "stays"),
    [(HOURS, False, True), (25 * HOURS, False, False), (2 * HOURS, True, False), (10 * MINUTES, True, True)],
)
def test_what_may_be_wanted_again_is_kept_while_there_is_room(
    store: ImageStore, path: str, age_s: float, disk_is_full: bool, stays: bool
) -> None:
    file = left(store, path, age_s=age_s)
    store.tidy(disk_is_full=disk_is_full)
    assert file.exists() == stays


def test_a_sweep_is_whole_though_there_is_something_that_cannot_be_tidied(store: ImageStore) -> None:
    with MoodyRegistry() as registry:
        digest = registry.add("app", Image((make_layer({"a": "b"}),)))
        pulled(source(f"{registry.host}/app:1"), store, digest)
    unexpected = Path(store.paths.images, "blobs/unexpected")
    unexpected.mkdir()
    os.utime(unexpected, (0, 0))
    assert store.sweep([]).images == (digest,)
    assert store.get(digest) is None


def test_manifests_of_images_that_are_here_stay(store: ImageStore) -> None:
    with MoodyRegistry() as registry:
        digest = registry.add("app", Image((make_layer({"a": "b"}),)))
        pulled(source(f"{registry.host}/app:1"), store, digest)
    blobs = list(Path(store.paths.images, "blobs").iterdir())
    for blob in blobs:
        os.utime(blob, (0, 0))
    store.tidy(disk_is_full=True)
    assert [blob.exists() for blob in blobs] == [True, True]


def test_a_download_that_comes_is_not_taken_for_a_leftover(store: ImageStore, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "root.tar", "w") as archive:
        archive.add(__file__, "file")
    arriving = threading.Event()
    with MoodyRegistry({"/root.tar": ("application/x-tar", (tmp_path / "root.tar").read_bytes())}) as server:

        def mood(answering: Answering) -> bool:
            handler = answering.handler
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(answering.body)))
            handler.end_headers()
            handler.wfile.write(answering.body[:512])
            handler.wfile.flush()
            arriving.set()
            tidied.wait(0.4)
            handler.wfile.write(answering.body[512:])
            return True

        server.mood = mood
        tidied = threading.Event()

        def tidy() -> None:
            arriving.wait(20)
            store.tidy(disk_is_full=True)
            tidied.set()

        tidying = threading.Thread(target=tidy)
        tidying.start()
        assert resolved(ImageSource(kind="ArchiveUrl", url=f"http://{server.host}/root.tar", insecure=True), store)
        tidying.join()
        assert tidied.is_set()


def test_files_that_come_and_go_meanwhile_are_no_trouble(store: ImageStore) -> None:
    ended = threading.Event()
    folders = [Path(store.paths.images, name) for name in ("archives", "blobs")]

    def come_and_go() -> None:
        while not ended.is_set():
            for folder in folders:
                (folder / "0123.scratch").touch()
                (folder / "0123.scratch").rename(folder / "0123")
                (folder / "0123").unlink()

    moving = threading.Thread(target=come_and_go)
    moving.start()
    try:
        for _ in range(1500):
            store.tidy()
    finally:
        ended.set()
        moving.join()
    assert [os.listdir(folder) for folder in folders] == [[], []]
