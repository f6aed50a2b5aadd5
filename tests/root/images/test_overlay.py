"""Layers unpacked independently and stacked by the kernel are the tree their tars describe, applied one after the other."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from moorage_agent.errors import ImageError
from moorage_agent.images.compose import Stacked, mend, plan_mending, visible
from moorage_agent.images.layer import Layer

from tests.agent.images.tars import Member, file, folder, hardlink, member, opaque, symlink, whiteout
from tests.root.images.trees import PLENTY, Node, budget, node, overlay, tree_of, unpacked

pytestmark = pytest.mark.root


def composed(home: Path, *layers: Sequence[Member]) -> tuple[list[str], tuple[str, ...]]:
    """Directories for overlayfs, topmost first, of layers given lowest first; and the warnings. The same members are the same layer."""
    stack: list[Stacked] = []
    for number, members in enumerate(layers):
        known = list(layers[:number])
        again = stack[known.index(members)] if members in known else None
        stack.append(again or Stacked(unpacked(home / f"layer{number}", *members), str(home / f"layer{number}")))
    seen = visible(stack[::-1])
    mending = plan_mending(seen)
    directories = [stacked.fs for stacked in seen]
    if mending:
        (home / "mended").mkdir()
        mend(mending, seen, str(home / "mended"), "sha256:" + "0" * 64, budget())
        directories.insert(0, str(home / "mended"))
    return directories, mending.warnings


def stacked(home: Path, *layers: Sequence[Member], options: Sequence[str] = ()) -> dict[str, Node]:
    directories, _ = composed(home, *layers)
    with overlay(directories, home / "mount", *options) as merged:
        return tree_of(merged)


def test_an_implied_directory_has_the_lower_layers_attributes(tmp_path: Path) -> None:
    base = [folder("tmp", mode=0o1777), folder("var", mode=0o711, uid=5), folder("var/lib", mode=0o750, gid=6, xattrs={"user.a": "b"})]
    tree = stacked(tmp_path, base, [file("tmp/x")], [file("var/lib/y"), file("new/z")])
    assert tree["tmp"][:4] == ("dir", 0o1777, 0, 0)
    assert tree["var"][:4] == ("dir", 0o711, 5, 0)
    assert tree["var/lib"][:4] == ("dir", 0o750, 0, 6)
    assert tree["var/lib"].xattrs == (("user.a", b"b"),)
    assert tree["new"][:4] == ("dir", 0o755, 0, 0)
    assert {"tmp/x", "var/lib/y", "new/z"} <= set(tree)


def test_an_image_that_needs_no_mending_gets_no_layer_for_it(tmp_path: Path) -> None:
    directories, warnings = composed(tmp_path, [folder("etc"), file("etc/a")], [file("etc/b")])
    assert (len(directories), warnings) == (2, ())


def test_the_root_has_the_attributes_of_the_layer_that_speaks_of_it(tmp_path: Path) -> None:
    directories, _ = composed(tmp_path, [folder("./", mode=0o700, uid=3)], [file("a")])
    assert node(Path(directories[0]))[:4] == ("dir", 0o700, 3, 0)


def test_what_was_deleted_and_implied_again_is_new(tmp_path: Path) -> None:
    tree = stacked(tmp_path, [folder("d", mode=0o1777), file("d/old")], [whiteout("d"), file("d/new")])
    assert tree["d"].mode == 0o755
    assert set(tree) == {"", "d", "d/new"}


def test_an_emptied_directory_keeps_its_attributes(tmp_path: Path) -> None:
    tree = stacked(tmp_path, [folder("d", mode=0o1777), file("d/old")], [opaque("d"), file("d/new")])
    assert tree["d"].mode == 0o1777
    assert set(tree) == {"", "d", "d/new"}


def test_a_hidden_lower_directory_lends_nothing(tmp_path: Path) -> None:
    tree = stacked(tmp_path, [folder("d", mode=0o1777)], [whiteout("d")], [file("d/new")])
    assert tree["d"].mode == 0o755


def test_an_opaque_root_hides_all_below(tmp_path: Path) -> None:
    assert set(stacked(tmp_path, [file("old"), folder("d"), file("d/old")], [opaque(""), file("new")], [file("d/newer")])) == {
        "",
        "new",
        "d",
        "d/newer",
    }


@pytest.mark.parametrize("options", [(), ("userxattr",)])
def test_whiteouts_hold_in_both_kinds_of_mounts(tmp_path: Path, options: tuple[str, ...]) -> None:
    base = [folder("d"), file("d/old"), file("gone")]
    assert set(stacked(tmp_path, base, [whiteout("gone"), opaque("d")], options=options)) == {"", "d"}


def test_no_ghosts_are_listed(tmp_path: Path) -> None:
    directories, _ = composed(
        tmp_path, [folder("d"), file("d/x")], [folder("d"), opaque("d"), whiteout("d/x"), whiteout("d/y"), file("d/z")]
    )
    with overlay(directories, tmp_path / "mount") as merged:
        assert os.listdir(merged / "d") == ["z"]


@pytest.mark.parametrize("lower", [[], [folder("x")], [folder("a", mode=0o700)], [folder("a"), folder("a/b", mode=0o711)]])
def test_whiteouts_of_nothing_are_not_listed_either(tmp_path: Path, lower: list[Member]) -> None:
    directories, _ = composed(tmp_path, lower, [whiteout("a/b/c"), file("a/b/d"), whiteout("e")])
    with overlay(directories, tmp_path / "mount") as merged:
        assert os.listdir(merged / "a/b") == ["d"]
        assert "e" not in os.listdir(merged)


# --- hard links between layers


def test_a_link_to_a_lower_layers_file_is_made(tmp_path: Path) -> None:
    base = [
        folder("usr"),
        folder("usr/bin", mode=0o711),
        file("usr/bin/tool", "code", mode=0o4755, uid=4, mtime=77, xattrs={"user.a": "b"}),
    ]
    tree = stacked(tmp_path, base, [hardlink("opt/t", "usr/bin/tool"), hardlink("usr/bin/again", "usr/bin/tool")])
    assert tree["opt/t"] == tree["usr/bin/tool"] == tree["usr/bin/again"]
    assert tree["usr/bin"].mode == 0o711
    assert tree["opt/t"][:6] == ("file", 0o4755, 4, 0, b"code", 77 * 10**9)


def test_a_link_sees_the_layers_below_its_own_only(tmp_path: Path) -> None:
    tree = stacked(tmp_path, [file("t", "1")], [hardlink("h", "t")], [file("t", "2")])
    assert (tree["h"].content, tree["t"].content) == (b"1", b"2")


@pytest.mark.parametrize(
    ("above", "expected"), [([file("h", "3")], b"3"), ([whiteout("h")], None), ([folder("h")], b""), ([whiteout("d")], b"1")]
)
def test_a_higher_layer_may_replace_the_link(tmp_path: Path, above: list[Member], expected: bytes | None) -> None:
    found = stacked(tmp_path, [file("t", "1")], [hardlink("h", "t")], above).get("h")
    assert (found.content if found else None) == expected


def test_a_link_in_a_directory_that_a_higher_layer_deletes_goes_with_it(tmp_path: Path) -> None:
    assert set(stacked(tmp_path, [file("t", "1")], [hardlink("d/h", "t")], [whiteout("d")])) == {"", "t"}


def test_a_link_to_a_lower_symlink_is_a_symlink(tmp_path: Path) -> None:
    assert stacked(tmp_path, [symlink("s", "/x", uid=3)], [hardlink("h", "s")])["h"][:5] == ("symlink", 0o777, 3, 0, b"/x")


@pytest.mark.parametrize("target", ["nothing", "d", "deleted", "pipe"])
def test_a_link_to_no_file_at_all_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(ImageError, match="hard link"):
        composed(tmp_path, [folder("d"), file("deleted"), member("pipe", "fifo")], [whiteout("deleted")], [hardlink("h", target)])


def linked(home: Path, *, file_size: int, links: int) -> tuple[list[Stacked], Path]:
    """A layer with a file of one byte, then nothing up to `file_size`, a layer with links to it, and the directory for what goes on top."""
    names = [f"link{number}" for number in range(links)]
    below = Stacked(unpacked(home / "below", file("t", "1")), str(home / "below"))
    os.truncate(home / "below/t", file_size)
    (home / "mended").mkdir()
    return [Stacked(unpacked(home / "above", *(hardlink(name, "t") for name in names)), str(home / "above")), below], home / "mended"


def test_copies_of_a_file_with_holes_have_the_holes(tmp_path: Path) -> None:
    stack, top = linked(tmp_path, file_size=8 << 30, links=10)
    layer = mend(plan_mending(stack), stack, str(top), "sha256:" + "0" * 64, budget())
    assert [(top / f"link{number}").stat().st_size for number in range(10)] == [8 << 30] * 10
    assert sum(path.stat().st_blocks for path in top.iterdir()) * 512 < 1 << 20
    assert layer.size < 1 << 20
    with (top / "link9").open("rb") as copy:
        assert copy.read(2) == b"1\0"


def test_copies_count_as_what_the_image_unpacks_to(tmp_path: Path) -> None:
    stack, top = linked(tmp_path, file_size=1, links=3)
    (tmp_path / "below/t").write_bytes(bytes(2 << 20))
    with pytest.raises(ImageError, match="unpacks to more than 5 MiB"):
        mend(plan_mending(stack), stack, str(top), "sha256:" + "0" * 64, budget(dataclasses.replace(PLENTY, unpacked=5 << 20)))


# --- symbolic links of lower layers


def test_a_hidden_symlink_is_reported(tmp_path: Path) -> None:
    base = [folder("usr"), folder("usr/lib"), file("usr/lib/libc"), symlink("lib", "usr/lib")]
    directories, warnings = composed(tmp_path, base, [file("lib/x")])
    assert len(warnings) == 1
    assert "/lib" in warnings[0]
    with overlay(directories, tmp_path / "mount") as merged:
        assert os.listdir(merged / "lib") == ["x"], "as docker and containerd have it"


def test_a_symlink_that_a_layer_replaces_by_name_is_not_worth_a_word(tmp_path: Path) -> None:
    assert composed(tmp_path, [symlink("lib", "usr/lib")], [folder("lib"), file("lib/x")])[1] == ()
    (tmp_path / "other").mkdir()
    assert composed(tmp_path / "other", [symlink("lib", "usr/lib")], [whiteout("lib")], [file("lib/x")])[1] == ()


# --- any layers at all: a model of what the specification says, and the kernel


class Said(NamedTuple):
    """What one layer's tar says of a path; mode None: nothing, it is implied."""

    kind: str
    mode: int | None
    uid: int
    content: bytes


