"""Several layers as overlayfs would show them, without mounting: which directories of which layers make up a path.

The rules are ovl_lookup()'s, in the kernel's fs/overlayfs/namei.c: from the topmost layer down, a whiteout or anything that is no
directory ends the search, and so does an opaque directory after itself. Symbolic links are not followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from moorage_agent.images.tree import is_opaque, is_whiteout

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_OPEN = 256


class Found(NamedTuple):
    """`fd`: the open directory in which layer number `layer` has something."""

    layer: int
    fd: int


class Merged:
    """`roots`: layer directories, topmost first. Layers are numbered by their place in it."""

    def __init__(self, roots: Sequence[str]) -> None:
        self._known: dict[bytes, tuple[Found, ...]] = {b"": tuple(Found(i, os.open(root, _OPEN)) for i, root in enumerate(roots))}

    def close(self) -> None:
        for found in self._known.values():
            for one in found:
                os.close(one.fd)
        self._known.clear()

    def directories(self, path: bytes) -> tuple[Found, ...]:
        """The directories that merge at `path`, topmost first; empty when there is none. Valid until the next call."""
        if sum(map(len, self._known.values())) > _MAX_OPEN:
            self._forget()
        return self._directories(path)

    def candidates(self, path: bytes) -> tuple[Found, ...]:
        """As `directories`, but also what an opaque directory of the same path hides. Valid until the next call."""
        if not path:
            return self.directories(path)
        directory, _, name = path.rpartition(b"/")
        key = path + b"/"
        if key not in self._known:
            self._known[key] = tuple(_merging(self.directories(directory), name, beyond_opaque=True))
        return self._known[key]

    def lookup(self, path: bytes) -> tuple[Found, os.stat_result] | None:
        """The topmost thing at `path`, in its layer's directory; None where there is nothing or a whiteout."""
        directory, _, name = path.rpartition(b"/")
        for found in self.directories(directory):
            there = _lstat(name, found.fd)
            if there is not None:
                return None if is_whiteout(there) else (found, there)
        return None

    def _directories(self, path: bytes) -> tuple[Found, ...]:
        if path not in self._known:
            directory, _, name = path.rpartition(b"/")
            self._known[path] = tuple(_merging(self._directories(directory), name))
        return self._known[path]

    def _forget(self) -> None:
        for path in [path for path in self._known if path]:
            for found in self._known.pop(path):
                os.close(found.fd)


def _merging(parents: Sequence[Found], name: bytes, *, beyond_opaque: bool = False) -> list[Found]:
    merging = []
    for parent in parents:
        try:
            fd = os.open(name, _OPEN, dir_fd=parent.fd)
        except OSError as error:
            if error.errno == errno.ENOENT:
                continue
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                break
            raise
        merging.append(Found(parent.layer, fd))
        if not beyond_opaque and is_opaque(fd):
            break
    return merging


def _lstat(name: bytes, fd: int) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=fd)
    except FileNotFoundError:
        return None


def is_link(status: os.stat_result) -> bool:
    return stat.S_ISLNK(status.st_mode)
