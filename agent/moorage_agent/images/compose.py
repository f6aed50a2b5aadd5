"""What independent unpacking cannot know: the few places where a layer's meaning depends on the layers below it.

A directory which a layer's tar never mentions but puts files in has the attributes it has below (else /tmp would turn from 1777 to 0755).
A hard link may lead to a file below. And whiteouts are listed by readdir(3) as what they are in a directory that no other layer has: it
must have a second one to be merged with. All three are made good by one small layer on top of the image, which most images do not need.
A symbolic link hidden by such a directory stays hidden, as with docker and containerd: it is only reported.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from moorage_agent.errors import ImageError
from moorage_agent.images.attributes import apply_xattrs, kept_xattrs
from moorage_agent.images.copying import copy_data
from moorage_agent.images.layer import Layer, as_bytes, as_text
from moorage_agent.images.limits import Budget
from moorage_agent.images.merged import Found, Merged, is_link
from moorage_agent.images.tree import Place, Tree
from moorage_agent.images.unpack import explained


@dataclass(frozen=True)
class Stacked:
    """A layer and the directory it was unpacked to."""

    layer: Layer
    fs: str


def visible(stack: Sequence[Stacked]) -> tuple[Stacked, ...]:
    """Topmost first, without what an opaque root hides: overlayfs does not look at the attributes of a layer's root.

    And each layer once, where it is topmost: it hides all it says further down, and the kernel refuses a directory it is given twice.
    """
    once = tuple({stacked.fs: stacked for stacked in stack}.values())
    for count, stacked in enumerate(once, 1):
        if stacked.layer.opaque_root:
            return once[:count]
    return once


@dataclass(frozen=True)
class Attributes:
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: tuple[tuple[bytes, bytes], ...] = ()

    def shown_as(self, other: Attributes) -> bool:
        return (self.mode, self.uid, self.gid, self.xattrs) == (other.mode, other.uid, other.gid, other.xattrs)


@dataclass(frozen=True)
class Mending:
    """`directories` to be repeated on top with their right attributes; `links`: (path, target, number of the layer that has the link)."""

    directories: tuple[tuple[bytes, Attributes], ...] = ()
    links: tuple[tuple[bytes, bytes, int], ...] = ()
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.directories or self.links)


def plan_mending(stack: Sequence[Stacked]) -> Mending:
    """What the image of these layers, topmost first, needs on top. Only reads."""
    merged = Merged([stacked.fs for stacked in stack])
    try:
        wrong = {**dict(_wrong_directories(stack, merged)), **dict(_ghostly_directories(stack, merged))}
        links = tuple(_open_links(stack, merged))
        for path in [*wrong, *(path for path, _, _ in links)]:
            for above in _ancestors(path):
                if above not in wrong:
                    wrong[above] = _right(stack, merged, above) or _attributes(merged.directories(above)[0].fd)
        return Mending(tuple(sorted(wrong.items())), links, tuple(_hidden_links(stack)))
    finally:
        merged.close()


def mend(mending: Mending, stack: Sequence[Stacked], fs: str, diff_id: str, budget: Budget) -> Layer:
    """Make the layer that goes on top, in the empty directory `fs`.

    Raises ImageError: InvalidImage when a link's target is nowhere or the copies are too large, DiskFull, StoreFailed.
    """
    tree = Tree(fs)
    try:
        size = sum(_put_link(tree, stack, *link, budget) for link in mending.links)
        for path, attributes in reversed(mending.directories):  # what is deeper first: making it touches the times of what is above
            place = tree.parent(path + b"/.")[0]
            os.fchown(place.fd, attributes.uid, attributes.gid)
            apply_xattrs(place.fd, dict(attributes.xattrs))
            os.fchmod(place.fd, attributes.mode)
            os.utime(place.fd, ns=(attributes.mtime_ns, attributes.mtime_ns))
            tree.trim()
        return Layer(diff_id, size, len(mending.directories) + len(mending.links))
    except OSError as error:
        raise explained(error) from error
    finally:
        tree.close()


def _wrong_directories(stack: Sequence[Stacked], merged: Merged) -> list[tuple[bytes, Attributes]]:
    """Directories whose topmost layer has them implicitly, and whose attributes are others in the first layer that speaks of them."""
    wrong = []
    for path in sorted({as_bytes(path) for stacked in stack for path in stacked.layer.implicit}):
        right = _right(stack, merged, path)
        if right is not None and not right.shown_as(_attributes(merged.directories(path)[0].fd)):
            wrong.append((path, right))
    return wrong


def _ghostly_directories(stack: Sequence[Stacked], merged: Merged) -> list[tuple[bytes, Attributes]]:
    """Directories with whiteouts that are in one layer only."""
    ghostly = []
    for path in sorted({as_bytes(path) for stacked in stack for path in stacked.layer.deleting} - {b""}):
        found = merged.directories(path)
        if len(found) == 1 and _sorted_has(stack[found[0].layer].layer.deleting, as_text(path)):
            shown = _attributes(found[0].fd)
            ghostly.append((path, _right(stack, merged, path) or shown))
    return ghostly


def _right(stack: Sequence[Stacked], merged: Merged, path: bytes) -> Attributes | None:
    """Of the topmost layer with an entry for the directory `path`; None when there is none.

    A directory that is implicit and opaque was emptied by its layer, not replaced: its attributes are still those from below.
    """
    text = as_text(path)
    for found in merged.candidates(path):
        if not _sorted_has(stack[found.layer].layer.implicit, text):
            return _attributes(found.fd)
    return None


def _sorted_has(texts: Sequence[str], text: str) -> bool:
    at = bisect_left(texts, text)
    return at < len(texts) and texts[at] == text


def _open_links(stack: Sequence[Stacked], merged: Merged) -> list[tuple[bytes, bytes, int]]:
    """Links to lower layers that no higher layer replaces or deletes."""
    links: dict[bytes, tuple[bytes, bytes, int]] = {}
    for number, stacked in enumerate(stack):
        for path, target in stacked.layer.pending:
            directory, _, name = as_bytes(path).rpartition(b"/")
            merging = merged.directories(directory)
            replaced = any(found.layer < number and _has(found, name) for found in merging)
            if not replaced and any(found.layer == number for found in merging):
                links.setdefault(as_bytes(path), (as_bytes(path), as_bytes(target), number))
    return list(links.values())


def _has(found: Found, name: bytes) -> bool:
    try:
        os.lstat(name, dir_fd=found.fd)
    except FileNotFoundError:
        return False
    return True


def _put_link(tree: Tree, stack: Sequence[Stacked], path: bytes, target: bytes, number: int, budget: Budget) -> int:
    """Copy the target as seen from layer `number`; returns the bytes that took."""
    merged = Merged([stacked.fs for stacked in stack[number:]])
    try:
        seen = merged.lookup(target)
        if seen is None or stat.S_ISDIR(seen[1].st_mode):
            raise ImageError("InvalidImage", f"the hard link {path[:80]!r} of a layer leads to {target[:80]!r}, which no layer has")
        budget.spend(0, entries=1)
        place, name = tree.parent(path)
        return _copy(seen[0], target.rpartition(b"/")[2], seen[1], place, name, budget)
    finally:
        merged.close()


def _copy(found: Found, name: bytes, status: os.stat_result, place: Place, new: bytes, budget: Budget) -> int:
    if is_link(status):
        os.symlink(os.readlink(name, dir_fd=found.fd), new, dir_fd=place.fd)
        os.chown(new, status.st_uid, status.st_gid, dir_fd=place.fd, follow_symlinks=False)
        return 0
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("InvalidImage", f"a hard link of a layer leads to {name[:80]!r} of another, which cannot be copied")
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=found.fd)
    copy = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=place.fd)
    try:
        size = copy_data(source, copy, status.st_size, budget.spend)
        os.fchown(copy, status.st_uid, status.st_gid)
        apply_xattrs(copy, dict(kept_xattrs(source)))
        os.fchmod(copy, stat.S_IMODE(status.st_mode))
        os.utime(copy, ns=(status.st_mtime_ns, status.st_mtime_ns))
    finally:
        os.close(source)
        os.close(copy)
    return size


def _hidden_links(stack: Sequence[Stacked]) -> list[str]:
    """Symbolic links of lower layers (like lib → usr/lib) that a directory nobody spoke of hides, with all that is behind them."""
    warnings = []
    for number, stacked in enumerate(stack[:-1]):
        below = Merged([lower.fs for lower in stack[number + 1 :]])
        try:
            for path in stacked.layer.implicit:
                seen = below.lookup(as_bytes(path)) if path else None
                if seen is not None and is_link(seen[1]):
                    warnings.append(f"layer {stacked.layer.diff_id[:19]}… hides the symbolic link /{path} of a lower layer by a directory")
        finally:
            below.close()
    return warnings[:20]


def _attributes(fd: int) -> Attributes:
    status = os.fstat(fd)
    return Attributes(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, kept_xattrs(fd))


def _ancestors(path: bytes) -> list[bytes]:
    """All directories above `path`, the root among them."""
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(len(parts))] if path else []
