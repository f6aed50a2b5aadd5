"""Trees of any shape are removed whole, in time that grows with what is in them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from moorage_agent.images.tree import remove_at


def removed(folder: Path, name: str) -> bool:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove_at(fd, name)
    finally:
        os.close(fd)
    return not (folder / name).exists()


def test_many_directories_take_no_longer_each_than_few(tmp_path: Path) -> None:
    for number in range(6_000):
        (tmp_path / f"tree/{number}/below").mkdir(parents=True)
    before = time.monotonic()
    assert removed(tmp_path, "tree")
    assert time.monotonic() - before < 20


def test_a_tree_that_holds_names_like_the_removers_own_is_removed(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"tree/.removing.{number}/.removing.{number % 3}/deeper").mkdir(parents=True)
        (tmp_path / f"tree/.removing.{number}/file").touch()
        (tmp_path / f"tree/.removing.{number + 40}").touch()
    assert removed(tmp_path, "tree")


def test_depth_is_no_obstacle(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(3000):  # deeper than a path may be long
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    assert removed(tmp_path, "d")
