"""One layer, unpacked: what each entry means, alone and after those before it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from moorage_agent.errors import ImageError
from moorage_agent.images.limits import Limits
from moorage_agent.images.unpack import unpack

from tests.agent.images.tars import END, file, folder, hardlink, header, member, opaque, padded, pax_records, pieces, symlink, tar, whiteout
from tests.root.images.trees import budget, kinds, tree_of, unpacked
from tests.root.images.trees import opaque as is_opaque

pytestmark = pytest.mark.root


def test_owner_mode_and_time_are_the_entrys(tmp_path: Path) -> None:
    unpacked(
        tmp_path / "fs",
        folder("d", mode=0o2750, uid=1, gid=2, mtime=5),
        file("d/f", "text", mode=0o4755, uid=3, gid=1 << 22, mtime=1_700_000_000.5),
        symlink("d/l", "f", uid=5, gid=6, mtime=7),
        member("d/p", "fifo", mode=0o622, uid=8, gid=9, mtime=-10),
    )
    tree = tree_of(tmp_path / "fs")
    assert tree["d"][:4] == ("dir", 0o2750, 1, 2)
    assert tree["d"].mtime_ns == 5 * 10**9, "although files were made in it later"
    assert tree["d/f"][:5] == ("file", 0o4755, 3, 1 << 22, b"text")
    assert tree["d/f"].mtime_ns == 1_700_000_000_500_000_000
    assert tree["d/l"][2:6] == (5, 6, b"f", 7 * 10**9)
    assert (tree["d/p"][:4], tree["d/p"].mtime_ns) == (("fifo", 0o622, 8, 9), -10 * 10**9)


def test_the_umask_and_a_setgid_parent_change_nothing(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        unpacked(
            tmp_path / "fs",
            folder("g", mode=0o2777, gid=50),
            file("g/f", mode=0o666),
            file("g/implied/f"),
            member("g/p", "fifo", mode=0o666),
        )
    finally:
        os.umask(before)
    tree = tree_of(tmp_path / "fs")
    assert tree[""].mode == 0o755
    assert tree["g/f"][1:4] == (0o666, 0, 0)
    assert tree["g/p"][1:4] == (0o666, 0, 0)
    assert tree["g/implied"][1:4] == (0o755, 0, 0)


def test_the_entry_for_the_root_is_the_roots(tmp_path: Path) -> None:
    layer = unpacked(tmp_path / "fs", folder("./", mode=0o711, uid=4, mtime=9), file("./f"))
    assert tree_of(tmp_path / "fs")[""][:4] == ("dir", 0o711, 4, 0)
    assert layer.implicit == ()


def test_directories_nobody_spoke_of_are_remembered(tmp_path: Path) -> None:
    layer = unpacked(tmp_path / "fs", file("a/b/f"), folder("a"), file("c/f"), symlink("d/l", "x"))
    assert layer.implicit == ("", "a/b", "c", "d")
    assert tree_of(tmp_path / "fs")["a/b"][:4] == ("dir", 0o755, 0, 0)


def test_the_digest_is_of_all_bytes_and_the_size_of_all_files(tmp_path: Path) -> None:
    data = tar(file("a", b"x" * 1000), file("b", b"y" * 24)) + b"trailing bytes"
    (tmp_path / "fs").mkdir()
    layer = unpack(pieces(data), str(tmp_path / "fs"), budget())
    expected = subprocess.run(["sha256sum"], input=data, capture_output=True, check=True).stdout[:64].decode()
    assert (layer.diff_id, layer.size, layer.entries) == (f"sha256:{expected}", 1024, 2)


# --- whiteouts


def test_whiteouts_are_overlayfs_own(tmp_path: Path) -> None:
    unpacked(tmp_path / "fs", whiteout("gone"), whiteout("d/gone"), folder("e"), opaque("e"), file("e/f"))
    assert kinds(tmp_path / "fs") == {"gone": "char", "d": "dir", "d/gone": "char", "e": "dir", "e/f": "file"}
    assert (tmp_path / "fs/gone").stat().st_rdev == 0
    assert is_opaque(tmp_path / "fs/e")
    assert not is_opaque(tmp_path / "fs/d")


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_never_hides_what_its_own_layer_has(tmp_path: Path, first: bool) -> None:
    made = [file("f", "mine"), folder("d"), file("d/x"), symlink("l", "f"), hardlink("h", "f")]
    hidden = [whiteout(name) for name in ("f", "d", "l", "h")]
    unpacked(tmp_path / "fs", *(hidden + made if first else made + hidden))
    assert kinds(tmp_path / "fs") == {"f": "file", "d": "dir", "d/x": "file", "l": "symlink", "h": "file"}
    assert is_opaque(tmp_path / "fs/d"), "what lower layers have there is deleted"


def test_a_file_below_a_whiteout_makes_an_opaque_directory(tmp_path: Path) -> None:
    layer = unpacked(tmp_path / "fs", whiteout("d"), file("d/e/f"))
    assert kinds(tmp_path / "fs") == {"d": "dir", "d/e": "dir", "d/e/f": "file"}
    assert is_opaque(tmp_path / "fs/d")
    assert "d" not in layer.implicit, "it is a new directory, not the lower layer's"


def test_an_opaque_mark_may_come_before_and_after_its_siblings(tmp_path: Path) -> None:
    layer = unpacked(tmp_path / "fs", file("d/a"), opaque("d"), file("d/b"))
    assert kinds(tmp_path / "fs") == {"d": "dir", "d/a": "file", "d/b": "file"}
    assert is_opaque(tmp_path / "fs/d")
    assert layer.implicit == ("", "d"), "the directory itself is the lower layer's"


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_inside_of_an_opaque_directory_is_needless(tmp_path: Path, first: bool) -> None:
    marks = [opaque("d"), whiteout("d/gone"), whiteout("d/e/gone")]
    unpacked(tmp_path / "fs", folder("d"), *(marks if first else reversed(marks)))
    assert kinds(tmp_path / "fs") == {"d": "dir", "d/e": "dir"}


def test_an_opaque_root_is_told(tmp_path: Path) -> None:
    assert unpacked(tmp_path / "fs", opaque(""), file("f")).opaque_root
    assert not unpacked(tmp_path / "other", file("f")).opaque_root


def test_a_directory_that_came_again_is_still_opaque(tmp_path: Path) -> None:
    """A mark speaks of lower layers, whatever this one puts there in between."""
    unpacked(tmp_path / "fs", folder("d"), opaque("d"), file("d", "now a file"), folder("d"), whiteout("d/x"))
    assert kinds(tmp_path / "fs") == {"d": "dir"}
    assert is_opaque(tmp_path / "fs/d")


def test_aufs_own_files_are_left_out(tmp_path: Path) -> None:
    unpacked(tmp_path / "fs", folder(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"), file(".wh..wh.aufs"), folder("d/.wh..wh.orph"))
    assert kinds(tmp_path / "fs") == {}


@pytest.mark.parametrize("name", [".wh.", "d/.wh.", ".wh..", ".wh...", "d/.wh...", ".wh.d/f"])
def test_marks_that_mean_nothing_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError) as refused:
        unpacked(tmp_path / "fs", folder("d"), file(name))
    assert refused.value.code == "InvalidImage"


# --- the same name again


@pytest.mark.parametrize(
    ("members", "kind", "content"),
    [
        ([file("a", "1"), file("a", "2")], "file", b"2"),
        ([folder("a"), file("a/b"), file("a", "2")], "file", b"2"),
        ([file("a", "1"), folder("a")], "dir", b""),
        ([symlink("a", "x"), symlink("a", "y")], "symlink", b"y"),
        ([file("a"), symlink("a", "y")], "symlink", b"y"),
        ([symlink("a", "x"), file("a", "2")], "file", b"2"),
        ([folder("a"), symlink("a", "y")], "symlink", b"y"),
        ([symlink("a", "b"), folder("a")], "dir", b""),
        ([file("b", "2"), file("a", "1"), hardlink("a", "b")], "file", b"2"),
        ([file("b", "2"), hardlink("a", "b"), file("a", "1")], "file", b"1"),
        ([file("b", "2"), folder("a"), file("a/x"), hardlink("a", "b")], "file", b"2"),
        ([member("a", "fifo"), file("a", "2")], "file", b"2"),
        ([file("a"), member("a", "fifo")], "fifo", b""),
        ([whiteout("a"), file("a", "2")], "file", b"2"),
        ([whiteout("a"), symlink("a", "y")], "symlink", b"y"),
        ([hardlink("a", "late"), file("a", "mine"), file("late", "2")], "file", b"mine"),
    ],
)
def test_the_later_entry_wins(tmp_path: Path, members: list[object], kind: str, content: bytes) -> None:
    unpacked(tmp_path / "fs", *members)  # type: ignore[arg-type]
    found = tree_of(tmp_path / "fs")["a"]
    assert (found.kind, found.content) == (kind, content)


def test_directories_merge_and_the_later_attributes_win(tmp_path: Path) -> None:
    unpacked(tmp_path / "fs", folder("d", mode=0o700, mtime=1), file("d/a"), folder("d", mode=0o711, uid=3, mtime=2), file("d/b"))
    tree = tree_of(tmp_path / "fs")
    assert set(tree) == {"", "d", "d/a", "d/b"}
    assert (tree["d"][:4], tree["d"].mtime_ns) == (("dir", 0o711, 3, 0), 2 * 10**9)


def test_replacing_a_file_leaves_its_hard_links_alone(tmp_path: Path) -> None:
    unpacked(tmp_path / "fs", file("a", "old"), hardlink("b", "a"), file("a", "new"))
    tree = tree_of(tmp_path / "fs")
    assert (tree["a"].content, tree["b"].content) == (b"new", b"old")


# --- links


def test_hard_links_are_one_file_and_may_come_before_it(tmp_path: Path) -> None:
    unpacked(
        tmp_path / "fs",
        hardlink("first", "second"),
        hardlink("second", "d/target"),
        file("d/target", "x", mode=0o640),
        hardlink("third", "/d/target"),
    )
    inodes = {(tmp_path / "fs" / name).stat().st_ino for name in ("first", "second", "third", "d/target")}
    assert len(inodes) == 1
    assert tree_of(tmp_path / "fs")["first"].mode == 0o640


def test_a_link_to_a_link_is_a_link(tmp_path: Path) -> None:
    unpacked(tmp_path / "fs", symlink("s", "/etc/passwd"), hardlink("h", "s"))
    assert tree_of(tmp_path / "fs")["h"].content == b"/etc/passwd"


def test_a_link_without_its_target_waits_for_lower_layers(tmp_path: Path) -> None:
    layer = unpacked(tmp_path / "fs", hardlink("a/h", "usr/bin/tool"), hardlink("i", "a/h"))
    assert layer.pending == (("a/h", "usr/bin/tool"), ("i", "a/h"))
    assert kinds(tmp_path / "fs") == {"a": "dir"}


def test_a_link_to_itself_or_in_a_circle_is_no_file(tmp_path: Path) -> None:
    layer = unpacked(tmp_path / "fs", hardlink("a", "a"), hardlink("b", "c"), hardlink("c", "b"))
    assert [path for path, _ in layer.pending] == ["a", "b", "c"]
    unpacked(tmp_path / "other", file("a", "kept"), hardlink("a", "a"))
    assert tree_of(tmp_path / "other")["a"].content == b"kept"


def test_a_hard_link_to_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="leads to a directory"):
        unpacked(tmp_path / "fs", folder("d"), hardlink("h", "d"))


@pytest.mark.parametrize("target", ["usr/lib", "/usr/lib", "../../../usr/lib", "./usr/../usr/lib", "/usr/./lib/"])
def test_files_go_through_the_layers_own_links(tmp_path: Path, target: str) -> None:
    unpacked(
        tmp_path / "fs",
        folder("usr"),
        folder("usr/lib", mode=0o711),
        symlink("lib", target),
        file("lib/x", "1"),
        folder("lib/d"),
        file("lib/d/y"),
    )
    assert kinds(tmp_path / "fs") == {
        "usr": "dir",
        "usr/lib": "dir",
        "lib": "symlink",
        "usr/lib/x": "file",
        "usr/lib/d": "dir",
        "usr/lib/d/y": "file",
    }


def test_a_link_to_nowhere_in_this_layer_leads_to_a_new_directory(tmp_path: Path) -> None:
    layer = unpacked(tmp_path / "fs", symlink("lib", "usr/lib"), file("lib/x", "1"))
    assert kinds(tmp_path / "fs") == {"lib": "symlink", "usr": "dir", "usr/lib": "dir", "usr/lib/x": "file"}
    assert layer.implicit == ("", "usr", "usr/lib")


def test_a_link_that_was_replaced_is_forgotten(tmp_path: Path) -> None:
    unpacked(
        tmp_path / "fs", folder("a"), folder("b"), symlink("l", "a"), file("l/x"), symlink("l", "b"), file("l/y"), folder("l"), file("l/z")
    )
    assert kinds(tmp_path / "fs") == {"a": "dir", "b": "dir", "l": "dir", "a/x": "file", "b/y": "file", "l/z": "file"}


@pytest.mark.parametrize(
    "links", [[symlink("a", "a")], [symlink("a", "b"), symlink("b", "a")], [symlink("a", "a/a/a")], [symlink("a", "./b/../a")]]
)
def test_links_in_a_circle_are_refused(tmp_path: Path, links: list[object]) -> None:
    with pytest.raises(ImageError, match="circle"):
        unpacked(tmp_path / "fs", *links, file("a/x"))  # type: ignore[arg-type]


# --- what an image may not do


def test_devices_are_left_out(tmp_path: Path) -> None:
    layer = unpacked(
        tmp_path / "fs", member("sda", "block", devmajor=8), member("null", "char", devmajor=1, devminor=3), member("hide", "char")
    )
    assert kinds(tmp_path / "fs") == {}, "a character device 0:0 would be a whiteout"
    assert any("device" in warning for warning in layer.warnings)


def test_extended_attributes_that_speak_to_the_host_are_dropped(tmp_path: Path) -> None:
    kept = {"user.note": "1"}
    dropped = dict.fromkeys(
        (
            "trusted.overlay.opaque",
            "trusted.overlay.redirect",
            "trusted.overlay.metacopy",
            "user.overlay.opaque",
            "user.overlay.redirect",
            "security.selinux",
            "security.ima",
            "system.posix_acl_access",
            "trusted.x",
            "bogus",
        ),
        "y",
    )
    layer = unpacked(
        tmp_path / "fs", folder("d", xattrs={**kept, **dropped}), file("f", xattrs={**kept, **dropped}), folder("./", xattrs=dropped)
    )
    assert [os.listxattr(tmp_path / "fs" / name) for name in ("d", "f", ".")] == [["user.note"], ["user.note"], []]
    assert any("were dropped" in warning for warning in layer.warnings)


def test_file_capabilities_are_kept(tmp_path: Path) -> None:
    net_raw = bytes.fromhex("0100000200200000000000000000000000000000")
    data = (
        pax_records([(b"SCHILY.xattr.security.capability", net_raw)])
        + header(b"ping", changes=[(100, b"0000755\0"), (108, b"0000007\0")])
        + END
    )
    (tmp_path / "fs").mkdir()
    unpack(pieces(data), str(tmp_path / "fs"), budget())
    assert os.getxattr(tmp_path / "fs/ping", "security.capability") == net_raw
    assert (tmp_path / "fs/ping").stat().st_uid == 7


def test_an_attribute_that_does_not_fit_is_the_images_fault_not_the_disks(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as refused:
        unpacked(tmp_path / "fs", file("f", xattrs={"user.huge": "x" * 70_000}))
    assert refused.value.code == "InvalidImage"


# --- sparse files


def test_holes_stay_holes(tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as holes:
        holes.seek(50 << 20)
        holes.write(b"end")
        holes.truncate(60 << 20)
    for options in (["--format=gnu"], ["--format=pax"]):
        data = subprocess.run(["tar", "-C", tmp_path, "-S", *options, "-cf", "-", "holes"], capture_output=True, check=True).stdout
        target = tmp_path / options[0]
        target.mkdir()
        layer = unpack(pieces(data), str(target), budget())
        found = target / "holes"
        assert found.read_bytes() == (tmp_path / "holes").read_bytes()
        assert found.stat().st_blocks * 512 < 1 << 20
        assert layer.size < 1 << 20


# --- limits


@pytest.mark.parametrize(
    ("limits", "members", "why"),
    [
        (Limits(unpacked=100_000, reserve=0), [file("a", b"x" * 200_000)], "unpacks to more"),
        (Limits(entries=5, reserve=0), [file(f"f{i}") for i in range(6)], "more than 5 files"),
        (Limits(entries=50, reserve=0), [hardlink(f"h{i}", f"h{i + 1}") for i in range(40)], "more than 50 files"),
    ],
)
def test_a_layer_beyond_the_limits_is_refused(tmp_path: Path, limits: Limits, members: list[object], why: str) -> None:
    (tmp_path / "fs").mkdir()
    with pytest.raises(ImageError, match=why):
        unpack(pieces(tar(*members)), str(tmp_path / "fs"), budget(limits))  # type: ignore[arg-type]


def test_directories_nested_too_deeply_are_refused_by_any_way(tmp_path: Path) -> None:
    deep = "d/" * 200
    with pytest.raises(ImageError, match="nested deeper"):
        unpacked(tmp_path / "fs", file(deep + "x"), symlink("l", deep), file("l/" + deep + "x"))


def test_a_name_no_file_system_takes_is_the_images_fault(tmp_path: Path) -> None:
    for number, members in enumerate([[file("x" * 256)], [symlink("l", "x" * 5000)], [symlink("l", "")], [file("f"), file("f/below")]]):
        with pytest.raises(ImageError) as refused:
            unpacked(tmp_path / str(number), *members)
        assert refused.value.code == "InvalidImage"


def test_many_directories_need_few_descriptors(tmp_path: Path) -> None:
    members = [member for i in range(3000) for member in (folder(f"d{i}", mtime=i), file(f"d{i}/e/f"))]
    unpacked(tmp_path / "fs", *members)
    assert len(tree_of(tmp_path / "fs")) == 9001
    assert (tmp_path / "fs/d77").stat().st_mtime == 77


def test_names_are_bytes(tmp_path: Path) -> None:
    (tmp_path / "fs").mkdir()
    data = header(b"\xff\xfe/caf\xc3\xa9") + header(b"new\nline", size=1) + padded(b"x") + END
    layer = unpack(pieces(data), str(tmp_path / "fs"), budget())
    assert os.listdir(os.fsencode(tmp_path / "fs")) in ([b"\xff\xfe", b"new\nline"], [b"new\nline", b"\xff\xfe"])
    assert type(layer).from_json(layer.to_json()) == layer


def test_nothing_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    unpacked(tmp_path / "fs", *(file(f"d{i}/f") for i in range(300)))
    with pytest.raises(ImageError):
        unpacked(tmp_path / "broken", file("a/b/c"), file("../x"))
    assert len(os.listdir("/proc/self/fd")) == before
    assert stat.S_ISDIR((tmp_path / "fs/d1").stat().st_mode)
