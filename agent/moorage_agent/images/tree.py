"""A directory tree that hostile names cannot leave.

Every step from directory to directory is one openat(2) of one name with O_NOFOLLOW, from a descriptor of a directory inside. Symbolic
links of the tree are followed by reading them and walking their text from the tree's own root, so an absolute target or `..` stays
inside. Nobody else writes here meanwhile: the tree lies in a directory of mode 0700 which its maker has locked.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

from moorage_agent.errors import ImageError

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_OPEN = 128
_MAX_HOPS = 40
_MAX_NAME = 4096
_MAX_DEPTH = 256


class Place(NamedTuple):
    """An open directory, and its path below the root without symbolic links."""

    fd: int
    path: bytes

    def child(self, name: bytes) -> bytes:
        return self.path + b"/" + name if self.path else name


class Tree:
    """`made`: directories made only because something below them was named. `opaque`: those that hide what lower layers have there."""

    def __init__(self, root: str) -> None:
        self.root = Place(os.open(root, _OPEN), b"")
        os.fchmod(self.root.fd, 0o755)  # what a layer that says nothing of "/" means, whatever the umask is
        self.made: set[bytes] = set()
        self.opaque: set[bytes] = set()
        self._places: dict[bytes, Place] = {b"": self.root}
        self._aliases: dict[bytes, bytes] = {}

    def close(self) -> None:
        for place in self._places.values():
            os.close(place.fd)
        self._places.clear()

    def parent(self, path: bytes) -> tuple[Place, bytes]:
        """Where `path` is to be put, and its last name. Directories on the way are made where they are missing."""
        directory, _, name = path.rpartition(b"/")
        place = self._places.get(directory) or self._places.get(self._aliases.get(directory, b"\0")) or self._walk(directory)
        assert place is not None
        return place, name

    def existing(self, path: bytes) -> Place | None:
        """The directory at `path`, reached through directories only; None if there is no such."""
        place: Place | None = self.root
        for name in path.split(b"/") if path else ():
            assert place is not None
            place = self._places.get(place.child(name)) or self._open(place, name)
            if place is None:
                return None
        return place

    def lstat(self, place: Place, name: bytes) -> os.stat_result | None:
        try:
            return os.lstat(name, dir_fd=place.fd)
        except FileNotFoundError:
            return None

    def find(self, path: bytes) -> tuple[Place, bytes] | None:
        """As `parent`, but makes nothing: None when there is no such directory."""
        directory, _, name = path.rpartition(b"/")
        place = self._walk(directory, make=False)
        return (place, name) if place is not None else None

    def remove(self, place: Place, name: bytes) -> Place:
        """Remove whatever `name` is, with all below it. Returns `place`, perhaps opened again: every other Place is void."""
        there = self.lstat(place, name)
        remove_at(place.fd, name)
        if there is None or not (stat.S_ISDIR(there.st_mode) or stat.S_ISLNK(there.st_mode)):
            return place
        self.forget()
        again = self.existing(place.path)
        assert again is not None
        return again

    def make_directory(self, place: Place, name: bytes) -> Place:
        """A new one, where nothing is, of mode 0755 and root's."""
        os.mkdir(name, 0o755, dir_fd=place.fd)
        made = self._open(place, name)
        assert made is not None
        os.fchown(made.fd, 0, 0)  # whatever the umask and a set-group-id parent say
        os.fchmod(made.fd, 0o755)
        self.opaque.discard(made.path)
        return made

    def hide_below(self, place: Place) -> None:
        """A mount with `userxattr` reads the second name only, others the first only."""
        os.setxattr(place.fd, b"trusted.overlay.opaque", b"y")
        os.setxattr(place.fd, b"user.overlay.opaque", b"y")
        self.opaque.add(place.path)

    def trim(self) -> None:
        """Keep few directories open. Voids every Place: to be called between two entries."""
        if len(self._places) > _MAX_OPEN or len(self._aliases) > 8 * _MAX_OPEN:
            self.forget()

    def forget(self) -> None:
        """When a directory or symbolic link went away, remembered paths may lead elsewhere."""
        for path in [path for path in self._places if path]:
            os.close(self._places.pop(path).fd)
        self._aliases.clear()

    def _walk(self, path: bytes, *, make: bool = True) -> Place | None:
        place, hops, todo = self.root, 0, path.split(b"/")[::-1]
        while todo:
            name = todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                place = self._places[place.path.rpartition(b"/")[0]]
                continue
            step = self._places.get(place.child(name)) or self._open(place, name) or self._enter(place, name, make=make)
            if step is None:
                return None
            if isinstance(step, Place):
                place = step
                continue
            hops += 1
            if hops > _MAX_HOPS or len(todo) > _MAX_NAME:
                raise ImageError("InvalidImage", f"a layer's symbolic links go round in a circle: {path[:80]!r}")
            place = self.root if step.startswith(b"/") else place
            todo += step.split(b"/")[::-1]
        if path != place.path:
            self._aliases[path] = place.path
        return place

    def _open(self, place: Place, name: bytes) -> Place | None:
        """The directory `name`; None when there is none, or something else. Remembered: all above it are open as well."""
        try:
            fd = os.open(name, _OPEN, dir_fd=place.fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        opened = self._places[place.child(name)] = Place(fd, place.child(name))
        return opened

    def _enter(self, place: Place, name: bytes, *, make: bool) -> Place | bytes | None:
        """The text of a symbolic link; a new directory where nothing or a whiteout is, if one is to be made."""
        there = self.lstat(place, name)
        if there is not None and stat.S_ISLNK(there.st_mode):
            return os.readlink(name, dir_fd=place.fd)
        if not make:
            return None
        if there is not None and not is_whiteout(there):
            raise ImageError("InvalidImage", f"a layer puts something below {place.child(name)[:80]!r}, which is no directory")
        if place.path.count(b"/") >= _MAX_DEPTH:
            raise ImageError("InvalidImage", f"a layer's directories are nested deeper than {_MAX_DEPTH}")
        if there is not None:
            os.unlink(name, dir_fd=place.fd)
        made = self.make_directory(place, name)
        if there is None:
            self.made.add(made.path)
        else:
            self.hide_below(made)
        return made


def cleaned(name: bytes) -> bytes:
    """`name` as a path below the root: no empty parts, no `.`, no `..`. Raises ImageError(InvalidImage) when it leads outside."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise ImageError("InvalidImage", f"a layer names a file outside of its root: {name[:80]!r}")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    if len(name) > _MAX_NAME or len(parts) > _MAX_DEPTH:
        raise ImageError("InvalidImage", f"a layer holds a name of {len(name)} bytes and {len(parts)} parts, which is too long")
    return b"/".join(parts)


def is_whiteout(status: os.stat_result) -> bool:
    """overlayfs' mark for "deleted": a character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, b"trusted.overlay.opaque") == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


def remove_at(directory: int, name: bytes | str) -> None:
    """Remove `name` in the open directory, and all below it, following nothing. Without recursion: depth is hostile too."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
        _empty(os.open(name, _OPEN, dir_fd=directory))
        os.rmdir(name, dir_fd=directory)


def _empty(fd: int) -> None:
    """Remove what is in a directory, and close it. Subdirectories are moved up and emptied in turn, so few are open at any depth."""
    numbers = count()
    try:
        while directories := _unlink_files(fd):
            for name in directories:
                inner = os.open(name, _OPEN, dir_fd=fd)
                try:
                    for deeper in _unlink_files(inner):
                        _move_up(deeper, inner, fd, numbers)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=fd)
    finally:
        os.close(fd)


def _move_up(name: str, inner: int, outer: int, numbers: Iterator[int]) -> None:
    """Under a name that is free in `outer`; hostile trees may hold names like ours. Each of `numbers` is tried once for all moves."""
    for number in numbers:
        free = f".removing.{number}"
        if not _exists(free, outer):
            os.rename(name, free, src_dir_fd=inner, dst_dir_fd=outer)
            return


def _exists(name: str, directory: int) -> bool:
    try:
        os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def _unlink_files(fd: int) -> list[str]:
    """Unlink all but directories; returns their names."""
    directories = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=fd)
    return directories
