"""Whatever a layer is compressed with is taken off whole, or the layer is refused; a small stream never becomes a large piece."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage_agent.errors import ImageError, Interrupted
from moorage_agent.images import compression
from moorage_agent.images.compression import inflated

from tests.agent.images.tars import pieces

TEXT = b"".join(b"line %d\n" % number for number in range(40_000))


def whole(data: bytes, size: int = 1000) -> bytes:
    return b"".join(inflated(pieces(data, size)))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(1, 400), st.integers(0, 40))
def test_all_members_of_a_gzip_stream_are_read(members: list[bytes], size: int, padding: int) -> None:
    data = b"".join(gzip.compress(member) for member in members) + bytes(padding)
    assert whole(data, size) == b"".join(members)


def test_what_is_not_compressed_passes() -> None:
    assert whole(TEXT) == TEXT
    assert whole(b"") == b""
    assert whole(b"ab") == b"ab"


@pytest.mark.parametrize("cut", [1, 8, 9, 2000])
def test_a_truncated_gzip_stream_is_refused(cut: int) -> None:
    with pytest.raises(ImageError, match="too early"):
        whole(gzip.compress(TEXT)[:-cut])


def test_a_damaged_gzip_stream_is_refused() -> None:
    data = bytearray(gzip.compress(TEXT))
    data[-6] ^= 1  # the checksum
    with pytest.raises(ImageError, match="gzip data is broken"):
        whole(bytes(data))
    with pytest.raises(ImageError, match="gzip data is broken"):
        whole(gzip.compress(TEXT) + b"rubbish")


def test_zeros_come_in_pieces_of_one_mebibyte() -> None:
    bomb = gzip.compress(bytes(64 << 20), 9)
    assert len(bomb) < 100_000
    sizes = [len(piece) for piece in inflated(iter([bomb]))]
    assert sum(sizes) == 64 << 20
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize("head", [b"\xfd7zXZ\0", b"BZh91AY"])
def test_other_compression_is_refused_by_name(head: bytes) -> None:
    with pytest.raises(ImageError) as refused:
        whole(head + bytes(100))
    assert refused.value.code == "UnsupportedCompression"


# --- zstd


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


SKIPPABLE = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
needs_program = pytest.mark.usefixtures("zstd_program")


@needs_program
@pytest.mark.parametrize(
    "data", [lambda: zstd(TEXT), lambda: SKIPPABLE + zstd(TEXT), lambda: zstd(TEXT[:9]) + SKIPPABLE + zstd(TEXT[9:]) + SKIPPABLE]
)
def test_all_frames_of_a_zstd_stream_are_read_by_the_program(data: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_zstd_module", lambda: None)
    assert callable(data)
    assert whole(data()) == TEXT


@needs_program
def test_damaged_zstd_data_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_zstd_module", lambda: None)
    for data in (zstd(TEXT)[:-20], zstd(TEXT)[:50] + bytes(5000)):
        with pytest.raises(ImageError, match="zstd data is broken"):
            whole(data)


@needs_program
def test_what_ends_the_download_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_zstd_module", lambda: None)
    data = zstd(TEXT)

    def broken() -> Iterator[bytes]:
        yield data[:100]
        raise Interrupted("Cancelled", "enough")

    with pytest.raises(Interrupted):
        list(inflated(broken()))


@needs_program
def test_a_reader_may_leave_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_zstd_module", lambda: None)
    stream = inflated(pieces(zstd(bytes(50 << 20)) * 3, 4096))
    next(stream)
    stream.close()


def test_without_zstd_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_zstd_module", lambda: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ImageError, match="install zstd") as refused:
        whole(b"\x28\xb5\x2f\xfd" + bytes(50))
    assert refused.value.code == "UnsupportedCompression"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="compression.zstd came with Python 3.14")
@needs_program
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_all_frames_are_read_by_the_module(size: int) -> None:
    assert whole(zstd(TEXT[:9]) + SKIPPABLE + zstd(TEXT[9:]) + SKIPPABLE, size) == TEXT
    with pytest.raises(ImageError):
        whole(zstd(TEXT)[:-20], size)


def test_raw_deflate_is_not_taken_for_gzip() -> None:
    data = zlib.compress(TEXT)
    assert whole(data) == data