Tree = dict[str, Said]


def apply(tree: Tree, layer: Sequence[tuple[str, str, Said]]) -> Tree:
    """`tree` with a layer on top, whose entries are ("put" | "delete" | "empty", path, what)."""
    own: Tree = {}
    deleted = {path for act, path, _ in layer if act == "delete"}
    emptied = {path for act, path, _ in layer if act == "empty"}
    for act, path, said in layer:
        imply(own, path if act == "empty" else parent(path))
        if act == "put":
            put(own, path, said)
    left = {path: said for path, said in tree.items() if survives(path, own, deleted, emptied)}
    for path, said in own.items():
        lower = left.get(path)
        if said.mode is None and lower is not None and lower.kind == "dir" and path not in deleted:
            continue
        left[path] = said if said.mode is not None else said._replace(mode=0o755)
    return left


def imply(own: Tree, path: str) -> None:
    while path:
        if path in own and own[path].kind != "dir":
            raise Impossible
        own.setdefault(path, Said("dir", None, 0, b""))
        path = parent(path)


def put(own: Tree, path: str, said: Said) -> None:
    if said.kind != "dir" or (path in own and own[path].kind != "dir"):
        for below in [other for other in own if other.startswith(f"{path}/")]:
            del own[below]
    own[path] = said


def survives(path: str, own: Tree, deleted: set[str], emptied: set[str]) -> bool:
    if path in deleted or (path in own and own[path].kind != "dir"):
        return False
    above = parent(path)
    while above:
        if above in deleted or above in emptied or (above in own and own[above].kind != "dir"):
            return False
        above = parent(above)
    return "" not in emptied


