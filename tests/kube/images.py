"""Images made on the spot: layers from plain mappings, BusyBox from Debian's package. Nothing is downloaded from an image hub."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import stat
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.machine.debs import unpacked

ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
NATIVE: Final = ARCHITECTURES.get(platform.machine(), platform.machine())
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
CREATED: Final = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Entry:
    """One member of a layer. `content` is bytes of a file, or the target of a `link` ("symbolic" or "hard"); None makes a folder."""

    content: str | bytes | None = None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    link: str | None = None
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Blob:
    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.data)

    @property
    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}


@dataclass(frozen=True)
class Layer:
    """An uncompressed tar archive; `compression` is how it travels: "gzip", "zstd" (where the zstd program is) or "none"."""

    tar: bytes
    compression: str = "gzip"

    @property
    def diff_id(self) -> str:
        return digest_of(self.tar)


@dataclass(frozen=True)
class Image:
    """`config` is the image configuration's `config` object: Cmd, Env, User, Healthcheck…; `docker`: of docker's media types, not OCI's."""

    layers: tuple[Layer, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    architecture: str = NATIVE
    variant: str | None = None
    docker: bool = False

    def config_blob(self) -> Blob:
        content = {
            "created": CREATED,
            "architecture": self.architecture,
            "os": "linux",
            **({"variant": self.variant} if self.variant else {}),
            "config": dict(self.config),
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]},
        }
        kind = "application/vnd.docker.container.image.v1+json" if self.docker else "application/vnd.oci.image.config.v1+json"
        return Blob(kind, as_json(content))

    def layer_blobs(self) -> list[Blob]:
        return [Blob(layer_type(layer.compression, docker=self.docker), compressed(layer)) for layer in self.layers]

    def manifest(self) -> Blob:
        kind = DOCKER_MANIFEST if self.docker else OCI_MANIFEST
        layers = [blob.descriptor for blob in self.layer_blobs()]
        return Blob(kind, as_json({"schemaVersion": 2, "mediaType": kind, "config": self.config_blob().descriptor, "layers": layers}))

    @property
    def platform(self) -> dict[str, str]:
        return {"os": "linux", "architecture": self.architecture, **({"variant": self.variant} if self.variant else {})}


@dataclass(frozen=True)
class Index:
    """One reference, several platforms."""

    images: tuple[Image, ...]
    docker: bool = False

    def manifest(self) -> Blob:
        kind = DOCKER_INDEX if self.docker else OCI_INDEX
        entries = [{**image.manifest().descriptor, "platform": image.platform} for image in self.images]
        return Blob(kind, as_json({"schemaVersion": 2, "mediaType": kind, "manifests": entries}))


def make_layer(entries: Mapping[str, Entry | str | bytes], *, compression: str = "gzip") -> Layer:
    """Paths to entries, in this order; text or bytes are a file of mode 0644. The same entries give the same bytes always."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, value in entries.items():
            entry = value if isinstance(value, Entry) else Entry(value)
            member, content = as_member(path, entry)
            archive.addfile(member, io.BytesIO(content))
    return Layer(buffer.getvalue(), compression)


def as_member(path: str, entry: Entry) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(path)
    member.mode, member.uid, member.gid = entry.mode, entry.uid, entry.gid
    member.pax_headers = {f"SCHILY.xattr.{name}": value.decode("latin-1") for name, value in entry.xattrs.items()}
    content = entry.content.encode() if isinstance(entry.content, str) else entry.content
    if content is None:
        member.type = tarfile.DIRTYPE
        return member, b""
    if entry.link is not None:
        member.type = tarfile.SYMTYPE if entry.link == "symbolic" else tarfile.LNKTYPE
        member.linkname = content.decode()
        return member, b""
    member.size = len(content)
    return member, content


def folder(mode: int = 0o755, *, uid: int = 0, gid: int = 0) -> Entry:
    return Entry(None, mode, uid, gid)


def symlink(target: str) -> Entry:
    return Entry(target, 0o777, link="symbolic")


def program(text: str) -> Entry:
    return Entry(text, 0o755)


def layer_of_folder(root: Path) -> Layer:
    """All of `root`, owned by root, without times: the same folder gives the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(root.rglob("*")):
            member = archive.gettarinfo(path, str(path.relative_to(root)))
            member.uid = member.gid = member.mtime = 0
            member.uname = member.gname = ""
            if member.isreg():
                with path.open("rb") as content:
                    archive.addfile(member, content)
            else:
                archive.addfile(member)
    return Layer(buffer.getvalue())


@cache
def busybox_layer() -> Layer:
    """Debian's static BusyBox with a link for each of its programs, and the folders and accounts a program expects."""
    binary = unpacked("busybox-static") / "usr/bin/busybox"
    binary = binary if binary.exists() else unpacked("busybox-static") / "bin/busybox"
    names = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split()
    entries: dict[str, Entry | str | bytes] = {
        "bin": folder(),
        "bin/busybox": Entry(binary.read_bytes(), 0o755),
        **{f"bin/{name}": symlink("busybox") for name in sorted(names) if name != "busybox"},
        "dev": folder(),
        "proc": folder(0o555),
        "sys": folder(0o555),
        "run": folder(),
        "tmp": folder(0o777 | stat.S_ISVTX),
        "var": folder(),
        "root": folder(0o700),
        "home": folder(),
        "etc": folder(),
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    }
    return make_layer(entries)


def busybox(*layers: Layer, config: Mapping[str, Any] | None = None, **more: Any) -> Image:
    """BusyBox with `layers` on top. Without a `config` of its own it runs a shell."""
    return Image((busybox_layer(), *layers), {"Cmd": ["sh"], "Env": ["PATH=/bin"], **(config or {})}, **more)


def for_other_machine(image: Image, architecture: str) -> Image:
    """The same image, said to be for another architecture: for choosing among platforms, not for running."""
    return Image(image.layers, image.config, architecture, image.variant, image.docker)


def compressed(layer: Layer) -> bytes:
    if layer.compression == "none":
        return layer.tar
    if layer.compression == "zstd":
        return subprocess.run(["zstd", "-q", "-c"], input=layer.tar, capture_output=True, check=True).stdout
    return gzip.compress(layer.tar, 1, mtime=0)


def layer_type(compression: str, *, docker: bool) -> str:
    base = "application/vnd.docker.image.rootfs.diff.tar" if docker else "application/vnd.oci.image.layer.v1.tar"
    suffix = {"gzip": ".gzip" if docker else "+gzip", "zstd": ".zstd" if docker else "+zstd", "none": ""}[compression]
    return base + suffix


def as_json(content: Mapping[str, Any] | Sequence[Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
