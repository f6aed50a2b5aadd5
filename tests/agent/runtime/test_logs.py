"""Output on the disk and back."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from moorage_agent.runtime.log_reader import Line, read_lines
from moorage_agent.runtime.logs import CHUNK, LogWriter, records, segments


def writer(path: Path, *, max_size: int = 10 << 20, max_files: int = 3) -> LogWriter:
    return LogWriter(str(path / "log"), max_size=max_size, max_files=max_files)


def texts(path: Path, **wishes: float | None) -> list[bytes]:
    return [line.text for line in read_lines(str(path / "log"), **wishes)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (b"a\n", b"7 o F a\n"),
        (b"a\nb\n", b"7 o F a\n7 o F b\n"),
        (b"a\nb", b"7 o F a\n7 o P b\n"),
        (b"b", b"7 o P b\n"),
        (b"\n\n", b"7 o F \n7 o F \n"),
        (b"a\r\n\0\xff\n", b"7 o F a\r\n7 o F \0\xff\n"),
    ],
)
def test_records(chunk: bytes, expected: bytes) -> None:
    assert records(b"o", chunk, 7) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 7, 4096])
def test_what_was_written_in_pieces_is_read_whole(tmp_path: Path, size: int) -> None:
    log, text = writer(tmp_path), b"one\ntwo two\n\nlast without end" + bytes(range(11, 256))
    for at in range(0, len(text), size):
        log.write(b"o", text[at : at + size], at)
    assert b"".join(texts(tmp_path)) == text


def test_streams_keep_their_own_unfinished_lines(tmp_path: Path) -> None:
    log = writer(tmp_path)
    for at, (stream, chunk) in enumerate([(b"o", b"out "), (b"e", b"err "), (b"o", b"end\n"), (b"e", b"end\n")]):
        log.write(stream, chunk, at * 10**9)
    assert list(read_lines(str(tmp_path / "log"))) == [Line(2.0, "stdout", b"out end\n"), Line(3.0, "stderr", b"err end\n")]


def test_rotation_keeps_size_and_number_of_segments(tmp_path: Path) -> None:
    log = writer(tmp_path, max_size=CHUNK, max_files=3)
    for number in range(20):
        log.write(b"o", b"%02d" % number + b"x" * 29997 + b"\n", number)
    files = segments(str(tmp_path / "log"))
    assert len(files) == 3
    assert all(os.path.getsize(tmp_path / "log" / str(segment)) <= CHUNK for segment in files)
    kept = [int(text[:2]) for text in texts(tmp_path)]
    assert kept == list(range(20 - len(kept), 20))
    assert len(kept) >= 4


def test_a_new_writer_goes_on_in_the_newest_segment(tmp_path: Path) -> None:
    for number in range(3):
        log = writer(tmp_path)
        log.write(b"o", b"%d\n" % number, number)
        log.close()
    assert (texts(tmp_path), segments(str(tmp_path / "log"))) == ([b"0\n", b"1\n", b"2\n"], [1])


def test_log_is_for_root_alone(tmp_path: Path) -> None:
    writer(tmp_path)
    assert ((tmp_path / "log").stat().st_mode & 0o777, (tmp_path / "log/1").stat().st_mode & 0o777) == (0o700, 0o600)


def test_tail_and_since(tmp_path: Path) -> None:
    log = writer(tmp_path, max_size=CHUNK)
    for number in range(100):
        log.write(b"o", b"%02d" % number + b"y" * 2000 + b"\n", number * 10**9)
    assert [text[:2] for text in texts(tmp_path, tail=2)] == [b"98", b"99"]
    assert [text[:2] for text in texts(tmp_path, since=97)] == [b"97", b"98", b"99"]
    assert [text[:2] for text in texts(tmp_path, since=97, tail=1)] == [b"99"]
    assert texts(tmp_path, tail=0) == []
    assert texts(tmp_path / "nowhere") == []


def test_follow_sees_what_comes_over_rotation(tmp_path: Path) -> None:
    log = writer(tmp_path, max_size=CHUNK, max_files=50)
    log.write(b"o", b"000\n", 0)
    done = threading.Event()

    def write() -> None:
        for number in range(1, 200):
            log.write(b"o", b"%03d" % number + b"z" * 3000 + b"\n", number)
        done.set()

    seen = []
    following = read_lines(str(tmp_path / "log"), follow=True, poll_s=0.001)
    seen.append(next(following).text[:3])
    threading.Thread(target=write).start()
    seen += [next(following).text[:3] for _ in range(199)]
    assert done.wait(10)
    assert seen == [b"%03d" % number for number in range(200)]


def test_full_disk_gives_up_old_output_first_and_counts_what_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = writer(tmp_path, max_size=CHUNK)
    log.write(b"o", b"old\n" * 15000, 0)
    log.write(b"o", b"newer\n" * 8000, 1)
    real, room = os.write, 0

    def write(fd: int, data: bytes) -> int:
        if fd == log.fd and room < len(data):
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    log.write(b"o", b"lost\n", 2)
    assert (segments(str(tmp_path / "log")), log.dropped) == ([2, 3], 5)
    log.write(b"e", b"lost too\n", 3)
    room = 1 << 20
    log.write(b"o", b"back\n", 4)
    assert texts(tmp_path)[-2:] == [b"[moorage] 14 bytes of output were lost: the disk was full\n", b"back\n"]


def test_record_written_in_part_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = writer(tmp_path)
    log.write(b"o", b"whole\n", 0)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:9]))
    log.write(b"o", b"a longer line\n", 1)
    monkeypatch.setattr(os, "write", real)
    log.write(b"o", b"next\n", 2)
    assert [text for text in texts(tmp_path) if b"moorage" not in text] == [b"whole\n", b"next\n"]
