"""Binds a folder of a mount that its host shares, as a container gets its volumes, and mounts something inside of that.

Usage: python3 shared_mount_driver.py FOLDER ATTRIBUTES [old]. It runs in a mount namespace of its own; with "old" the kernel behaves as one
before 5.12, which has no mount_setattr. Prints what is mounted below the source afterwards, and the options of the bind.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from moorage_agent.runtime import linux, mounts, seccomp

MS_SHARED = 1 << 20
MOUNT_SETATTR = 442


def main() -> None:
    folder, attributes = sys.argv[1].encode(), int(sys.argv[2])
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount(None, b"/", None, linux.MS_REC | linux.MS_PRIVATE)
    if sys.argv[3:] == ["old"]:
        linux.seccomp(without(MOUNT_SETATTR))
    source, target, other = (b"%b/%b" % (folder, name) for name in (b"source", b"target", b"other"))
    for directory in (source, target, other):
        os.mkdir(directory)
    linux.mount(b"tmpfs", source, b"tmpfs")
    linux.mount(None, source, None, MS_SHARED)
    for directory in (b"/data", b"/data/secret"):
        os.mkdir(source + directory)
    for place in (target, other):
        tree = linux.open_tree(linux.AT_FDCWD, source + b"/data", linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | linux.AT_RECURSIVE)
        mounts.attach(tree, os.open(place, mounts.DIRECTORY), attributes, about=place)
    linux.mount(b"tmpfs", target + b"/secret", b"tmpfs")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point, options = line.split()[4:6]
        if point.startswith(os.fsdecode(folder)):
            print(point[len(folder) :], options)


def without(number: int) -> bytes:
    """A filter that answers this system call as a kernel does that has never heard of it."""
    return seccomp.assemble(
        [
            (seccomp.LOAD, 0, 0, seccomp.NUMBER_AT),
            (seccomp.JUMP_EQUAL, 0, 1, number),
            (seccomp.RETURN, 0, 0, seccomp.ENOSYS),
            (seccomp.RETURN, 0, 0, seccomp.ALLOW),
        ]
    )


main()
