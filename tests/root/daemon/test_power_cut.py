"""What a power cut leaves on a disk: the disk's own bytes, without what the kernel had yet to write."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from moorage_agent.paths import Paths
from moorage_agent.values import ValueStore

pytestmark = pytest.mark.root

CONFIG, BUNDLE = "config/default/app/app.ini/0123456789abcdef", "ca/default/bundle/ca.pem"


class Disk:
    """An ext4 of its own. `cut()` gives what a machine finds on it that starts again after the power failed now."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack, self._cuts = folder, stack, 0
        self._image = folder / "disk"
        self._image.touch()
        os.truncate(self._image, 64 << 20)
        if not shutil.which("mkfs.ext4") or subprocess.run(["mkfs.ext4", "-q", self._image], check=False).returncode != 0:
            pytest.skip("no ext4 can be made here")
        self.paths = self._mount(self._image)

    def commit(self) -> None:
        """As something else on the disk does, by and by: names and sizes are written, contents are not."""
        fd = os.open(f"{self.paths.root}/other", os.O_CREAT | os.O_WRONLY)
        os.fsync(fd)
        os.close(fd)

    def cut(self) -> Paths:
        self._cuts += 1
        copy = self._folder / f"disk-{self._cuts}"
        subprocess.run(["cp", "--sparse=always", self._image, copy], check=True)
        return self._mount(copy)

    def _mount(self, image: Path) -> Paths:
        place = image.with_name(f"{image.name}.mounted")
        place.mkdir()
        if subprocess.run(["mount", "-o", "loop", image, place], check=False).returncode != 0:
            pytest.skip("no disk image can be mounted here")
        self._stack.callback(lambda: subprocess.run(["umount", "-l", place], check=True))
        paths = Paths(f"{place}/moorage", f"{self._folder}/run")
        paths.make()
        return paths


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with ExitStack() as stack:
        yield Disk(tmp_path, stack)


def test_a_value_is_whole_after_a_power_cut(disk: Disk) -> None:
    store = ValueStore(disk.paths)
    store.make()
    for key in (CONFIG, BUNDLE):
        store.put(key, b"[app]\n" * 1000)
        disk.commit()
        assert not ValueStore(disk.cut()).has(key)
        store.sync()
        after = ValueStore(disk.cut())
        assert after.has(key)
        assert after.get(key) == b"[app]\n" * 1000


def test_a_file_that_a_power_cut_emptied_is_made_again(disk: Disk) -> None:
    store = ValueStore(disk.paths)
    store.make()
    store.put(CONFIG, b"[app]\n" * 1000)
    store.sync()
    store.file(CONFIG, uid=0, gid=0, mode=0o400)
    disk.commit()
    after = ValueStore(disk.cut())
    assert Path(after.file(CONFIG, uid=0, gid=0, mode=0o400)).read_bytes() == b"[app]\n" * 1000
