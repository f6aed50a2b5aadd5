"""One layer, from tar bytes to a directory overlayfs can use, independent of all other layers.

A layer tar speaks in AUFS' words (`.wh.name`: deleted; `.wh..wh..opq`: nothing from below), overlayfs in its own (a character device 0:0;
an xattr). What the layer means depends on its own earlier entries only: whiteouts act on lower layers, never on the layer itself.
Sources: opencontainers/image-spec layer.md; the kernel's Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from moorage_agent.errors import ImageError
from moorage_agent.images import tar
from moorage_agent.images.attributes import apply_attributes
from moorage_agent.images.layer import Layer, as_text
from moorage_agent.images.limits import Budget, disk_full
from moorage_agent.images.stream import ByteStream
from moorage_agent.images.tar import Entry, TarReader
from moorage_agent.images.tree import Place, Tree, cleaned, is_whiteout

_HIDES = b".wh."
_META = b".wh..wh."
_OPAQUE = b".wh..wh..opq"


def unpack(pieces: Iterator[bytes], directory: str, budget: Budget) -> Layer:
    """Unpack the tar in `pieces` into the empty `directory`. The layer's diff_id is of all bytes, to their end.

    Raises ImageError: InvalidImage for hostile or broken data, DiskFull, StoreFailed; and whatever reading `pieces` raises.
    """
    stream = ByteStream(pieces, budget.spend)
    tree = Tree(directory)
    try:
        unpacker = _Unpacker(tree, TarReader(stream), budget)
        unpacker.run()
        stream.drain()
        return unpacker.layer(stream.digest())
    except OSError as error:
        raise explained(error) from error
    finally:
        tree.close()


class _Unpacker:
    """What a layer's later entries need to know of its earlier ones. All paths here are real ones, without symbolic links."""

    def __init__(self, tree: Tree, reader: TarReader, budget: Budget) -> None:
        self._tree, self._reader, self._budget = tree, reader, budget
        self._mtimes: dict[bytes, int] = {}
        self._whiteouts: set[bytes] = set()
        self._marked: set[bytes] = set()  # deleted or emptied below, whatever this layer puts there and in which order
        self._pending: dict[bytes, bytes] = {}
        self._warnings: set[str] = set()
        self._size = self._entries = 0
        tree.made.add(b"")

    def run(self) -> None:
        for entry in self._reader:
            self._budget.spend(0, entries=1)
            self._entries += 1
            self._tree.trim()
            self._put(entry)
        self._link_pending()
        self._drop_hidden_whiteouts()
        self._set_directory_times()

    def layer(self, diff_id: str) -> Layer:
        return Layer(
            diff_id=diff_id,
            size=self._size,
            entries=self._entries,
            implicit=tuple(sorted(map(as_text, self._tree.made))),
            pending=tuple(sorted((as_text(path), as_text(target)) for path, target in self._pending.items())),
            deleting=tuple(sorted({as_text(path.rpartition(b"/")[0]) for path in self._whiteouts})),
            opaque_root=b"" in self._tree.opaque,
            warnings=tuple(sorted(self._warnings)),
        )

    def _put(self, entry: Entry) -> None:
        path = cleaned(entry.name)
        if _HIDES in path and self._is_mark(path):
            return
        if not path:
            self._root(entry)
        elif entry.kind == tar.FILE:
            self._file(path, entry)
        elif entry.kind == tar.DIRECTORY:
            self._directory(path, entry)
        elif entry.kind == tar.SYMLINK:
            self._symlink(path, entry)
        elif entry.kind == tar.HARDLINK:
            self._hardlink(path, cleaned(entry.link))
        elif entry.kind == tar.FIFO:
            self._fifo(path, entry)
        else:  # a device would be a door to the host, or, as 0:0, a whiteout in disguise; the runtime gives containers their /dev
            self._warnings.add("device nodes were left out: containers get their devices from the runtime")

    def _root(self, entry: Entry) -> None:
        if entry.kind != tar.DIRECTORY:  # CVE-2021-29136: a symbolic link as the root leads outside
            raise ImageError("InvalidImage", f"a layer's root is a {entry.kind}, not a directory")
        self._attributes(self._tree.root.fd, entry)
        self._explicit(b"", entry)

    def _file(self, path: bytes, entry: Entry) -> None:
        place, name = self._tree.parent(path)
        fd = self._create(place, name)
        try:
            self._write(fd, entry)
            self._attributes(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        self._size += entry.stored

    def _create(self, place: Place, name: bytes) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(name, flags, 0o600, dir_fd=place.fd)
        except FileExistsError:
            return os.open(name, flags, 0o600, dir_fd=self._tree.remove(place, name).fd)

    def _write(self, fd: int, entry: Entry) -> None:
        if entry.sparse is None:
            self._reader.content(entry.stored, fd)
            return
        for offset, length in entry.sparse.pieces:
            os.lseek(fd, offset, os.SEEK_SET)
            self._reader.content(length, fd)
        os.ftruncate(fd, entry.sparse.size)

    def _directory(self, path: bytes, entry: Entry) -> None:
        """Merges with a directory this layer already has; replaces anything else."""
        place, name = self._tree.parent(path)
        there = self._tree.lstat(place, name)
        if there is not None and stat.S_ISDIR(there.st_mode):
            own = self._tree.existing(place.child(name))
            assert own is not None
        else:
            place = place if there is None else self._tree.remove(place, name)
            own = self._tree.make_directory(place, name)
            if own.path in self._marked:
                self._tree.hide_below(own)
        self._attributes(own.fd, entry)
        self._explicit(own.path, entry)

    def _symlink(self, path: bytes, entry: Entry) -> None:
        if not entry.link:
            raise ImageError("InvalidImage", f"a layer's symbolic link has no target: {path[:80]!r}")
        place, name = self._room(path)
        os.symlink(entry.link, name, dir_fd=place.fd)
        os.chown(name, entry.uid, entry.gid, dir_fd=place.fd, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=place.fd, follow_symlinks=False)

    def _fifo(self, path: bytes, entry: Entry) -> None:
        place, name = self._room(path)
        os.mkfifo(name, 0o600, dir_fd=place.fd)
        os.chown(name, entry.uid, entry.gid, dir_fd=place.fd, follow_symlinks=False)
        os.chmod(name, entry.mode, dir_fd=place.fd)  # no link: made on the line above, and nobody else writes here
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=place.fd, follow_symlinks=False)

    def _hardlink(self, path: bytes, target: bytes) -> None:
        """A target that is not there yet, or is in a lower layer, is looked for again at the end."""
        place, name = self._room(path, keep=target)
        if not self._link(place, name, target):
            self._pending[place.child(name)] = target

    def _link(self, place: Place, name: bytes, target: bytes) -> bool:
        found = self._tree.find(target)
        source = self._tree.lstat(*found) if found else None
        if found is None or source is None or is_whiteout(source):
            return False
        if stat.S_ISDIR(source.st_mode):
            raise ImageError("InvalidImage", f"a layer's hard link leads to a directory: {target[:80]!r}")
        if found != (place, name):
            os.link(found[1], name, src_dir_fd=found[0].fd, dst_dir_fd=place.fd, follow_symlinks=False)
        return True

    def _link_pending(self) -> None:
        """Links may wait for links: until a round finds none. The budget ends hostile chains."""
        progress = True
        while self._pending and progress:
            self._budget.spend(0, entries=len(self._pending))
            before = len(self._pending)
            for path, target in list(self._pending.items()):
                self._settle(path, target)
            progress = len(self._pending) < before

    def _settle(self, path: bytes, target: bytes) -> None:
        """It waits no more once it is linked, or something came in its place."""
        self._tree.trim()
        directory, _, name = path.rpartition(b"/")
        place = self._tree.existing(directory)
        if place is None or self._tree.lstat(place, name) is not None or self._link(place, name, target):
            del self._pending[path]

    def _is_mark(self, path: bytes) -> bool:
        """Whether `path` is no file but a mark of AUFS; does what the mark says."""
        parts = path.split(b"/")
        if any(part.startswith(_META) and part != _OPAQUE for part in parts):
            return True  # AUFS' own files: .wh..wh.aufs, .wh..wh.plnk/…
        if any(part.startswith(_HIDES) for part in parts[:-1]):
            raise ImageError("InvalidImage", f"a layer puts something below a whiteout: {path[:80]!r}")
        if not parts[-1].startswith(_HIDES):
            return False
        place, name = self._tree.parent(path)
        if name == _OPAQUE:
            self._marked.add(place.path)
            self._tree.hide_below(place)
        else:
            self._whiteout(place, name[len(_HIDES) :])
        return True

    def _whiteout(self, place: Place, name: bytes) -> None:
        """Hide the lower layers' `name`. What this layer has under that name stays; a directory no longer merges with those below."""
        if name in (b"", b".", b".."):
            raise ImageError("InvalidImage", f"a layer deletes {name!r} in {place.path[:80]!r}, which is no file's name")
        self._marked.add(place.child(name))
        there = self._tree.lstat(place, name)
        if there is None and place.child(name) in self._pending:
            return
        if there is None:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=place.fd)
            self._whiteouts.add(place.child(name))
        elif stat.S_ISDIR(there.st_mode):
            own = self._tree.existing(place.child(name))
            assert own is not None
            self._tree.hide_below(own)
            self._tree.made.discard(own.path)

    def _drop_hidden_whiteouts(self) -> None:
        """Inside an opaque directory a whiteout hides nothing, and readdir(3) of a merged directory would show it."""
        hidden = {path for path in self._whiteouts if self._below_opaque(path)} if self._tree.opaque else set()
        for path in hidden:
            self._tree.trim()
            directory, _, name = path.rpartition(b"/")
            place = self._tree.existing(directory)
            there = self._tree.lstat(place, name) if place else None
            if place is not None and there is not None and is_whiteout(there):
                os.unlink(name, dir_fd=place.fd)
        self._whiteouts -= hidden

    def _below_opaque(self, path: bytes) -> bool:
        while path:
            path = path.rpartition(b"/")[0]
            if path in self._tree.opaque:
                return True
        return False

    def _set_directory_times(self) -> None:
        """Last: every entry made in a directory changed its times."""
        for path in self._tree.made:
            self._mtimes[path] = 0
        for path, mtime_ns in self._mtimes.items():
            self._tree.trim()
            place = self._tree.existing(path)
            if place is not None:
                os.utime(place.fd, ns=(mtime_ns, mtime_ns))

    def _room(self, path: bytes, *, keep: bytes = b"") -> tuple[Place, bytes]:
        """Where `path` goes, with nothing in its way any more."""
        place, name = self._tree.parent(path)
        if self._tree.lstat(place, name) is not None and place.child(name) != keep:
            place = self._tree.remove(place, name)
        return place, name

    def _attributes(self, fd: int, entry: Entry) -> None:
        warning = apply_attributes(fd, entry)
        if warning:
            self._warnings.add(warning)

    def _explicit(self, path: bytes, entry: Entry) -> None:
        self._tree.made.discard(path)
        self._mtimes[path] = entry.mtime_ns


def explained(error: OSError) -> ImageError:
    """What unpacking met, as what it means for the image."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(str(error.strerror))
    if error.errno in (
        errno.ENAMETOOLONG,
        errno.EFBIG,
        errno.ELOOP,
        errno.EMLINK,
        errno.EINVAL,
        errno.ENOTDIR,
        errno.EILSEQ,
        errno.EOVERFLOW,
    ):
        return ImageError("InvalidImage", f"a layer holds a file this file system cannot have: {error.strerror} ({error.filename!r})")
    return ImageError("StoreFailed", f"a layer could not be unpacked: {error.strerror} ({error.filename!r}); look at the host's disk", 60)
