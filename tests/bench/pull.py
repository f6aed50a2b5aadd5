"""Pulling and unpacking an image from a real registry, beside Debian's skopeo and umoci in the same run. Both end with a synced disk.

Figures: pull_s (several layers), pull_one_layer_s, repull_ms (the image is here already), pull_rss_mib (a layer of 1 GiB).
"""

from __future__ import annotations

import base64
import os
import resource
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from moorage_agent.images.pull_process import pull_apart
from moorage_agent.images.store import ImageStore
from moorage_agent.paths import Paths
from moorage_agent.protocol import ImageSource, ImageSpec

from tests.bench.figure import figure, show
from tests.kube import Image, Layer, Registry, make_layer, push
from tests.kube.images import Entry, layer_of_folder
from tests.machine.debs import environment_of, unpacked
from tests.machine.scratch import scratch_folder

ROUNDS = 3
TREES = ("perl", "python3", "git")  # many small files, as applications have
MODEST = ("nice", "-n", "10")  # as our own child is
NOTHING: dict[str, bytes] = {}


@contextmanager
def scratch() -> Iterator[Path]:
    folder = scratch_folder("pull")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def seconds(act: Callable[[], object]) -> float:
    os.sync()
    before = time.monotonic()
    act()
    return time.monotonic() - before


def ours(reference: str, digest: str, store: ImageStore) -> None:
    pull_apart(ImageSpec(digest, ImageSource("Registry", reference, insecure=True)), NOTHING.__getitem__, store, lambda *_: None)


def pull_fresh(reference: str, digest: str) -> float:
    with scratch() as folder:
        store = ImageStore(Paths(str(folder / "root"), str(folder / "run")))
        store.recover()
        return seconds(lambda: ours(reference, digest, store))


def peer_fresh(reference: str) -> float:
    root = unpacked("skopeo", "umoci")
    environment = environment_of(root)
    with scratch() as folder:
        (folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

        def act() -> None:
            copy = ["copy", "-q", "--src-tls-verify=false", f"docker://{reference}", f"oci:{folder}/layout:1"]
            skopeo = [*MODEST, f"{root}/usr/bin/skopeo", "--policy", f"{folder}/policy.json", *copy]
            subprocess.run(skopeo, check=True, env=environment)
            umoci = [*MODEST, f"{root}/usr/bin/umoci", "unpack", "--image", f"{folder}/layout:1", f"{folder}/bundle"]
            subprocess.run(umoci, check=True, env=environment, capture_output=True)
            subprocess.run(["sync", "-f", folder], check=True)

        return seconds(act)


def image_of_trees() -> Image:
    return Image(tuple(layer_of_folder(folder) for folder in local_trees()))


def local_trees() -> list[Path]:
    """Of this machine, largest first."""
    candidates = [Path("/usr/lib", name) for name in ("python3", "python3.11", "git-core", "gcc")] + [
        Path("/usr/share", name) for name in TREES
    ]
    found = [path for path in candidates if path.is_dir() and not path.is_symlink()]
    return [*found, Path("/usr/share/doc")][:4] if Path("/usr/share/doc").is_dir() else found


def one_layer() -> Image:
    entries: dict[str, Entry | str | bytes] = {f"d{number % 97}/f{number}": secrets.token_hex(2000) for number in range(8000)}
    entries["large"] = base64.b64encode(secrets.token_bytes(24 << 20))
    return Image((make_layer(entries),))


def huge_layer() -> Layer:
    block = base64.b64encode(secrets.token_bytes(12 << 20))
    return make_layer({f"file{number}": block for number in range(64)})


def compare(name: str, registry: Registry, image: Image) -> None:
    digest = push(registry, f"{name}:1", image)
    reference = f"{registry.host}/{name}:1"
    mine, theirs = [], []
    for _ in range(ROUNDS):
        mine.append(pull_fresh(reference, digest))
        theirs.append(peer_fresh(reference))
    size = sum(len(layer.tar) for layer in image.layers)
    show(figure(f"{name}_s", mine, "s", theirs, mib=size >> 20, layers=len(image.layers)))


def repull(registry: Registry, image: Image) -> None:
    digest = push(registry, "repull:1", image)
    with scratch() as folder:
        store = ImageStore(Paths(str(folder / "root"), str(folder / "run")))
        store.recover()
        ours(f"{registry.host}/repull:1", digest, store)
        show(figure("repull_ms", [1000 * seconds(lambda: ours(f"{registry.host}/repull:1", digest, store)) for _ in range(20)], "ms"))


def memory(registry: Registry) -> None:
    """In a process of its own: what a child needed at most is known once it has ended."""
    digest = push(registry, "huge:1", Image((huge_layer(),)))
    code = "import sys; from tests.bench.pull import memory_of; memory_of(*sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, f"{registry.host}/huge:1", digest], check=True)


def memory_of(reference: str, digest: str) -> None:
    pull_fresh(reference, digest)
    show(figure("pull_rss_mib", [resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024], "MiB"))


def main() -> None:
    with Registry() as registry:
        image = image_of_trees()
        compare("pull", registry, image)
        compare("pull_one_layer", registry, one_layer())
        repull(registry, image)
        memory(registry)


if __name__ == "__main__":
    main()
