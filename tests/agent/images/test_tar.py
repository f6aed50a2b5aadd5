"""All that tar has been is read as Go and GNU read it; all that it is not is an ImageError."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage_agent.errors import ImageError
from moorage_agent.images.stream import ByteStream
from moorage_agent.images.tar import Entry, TarReader

from tests.agent.images.tars import END, file, folder, hardlink, header, member, padded, pax, pax_records, pieces, symlink, tar


def read(data: bytes, size: int = 700) -> list[tuple[Entry, bytes]]:
    """Entries with their stored content."""
    found = []
    reader = TarReader(ByteStream(pieces(data, size)))
    for entry in reader:
        with contextlib.closing(os.fdopen(os.memfd_create("content"), "rb+", buffering=0)) as content:
            reader.content(entry.stored, content.fileno())
            content.seek(0)
            found.append((entry, content.read()))
    return found


def entry_of(data: bytes) -> Entry:
    ((entry, _),) = read(data)
    return entry


FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("size", [1, 511, 512, 513, 100_000])
def test_every_kind_is_read_from_pieces_of_any_size(format: int, size: int) -> None:  # noqa: A002
    data = tar(
        file("a/file", "content", mode=0o4755, uid=7, gid=8, mtime=1_700_000_000),
        folder("a/dir/"),
        symlink("a/link", "file"),
        hardlink("a/hard", "a/file"),
        member("a/fifo", "fifo"),
        member("a/null", "char", devmajor=1, devminor=3),
        file("a/large", bytes(range(256)) * 40),
        format=format,
    )
    found = read(data, size)
    assert [entry.kind for entry, _ in found] == ["file", "directory", "symlink", "hard link", "fifo", "device", "file"]
    first, content = found[0]
    assert (first.name, first.mode, first.uid, first.gid, first.mtime_ns) == (b"a/file", 0o4755, 7, 8, 1_700_000_000 * 10**9)
    assert content == b"content"
    assert found[2][0].link == b"file"
    assert found[3][0].link == b"a/file"
    assert found[6][1] == bytes(range(256)) * 40


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_what_the_old_header_has_no_room_for_is_read(format: int) -> None:  # noqa: A002
    name = "d" * 90 + "/" + "e" * 90 + "/" + "f" * 200
    long = entry_of(tar(symlink(name, "t" * 300, uid=1 << 22, gid=(1 << 31) + 5, mtime=1 << 34), format=format))
    assert (long.name, long.link, long.uid, long.gid) == (name.encode(), b"t" * 300, 1 << 22, (1 << 31) + 5)
    assert long.mtime_ns == (1 << 34) * 10**9


def test_a_prefix_is_part_of_the_name_in_ustar_only() -> None:
    ustar = header(b"name", changes=[(345, b"some/prefix")])
    gnu = header(b"name", magic=b"ustar  \0", changes=[(345, b"12345670123")])
    star = header(b"name", changes=[(345, b"p"), (345 + 131, b"12345670123"), (508, b"tar\0")])
    assert [entry.name for entry, _ in read(ustar + gnu + star + END)] == [b"some/prefix/name", b"name", b"p/name"]


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1700000000.123456789", 1_700_000_000_123_456_789),
        ("1700000000.1", 1_700_000_000_100_000_000),
        ("1700000000.1234567899", 1_700_000_000_123_456_789),
        ("-5.25", -5_250_000_000),
        ("0", 0),
    ],
)
def test_times_keep_their_nanoseconds(text: str, nanoseconds: int) -> None:
    assert entry_of(pax(mtime=text) + header(b"f") + END).mtime_ns == nanoseconds


def test_a_negative_time_is_read_in_both_notations() -> None:
    assert entry_of(tar(file("a", mtime=-5), format=tarfile.GNU_FORMAT)).mtime_ns == -5 * 10**9
    assert entry_of(tar(file("a", mtime=-5), format=tarfile.PAX_FORMAT)).mtime_ns == -5 * 10**9


def test_extended_attributes_are_bytes() -> None:
    data = pax_records([(b"SCHILY.xattr.security.capability", b"\1\0\0\2\n=\xff")]) + header(b"f") + END
    assert entry_of(data).xattrs == {b"security.capability": b"\1\0\0\2\n=\xff"}


def test_an_extended_header_speaks_of_one_entry_and_a_global_one_of_none() -> None:
    both = header(b"g", kind=b"g", size=11) + padded(b"11 path=no\n") + pax(path="renamed") + header(b"a") + header(b"b") + END
    assert [entry.name for entry, _ in read(both)] == [b"renamed", b"b"]


def test_an_empty_record_means_what_the_old_header_says() -> None:
    assert entry_of(pax(path="") + header(b"kept") + END).name == b"kept"


def test_links_have_no_content_whatever_they_say() -> None:
    data = header(b"l", kind=b"2", size=512, changes=[(157, b"target")]) + header(b"next") + END
    assert [entry.name for entry, _ in read(data)] == [b"l", b"next"]


def test_the_oldest_tars_end_directories_with_a_slash() -> None:
    assert entry_of(header(b"dir/", kind=b"\0", magic=bytes(8)) + END).kind == "directory"


def test_an_archive_may_end_without_its_end() -> None:
    assert len(read(header(b"a"))) == 1
    assert len(read(header(b"a") + bytes(512))) == 1
    assert read(b"") == []


# --- sparse files


def gnu_tar(folder: Path, *options: str) -> bytes:
    done = subprocess.run(["tar", "-C", folder, "--sparse", *options, "-cf", "-", "holes"], capture_output=True, check=True)
    return done.stdout


def sparse_file(folder: Path, pieces: Iterable[tuple[int, bytes]], size: int) -> bytes:
    with (folder / "holes").open("wb") as target:
        for at, data in pieces:
            target.seek(at)
            target.write(data)
        target.truncate(size)
    return (folder / "holes").read_bytes()


def rebuilt(entry: Entry, stored: bytes) -> bytes:
    assert entry.sparse is not None
    whole = bytearray(entry.sparse.size)
    at = 0
    for offset, length in entry.sparse.pieces:
        whole[offset : offset + length] = stored[at : at + length]
        at += length
    return bytes(whole)


@pytest.mark.parametrize("version", ["gnu", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 40])
def test_holes_are_read_in_all_of_gnu_tars_formats(tmp_path: Path, version: str, count: int) -> None:
    whole = sparse_file(tmp_path, [(i * 100_000 + 4096, b"piece %d" % i * 50) for i in range(count)], count * 100_000 + 9999)
    options = ["--format=gnu"] if version == "gnu" else ["--format=pax", f"--sparse-version={version}"]
    data = gnu_tar(tmp_path, *options)
    assert len(data) < len(whole)
    reader = TarReader(ByteStream(pieces(data, 999)))
    (entry,) = [_stored(reader, entry) for entry in reader]
    assert entry[0].name == b"holes"
    assert rebuilt(*entry) == whole


def _stored(reader: TarReader, entry: Entry) -> tuple[Entry, bytes]:
    with contextlib.closing(os.fdopen(os.memfd_create("content"), "rb+", buffering=0)) as content:
        reader.content(entry.stored, content.fileno())
        content.seek(0)
        return entry, content.read()


SPARSE = b"GNU.sparse."


@pytest.mark.parametrize(
    ("records", "content"),
    [
        ([(b"map", b"0,5,3,5"), (b"size", b"100")], 10),  # overlapping
        ([(b"map", b"0,5,200,5"), (b"size", b"100")], 10),  # beyond the file
        ([(b"map", b"0,5"), (b"size", b"100")], 10),  # less than there is
        ([(b"map", b"0,50"), (b"size", b"100")], 10),  # more than there is
        ([(b"map", b"0,5,7"), (b"size", b"100")], 5),  # half a piece
        ([(b"map", b"-1,5"), (b"size", b"100")], 5),
        ([(b"map", b"0,x"), (b"size", b"100")], 5),
        ([(b"map", b"0,5"), (b"size", b"99999999999999999999")], 5),
        ([(b"major", b"1"), (b"minor", b"0"), (b"realsize", b"100")], 512),  # a map of zeros
        ([(b"major", b"1"), (b"minor", b"0"), (b"realsize", b"100")], 10),  # no room for a map
    ],
)
def test_maps_that_make_no_sense_are_refused(records: list[tuple[bytes, bytes]], content: int) -> None:
    data = pax_records([(SPARSE + key, value) for key, value in records]) + header(b"f", size=content) + padded(bytes(content)) + END
    with pytest.raises(ImageError):
        read(data)


# --- what is no tar


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"x" * 512, "checksum|octal"),
        (header(b"a")[:300], "checksum"),
        (header(b"a", size=100), "ends too early"),
        (header(b"a", kind=b"Z") + END, "unknown type"),
        (header(b"a", changes=[(124, b"\xff" * 12)]) + END, "negative size"),
        (header(b"a", changes=[(124, b"00000000009\0")]) + END, "octal"),
        (header(b"a", changes=[(124, b"0000000 0_7\0")]) + END, "octal"),
        (header(b"a", changes=[(124, b"-0000000007\0")]) + END, "octal"),
        (header(b"a", changes=[(108, b"\xff" * 8)]) + END, "user or group"),
        (pax(uid="4294967295") + header(b"a") + END, "user or group"),
        (pax(uid="-1") + header(b"a") + END, "no meaning"),
        (pax(size="9" * 30) + header(b"a") + END, "no meaning"),
        (pax(mtime="nan") + header(b"a") + END, "no meaning"),
        (pax(path="a\0b") + header(b"a") + END, "no meaning"),
        (header(b"x", kind=b"x", size=5) + padded(b"5 a=b") + header(b"a") + END, "malformed"),
        (header(b"x", kind=b"x", size=6) + padded(b"999 a=") + header(b"a") + END, "malformed"),
        (header(b"x", kind=b"x", size=6) + padded(b"0 a=b\n") + header(b"a") + END, "malformed"),
        (header(b"x", kind=b"x", size=1 << 21), "more than"),
        (header(b"x", kind=b"L", size=1 << 21), "more than"),
        (bytes(512) + header(b"a") + END, "block of zeros"),
    ],
)
def test_what_is_no_tar_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ImageError, match=why) as refused:
        read(data)
    assert refused.value.code == "InvalidImage"


@given(st.binary(max_size=2000))
def test_random_bytes_raise_nothing_but_an_image_error(data: bytes) -> None:
    with contextlib.suppress(ImageError):
        read(data)


@given(st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=6))
def test_a_damaged_archive_raises_nothing_but_an_image_error(damage: list[tuple[int, int]]) -> None:
    data = bytearray(pax(path="p", mtime="1.5") + header(b"a", size=600) + padded(b"x" * 600) + header(b"b", kind=b"S") + END)
    for at, value in damage:
        data[at % len(data)] = value
    with contextlib.suppress(ImageError):
        read(bytes(data))


@given(st.lists(st.tuples(st.text("abc/", min_size=1, max_size=12), st.binary(max_size=1500)), max_size=8), st.integers(1, 2000))
def test_what_the_standard_library_writes_is_read_back(files: list[tuple[str, bytes]], size: int) -> None:
    data = tar(*(file(name, content) for name, content in files))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [(info.name.encode().rstrip(b"/"), archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    assert [(entry.name.rstrip(b"/"), content) for entry, content in read(data, size)] == expected
