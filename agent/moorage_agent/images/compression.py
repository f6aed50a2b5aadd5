"""Layers as tar bytes, however they are compressed. The magic number decides: declared media types are often wrong."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import threading
import zlib
from collections.abc import Generator, Iterator
from itertools import chain
from typing import Any

from moorage_agent.errors import ImageError

_OUTPUT = 1 << 20
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


def inflated(chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
    """The content of a gzip, zstd or uncompressed stream, in pieces of at most 1 MiB or as they come.

    Raises ImageError(InvalidImage) for broken data, ImageError(UnsupportedCompression) for zstd on a host without it.
    """
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= 4:
            break
    whole = chain((head,), chunks)
    if head.startswith(_GZIP):
        yield from _gunzip(whole)
    elif head.startswith(_ZSTD) or _skippable(head):
        yield from _unzstd(whole)
    elif head.startswith((b"\xfd7zX", b"BZh")):
        raise ImageError("UnsupportedCompression", "the layer is compressed with xz or bzip2; build the image with gzip or zstd")
    else:
        yield from whole


def _skippable(head: bytes) -> bool:
    """zstd streams may begin with a skippable frame (magic 184D2A50 to 5F); zstd:chunked layers hold some."""
    return head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """All members of a gzip stream: eStargz layers have one per file. Zero padding after the last is ignored, as gzip(1) does."""
    member = zlib.decompressobj(31)
    try:
        for chunk in chunks:
            while chunk:
                if member.eof:
                    if not chunk.strip(b"\0"):
                        break
                    member = zlib.decompressobj(31)
                out = member.decompress(chunk, _OUTPUT)
                if out:
                    yield out
                chunk = member.unused_data if member.eof else member.unconsumed_tail
        while not member.eof and (out := member.decompress(b"", _OUTPUT)):
            yield out
    except zlib.error as error:
        raise ImageError("InvalidImage", f"a layer's gzip data is broken: {error}", 60) from error
    if not member.eof:
        raise ImageError("InvalidImage", "a layer's gzip data ends too early", 60)


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    module = _zstd_module()
    if module is not None:
        return _unzstd_module(chunks, module)
    program = shutil.which("zstd")
    if program is not None:
        return _unzstd_program(chunks, program)
    raise ImageError(
        "UnsupportedCompression",
        "the layer is compressed with zstd, which this host cannot read: install zstd or Python 3.14, or push the image with gzip",
    )


def _zstd_module() -> Any:
    """Part of Python since 3.14, unless it was built without."""
    try:
        return importlib.import_module("compression.zstd")
    except ImportError:
        return None


def _unzstd_module(chunks: Iterator[bytes], zstd: Any) -> Iterator[bytes]:
    frame = zstd.ZstdDecompressor()
    try:
        for chunk in chunks:
            while chunk:
                if frame.eof:
                    frame = zstd.ZstdDecompressor()
                out = frame.decompress(chunk, _OUTPUT)
                if out:
                    yield out
                while not frame.eof and not frame.needs_input:
                    yield frame.decompress(b"", _OUTPUT)
                chunk = frame.unused_data if frame.eof else b""
    except zstd.ZstdError as error:
        raise ImageError("InvalidImage", f"a layer's zstd data is broken: {error}", 60) from error
    if not frame.eof:
        raise ImageError("InvalidImage", "a layer's zstd data ends too early", 60)


def _unzstd_program(chunks: Iterator[bytes], program: str) -> Iterator[bytes]:
    """Through zstd(1): a thread feeds it, this one reads. What stopped the feeding is raised here, before zstd's own complaint."""
    with subprocess.Popen([program, "-dcq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        failed: list[BaseException] = []
        feeder = threading.Thread(target=_feed, args=(chunks, process.stdin, failed), name="zstd-feeder", daemon=True)
        feeder.start()
        try:
            while out := process.stdout.read(1 << 18):
                yield out
            feeder.join()
            complaint = process.stderr.read(500).decode(errors="replace").strip()
        finally:
            process.kill()
            feeder.join()
        if failed:
            raise failed[0]
        if process.wait() != 0:
            raise ImageError("InvalidImage", f"a layer's zstd data is broken: {complaint}", 60)


def _feed(chunks: Iterator[bytes], pipe: Any, failed: list[BaseException]) -> None:
    try:
        with pipe:
            for chunk in chunks:
                pipe.write(chunk)
    except BrokenPipeError:
        pass  # zstd ended early and says why
    except BaseException as error:  # raised again by the reader
        failed.append(error)
