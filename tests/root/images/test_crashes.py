"""A pull that is killed, or runs out of disk, at any point: nothing half-made is ever visible, and the next pull works."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from moorage_agent.errors import ImageError, Interrupted
from moorage_agent.images.cancellation import Cancellation
from moorage_agent.images.limits import Limits
from moorage_agent.images.pull_process import pull_apart, resolve_apart
from moorage_agent.images.store import ImageStore, layer_name
from moorage_agent.images.unpack import unpack
from moorage_agent.paths import Paths
from moorage_agent.protocol import ImageSpec
from moorage_agent.version import home

from tests.agent.images.tars import pieces
from tests.kube import Image, Registry, make_layer, push
from tests.kube.images import Entry, Layer
from tests.machine.waiting import eventually
from tests.root.images.moody_registry import MoodyRegistry
from tests.root.images.pulling import noise_layer, pulled, source, untouched
from tests.root.images.trees import Node, budget, tree_of

pytestmark = pytest.mark.root
MIB = 1 << 20
KILLS = 24

PULL = """
import sys
sys.path.insert(0, sys.argv[1])
from moorage_agent.images.pull import pull
from moorage_agent.images.store import ImageStore
from moorage_agent.images.unpack import unpack
from moorage_agent.paths import Paths
from moorage_agent.protocol import ImageSource, ImageSpec
source = ImageSource(kind="Registry", reference=sys.argv[4], insecure=True)
print("begin", flush=True)
pull(ImageSpec(sys.argv[5], source), {}.__getitem__, ImageStore(Paths(sys.argv[2], sys.argv[3])), lambda *_: None)
"""


def start_pull(store: ImageStore, reference: str, digest: str) -> subprocess.Popen[bytes]:
    arguments = [home(), store.paths.root, store.paths.run, reference, digest]
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", PULL, *arguments], stdout=writing)
    os.close(writing)
    with open(reading, "rb") as told:
        assert told.readline() == b"begin\n"
    return process


def many_files(name: str) -> Layer:
    return make_layer({f"{name}/{number % 20}/file{number}": Entry(b"%d" % number * 100, uid=number) for number in range(600)})


def test_a_pull_may_be_killed_at_any_point(store: ImageStore, tmp_path: Path) -> None:
    image = Image((many_files("a"), noise_layer(12 * MIB), many_files("b"), make_layer({"a/1/implied/x": "y"})))
    whole = {layer_name(layer.diff_id): unpacked_tree(layer, tmp_path / layer_name(layer.diff_id)) for layer in image.layers}
    with Registry() as registry:
        digest = push(registry, "app:1", image)
        reference = f"{registry.host}/app:1"
        before = time.monotonic()
        assert start_pull(store, reference, digest).wait(60) == 0
        usual_s = time.monotonic() - before
        finished = 0
        for kill in range(KILLS):
            store.sweep([])
            store.tidy()
            process = start_pull(store, reference, digest)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(usual_s * kill / KILLS)
            process.send_signal(signal.SIGKILL)
            finished += process.wait(10) == 0
            look(store, digest, whole)
            if kill % 3 == 0:
                store.tidy()
                assert not [path for path in Path(store.paths.images, "making").glob("*/*") if path.suffix != ".part"]
        assert finished < KILLS, "at least one was killed under way"
        assert pulled(source(reference), store, digest).digest == digest
        assert look(store, digest, whole)


def unpacked_tree(layer: Layer, folder: Path) -> dict[str, Node]:
    folder.mkdir()
    unpack(pieces(layer.tar), str(folder), budget())
    return tree_of(folder)


def look(store: ImageStore, digest: str, whole: dict[str, dict[str, Node]]) -> bool:
    """Whether the image is here; what is visible is whole."""
    for folder in Path(store.paths.images, "layers").iterdir():
        assert (folder / "ok").exists()
        if folder.name in whole:
            assert tree_of(folder / "fs") == whole[folder.name]
    image = store.get(digest)
    assert image is None or all(Path(layer).is_dir() for layer in image.layers)
    return image is not None


def test_a_sweep_leaves_a_running_pull_alone_and_takes_a_dead_ones_leavings(store: ImageStore) -> None:
    image = Image((many_files("a"), noise_layer(9 * MIB)))
    slow = image.layer_blobs()[1].digest
    with MoodyRegistry() as registry:
        digest = registry.add("app", image)

        def mood(answering: object) -> bool:
            return slow in registry.requests[-1][0] and not registry.released.wait(20)

        registry.mood = mood
        process = start_pull(store, f"{registry.host}/app:1", digest)
        making = Path(store.paths.images, "making")
        eventually("the first layer is being made", lambda: len(list(making.glob("*/fs/a/*"))) == 20)
        store.sweep([])
        store.tidy()
        assert list(making.glob("*/fs/a")), "its maker lives"
        assert list(Path(store.paths.images, "leases").iterdir())
        process.kill()
        process.wait(10)
        store.sweep([])
        store.tidy()
        assert not list(making.glob("*/fs"))
        assert not list(Path(store.paths.images, "leases").iterdir())


def test_the_process_that_pulls_ends_with_its_daemon(store: ImageStore) -> None:
    image = Image((noise_layer(9 * MIB),))
    with MoodyRegistry() as registry:
        digest = registry.add("app", image)
        registry.mood = lambda answering: "blobs" in answering.path and not registry.released.wait(20)
        script = PULL.replace("images.pull import pull\n", "images.pull_process import pull_apart as pull\n")
        arguments = [home(), store.paths.root, store.paths.run, f"{registry.host}/app:1", digest]
        daemon = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.DEVNULL)
        (child,) = eventually("the child runs", lambda: children(daemon.pid))
        eventually("the child asks", lambda: registry.asked("blobs"))
        daemon.kill()
        daemon.wait(10)
        eventually("the child ended", lambda: not alive(child), timeout_s=10)


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended before, or while, it was read
        return False


def test_cancelling_ends_the_process(store: ImageStore) -> None:
    with MoodyRegistry() as registry:
        digest = registry.add("app", Image((noise_layer(9 * MIB),)))
        cancellation = Cancellation()

        def mood(answering: object) -> bool:
            if "blobs" not in registry.requests[-1][0]:
                return False
            cancellation.cancel()
            return not registry.released.wait(20)

        registry.mood = mood
        nothing: dict[str, bytes] = {}
        with pytest.raises(Interrupted):
            pull_apart(
                ImageSpec(digest, source(f"{registry.host}/app:1")), nothing.__getitem__, store, lambda *_: None, cancellation=cancellation
            )
    store.recover()
    store.tidy()
    assert untouched(store)


def test_cancelling_ends_the_process_that_resolves(store: ImageStore) -> None:
    with MoodyRegistry() as registry:
        registry.add("app", Image((noise_layer(1000),)))
        cancellation = Cancellation()

        def mood(answering: object) -> bool:
            cancellation.cancel()
            return not registry.released.wait(20)

        registry.mood = mood
        nothing: dict[str, bytes] = {}
        with pytest.raises(Interrupted):
            resolve_apart(source(f"{registry.host}/app:1"), nothing.__getitem__, store, cancellation=cancellation)


def test_a_process_that_was_ended_from_outside_is_told_of(store: ImageStore) -> None:
    with MoodyRegistry() as registry:
        digest = registry.add("app", Image((noise_layer(9 * MIB),)))
        others = own_children()

        def mood(answering: object) -> bool:
            if "blobs" in registry.requests[-1][0]:
                (pull,) = own_children() - others
                os.kill(pull, signal.SIGKILL)
            return False

        registry.mood = mood
        nothing: dict[str, bytes] = {}
        with pytest.raises(ImageError, match="signal 9") as refused:
            pull_apart(ImageSpec(digest, source(f"{registry.host}/app:1")), nothing.__getitem__, store, lambda *_: None)
        assert refused.value.code == "PullCrashed"


def own_children() -> set[int]:
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


# --- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """64 MiB of ext4."""
    image, mount = tmp_path / "disk.img", tmp_path / "disk"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-N", "1024", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


def store_on(disk: Path, limits: Limits) -> ImageStore:
    made = ImageStore(Paths(str(disk / "root"), str(disk / "run")), limits)
    made.recover()
    return made


@pytest.mark.parametrize("what", ["bytes", "inodes", "links"])
def test_a_disk_that_fills_up_is_told_of_and_emptied(small_disk: Path, what: str) -> None:
    store = store_on(small_disk, Limits(reserve=0, reserve_inodes=0))
    zeros = make_layer({f"zeros{number}": bytes(20 * MIB) for number in range(5)})  # 100 MiB that travel as 500 KiB
    files = make_layer({f"file{number}": "x" for number in range(2000)})
    links = make_layer({f"link{number}": Entry("large", link="hard") for number in range(5)})
    filling = {"bytes": [zeros], "inodes": [files], "links": [make_layer({"large": bytes(20 * MIB)}), links]}[what]
    with MoodyRegistry() as registry:
        large = registry.add("large", Image((many_files("a"), *filling)))
        fitting = registry.add("fitting", Image((make_layer({"a": "b"}),)))
        with pytest.raises(ImageError, match="free space on the host") as refused:
            pulled(source(f"{registry.host}/large:1"), store, large)
        assert (refused.value.code, refused.value.retry_after_s) == ("DiskFull", 60)
        assert untouched(store)
        assert pulled(source(f"{registry.host}/fitting:1"), store, fitting).digest == fitting


def test_a_disk_that_is_nearly_full_is_spared(small_disk: Path) -> None:
    store = store_on(small_disk, Limits())
    with MoodyRegistry() as registry:
        digest = registry.add("app", Image((make_layer({"a": "b"}),)))
        with pytest.raises(ImageError, match="are free") as refused:
            pulled(source(f"{registry.host}/app:1"), store, digest)
        assert refused.value.code == "DiskFull"
        assert not registry.asked(Image((make_layer({"a": "b"}),)).layer_blobs()[0].digest)
