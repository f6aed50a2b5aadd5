"""Directory trees as values, for comparing; and the layers that make them, unpacked and stacked by the kernel."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from moorage_agent.images.layer import Layer
from moorage_agent.images.limits import Budget, Limits
from moorage_agent.images.unpack import unpack

from tests.agent.images.tars import Member, pieces, tar

PLENTY = Limits(reserve=0, reserve_inodes=0)


class Node(NamedTuple):
    """`content`: a file's bytes, a link's target. `xattrs` without overlayfs' own."""

    kind: str
    mode: int
    uid: int
    gid: int
    content: bytes = b""
    mtime_ns: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()


def budget(limits: Limits = PLENTY) -> Budget:
    return Budget(limits, lambda: (1 << 50, 1 << 40))


def unpacked(folder: Path, *members: Member) -> Layer:
    """Into `folder`, which is made."""
    folder.mkdir()
    return unpack(pieces(tar(*members)), str(folder), budget())


def tree_of(root: Path) -> dict[str, Node]:
    """By path; the root is "". Whiteouts are nodes of the kind "char"."""
    found = {"": node(root)}
    for folder, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = Path(folder, name)
            found[str(path.relative_to(root))] = node(path)
    return found


def node(path: Path) -> Node:
    status = path.lstat()
    kind = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "dir",
        stat.S_IFLNK: "symlink",
        stat.S_IFCHR: "char",
        stat.S_IFIFO: "fifo",
    }[stat.S_IFMT(status.st_mode)]
    content = path.read_bytes() if kind == "file" else os.fsencode(os.readlink(path)) if kind == "symlink" else b""
    names = os.listxattr(path, follow_symlinks=False)
    kept = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names) if ".overlay." not in name)
    return Node(kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, content, status.st_mtime_ns, kept)


def kinds(root: Path) -> dict[str, str]:
    return {path: found.kind for path, found in tree_of(root).items() if path}


def opaque(path: Path) -> bool:
    both = [name for name in ("trusted.overlay.opaque", "user.overlay.opaque") if name in os.listxattr(path)]
    assert len(both) in (0, 2), "a mount reads one of the two"
    return bool(both)


@contextmanager
def overlay(layers: Sequence[str], folder: Path, *options: str) -> Iterator[Path]:
    """`layers`, topmost first, as a container would see them."""
    for name in ("upper", "work", "merged"):
        (folder / name).mkdir(parents=True)
    (folder / "upper").chmod(0o755)
    text = ",".join([f"lowerdir={':'.join(layers)}", f"upperdir={folder}/upper", f"workdir={folder}/work", *options])
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", text, folder / "merged"], check=True)
    try:
        yield folder / "merged"
    finally:
        subprocess.run(["umount", folder / "merged"], check=True)
