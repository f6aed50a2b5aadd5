"""Archives made to reach outside of their root. The cases are those containerd and umoci keep, told as data; none of their code is here."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moorage_agent.errors import ImageError
from moorage_agent.images.unpack import unpack

from tests.agent.images.tars import Member, file, folder, hardlink, member, opaque, pieces, symlink, tar, whiteout
from tests.root.images.trees import Node, budget, kinds, tree_of

pytestmark = pytest.mark.root

VICTIM = "victim"
OUT = "@outside@"  # in names and targets: the path of what must not be reached


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What must not change: a folder beside the root, with a file that must not be read either."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / VICTIM).write_text("secret")
    (tmp_path / "outside" / VICTIM).chmod(0o600)
    (tmp_path / "root").mkdir()
    return tmp_path / "outside"


def attempt(outside: Path, *members: Member) -> dict[str, str] | None:
    """Kinds of what was unpacked, None when it was refused; the outside is as before, and nothing inside is it."""
    before = tree_of(outside)
    root = outside.parent / "root"
    refused = False
    try:
        unpack(pieces(tar(*(aimed(member, str(outside)) for member in members))), str(root), budget())
    except ImageError:
        refused = True
    assert tree_of(outside) == before
    assert set(os.listdir(outside.parent)) == {"outside", "root"}
    assert (outside / VICTIM).stat().st_ino not in inodes(root)
    return None if refused else kinds(root)


def aimed(member: Member, outside: str) -> Member:
    info = copy.copy(member[0])
    info.name, info.linkname = info.name.replace(OUT, outside), info.linkname.replace(OUT, outside)
    return info, member[1]


def inodes(root: Path) -> set[int]:
    return {Path(folder, name).lstat().st_ino for folder, directories, files in os.walk(root) for name in (*directories, *files)}


CASES: dict[str, tuple[list[Member], dict[str, str] | None]] = {
    "a name goes up": ([file(f"../outside/{VICTIM}", "x")], None),
    "a name goes up from inside": ([file(f"a/../../outside/{VICTIM}", "x")], None),
    "an absolute name": ([file(f"{OUT}/new", "x")], {}),
    "a symlink up, and a file through it": (
        [symlink("l", "../outside"), file("l/new", "x")],
        {"l": "symlink", "outside": "dir", "outside/new": "file"},
    ),
    "an absolute symlink, and a file through it": ([symlink("l", OUT), file(f"l/{VICTIM}", "x")], {}),
    "a symlink up and out": ([symlink("l", "../../../../../.." + OUT), file("l/new", "x")], {}),
    "a file over a symlink to a file": ([symlink("l", f"{OUT}/{VICTIM}"), file("l", "x")], {"l": "file"}),
    "a directory over a symlink": ([symlink("l", OUT), folder("l", mode=0o777), file("l/new")], {"l": "dir", "l/new": "file"}),
    "two symlinks": (
        [symlink("a", ".."), symlink("b", "a/outside"), file("b/new")],
        {"a": "symlink", "b": "symlink", "outside": "dir", "outside/new": "file"},
    ),
    "a symlink as the root": ([symlink(".", OUT)], None),
    "a symlink as the root, by name": ([symlink("./", OUT), file("new")], None),
    "a file as the root": ([file("/", "x")], None),
    "a hard link up": ([hardlink("h", f"../outside/{VICTIM}")], None),
    "an absolute hard link": ([hardlink("h", f"{OUT}/{VICTIM}")], {}),
    "a hard link through a symlink": ([symlink("l", OUT), hardlink("h", f"l/{VICTIM}")], {"l": "symlink"}),
    "a hard link through a symlink up": ([symlink("l", "../outside"), hardlink("h", f"l/{VICTIM}")], {"l": "symlink"}),
    "a hard link to a symlink, then a file over it": (
        [symlink("l", f"{OUT}/{VICTIM}"), hardlink("h", "l"), file("h", "x")],
        {"l": "symlink", "h": "file"},
    ),
    "a hard link to a symlink, with a mode": (
        [symlink("l", f"{OUT}/{VICTIM}"), hardlink("h", "l", mode=0o777)],
        {"l": "symlink", "h": "symlink"},
    ),
    "a hard link in a directory that is a symlink": ([file("f"), symlink("l", OUT), hardlink("l/new", "f")], {}),
    "a symlink in a directory that is a symlink": ([symlink("l", OUT), symlink("l/new", "x")], {}),
    "a fifo in a directory that is a symlink": ([symlink("l", OUT), member("l/new", "fifo")], {}),
    "a directory in a directory that is a symlink": ([symlink("l", OUT), folder("l/new")], {}),
    "a device": ([member("sda", "block", devmajor=8, devminor=0)], {}),
    "a whiteout of what is outside": ([whiteout(f"../outside/{VICTIM}")], None),
    "a whiteout through a symlink": ([symlink("l", OUT), whiteout(f"l/{VICTIM}")], {}),
    "a whiteout through a symlink up": (
        [symlink("l", "../outside"), whiteout(f"l/{VICTIM}")],
        {"l": "symlink", "outside": "dir", f"outside/{VICTIM}": "char"},
    ),
    "a whiteout of the parent": ([file(".wh...")], None),
    "a whiteout of the root": ([file(".wh..")], None),
    "a whiteout through a dead symlink": (
        [symlink("l", "nowhere"), whiteout("l/x")],
        {"l": "symlink", "nowhere": "dir", "nowhere/x": "char"},
    ),
    "an opaque mark through a symlink": ([symlink("l", OUT), opaque("l")], {}),
    "an opaque mark above the root": ([file("../.wh..wh..opq")], None),
    "a parent replaced by a symlink": ([folder("d"), file("d/a"), symlink("d", OUT), file("d/new")], {}),
    "a parent replaced by a symlink, and back": (
        [folder("d"), symlink("d", OUT), folder("d"), file("d/new")],
        {"d": "dir", "d/new": "file"},
    ),
    "a deep parent replaced by a symlink": (
        [file("a/b/c"), symlink("a/b", OUT), file(f"a/b/{VICTIM}", "x"), folder("a/b/new")],
        {},
    ),
    "attributes of a directory that became a symlink": ([folder("d", mode=0o777, mtime=1), symlink("d", OUT)], {"d": "symlink"}),
    "a symlink to the process's own root": ([symlink("l", "/proc/self/root"), file(f"l{OUT}/new")], {}),
    "a symlink to the process's own directory": ([symlink("l", "/proc/self/cwd/.."), file("l/new")], {}),
    "a symlink made of many": ([symlink("a", "b/.."), symlink("b", "c/.."), symlink("c", "../../outside"), file("a/new")], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_reaches_outside(outside: Path, name: str) -> None:
    members, expected = CASES[name]
    found = attempt(outside, *members)
    if expected is None:
        assert found is None, "it must be refused"
    elif expected:
        assert found == expected
    else:
        assert found is not None, "it is harmless once it is confined"


# --- any archive at all

NAMES = st.sampled_from(["a", "b", "c", "..", ".", "/", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh..wh.plnk", "outside", VICTIM, "root"])
PATHS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)
TARGETS = st.one_of(PATHS, st.just(OUT), PATHS.map(lambda path: f"{OUT}/{path}"), PATHS.map(lambda path: f"/{path}"))
KINDS = st.sampled_from(["file", "dir", "symlink", "hardlink", "fifo", "char", "block"])


@st.composite
def members(draw: st.DrawFn) -> Member:
    kind, name = draw(KINDS), draw(PATHS)
    if kind == "file":
        return file(name, "x", mode=0o666)
    link = draw(TARGETS) if kind in ("symlink", "hardlink") else ""
    return member(name, kind, linkname=link, mode=0o777, uid=7, xattrs={"user.x": "y"} if kind == "dir" else {})


@settings(max_examples=1500, deadline=None)
@given(st.lists(members(), min_size=1, max_size=12))
def test_no_archive_reaches_outside(tmp_path_factory: pytest.TempPathFactory, entries: list[Member]) -> None:
    home = tmp_path_factory.mktemp("confined", numbered=True)
    outside = home / "outside"
    outside.mkdir()
    (outside / VICTIM).write_text("secret")
    (home / "root").mkdir()
    attempt(outside, *entries)
    assert whiteouts_are_plain(tree_of(home / "root"))


def whiteouts_are_plain(tree: dict[str, Node]) -> bool:
    return all(not found.xattrs for found in tree.values() if found.kind == "char")