def parent(path: str) -> str:
    return path.rpartition("/")[0]


class Impossible(Exception):
    """A file below a file: such a layer is refused."""


def as_member(act: str, path: str, said: Said) -> Member:
    if act == "delete":
        return whiteout(path)
    if act == "empty":
        return opaque(path)
    mode = said.mode or 0
    return folder(path, mode=mode, uid=said.uid) if said.kind == "dir" else file(path, said.content, mode=mode, uid=said.uid)


names = st.sampled_from(["a", "b", "c"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
said = st.builds(
    Said, st.sampled_from(["file", "dir"]), st.sampled_from([0o755, 0o1777, 0o600]), st.sampled_from([0, 9]), st.sampled_from([b"1", b"2"])
)
acts = st.tuples(st.sampled_from(["put", "put", "put", "delete", "empty"]), paths, said)
images = st.lists(st.lists(acts, min_size=1, max_size=6), min_size=1, max_size=4)


@pytest.mark.parametrize(
    "upper",
    [
        [file("d"), whiteout("d"), folder("d")],
        [whiteout("d"), file("d"), folder("d")],
        [opaque("d"), file("d"), folder("d")],
    ],
)
def test_a_mark_holds_for_a_directory_that_comes_after_a_file(tmp_path: Path, upper: list[Member]) -> None:
    assert set(stacked(tmp_path, [folder("d"), file("d/old")], upper)) == {"", "d"}


@settings(max_examples=300, deadline=None)
@given(images)
def test_the_kernel_shows_what_the_layers_say(tmp_path_factory: pytest.TempPathFactory, image: list[list[tuple[str, str, Said]]]) -> None:
    home = tmp_path_factory.mktemp("stack", numbered=True)
    expected: Tree = {}
    try:
        for layer in image:
            expected = apply(expected, layer)
    except Impossible:
        assume(False)
    found = stacked(home, *([as_member(*act) for act in layer] for layer in image))
    assert {path: Said(found.kind, found.mode, found.uid, found.content) for path, found in found.items() if path} == {
        path: said if said.kind == "file" else said._replace(content=b"") for path, said in expected.items()
    }


@settings(max_examples=200, deadline=None)
@given(images, st.data())
def test_a_layer_that_comes_again_is_needed_once(
    tmp_path_factory: pytest.TempPathFactory, image: list[list[tuple[str, str, Said]]], data: st.DataObject
) -> None:
    order = data.draw(st.lists(st.sampled_from(range(len(image))), min_size=2, max_size=6))
    home = tmp_path_factory.mktemp("again", numbered=True)
    expected: Tree = {}
    try:
        for number in order:
            expected = apply(expected, image[number])
    except Impossible:
        assume(False)
    layers = [[as_member(*act) for act in layer] for layer in image]
    found = stacked(home, *(layers[number] for number in order))
    assert {path: Said(found.kind, found.mode, found.uid, found.content) for path, found in found.items() if path} == {
        path: said if said.kind == "file" else said._replace(content=b"") for path, said in expected.items()
    }


@pytest.mark.parametrize(("between", "expected"), [([], b"1"), ([whiteout("h")], b"1"), ([file("t", "2")], b"2")])
def test_a_link_of_a_layer_that_comes_again_is_made_once(tmp_path: Path, between: list[Member], expected: bytes) -> None:
    link = [hardlink("h", "t")]
    assert stacked(tmp_path, [file("t", "1")], link, between, link)["h"].content == expected


def test_the_topmost_of_two_links_of_one_name_is_made(tmp_path: Path) -> None:
    tree = stacked(tmp_path, [file("s", "1"), file("t", "2")], [hardlink("h", "s")], [hardlink("h", "t")])
    assert tree["h"].content == b"2"


def test_a_layer_says_the_same_after_it_was_written_down(tmp_path: Path) -> None:
    layer = unpacked(tmp_path / "fs", file("a/b"), hardlink("h", "t"), opaque(""), member("null", "char"))
    assert Layer.from_json(layer.to_json()) == layer
