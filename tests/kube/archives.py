"""Images as files: what `docker save` writes, an OCI layout, a plain root file system."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tests.kube.images import OCI_INDEX, Blob, Image, Index, as_json


def write_docker_save(path: Path, image: Image, *references: str) -> Path:
    """The format of docker before version 25: a manifest.json naming config and uncompressed layers."""
    config = image.config_blob()
    name = f"{config.digest.removeprefix('sha256:')}.json"
    layers = {f"{layer.diff_id.removeprefix('sha256:')}/layer.tar": layer.tar for layer in image.layers}
    manifest = [{"Config": name, "RepoTags": list(references) or None, "Layers": list(layers)}]
    return write_tar(path, {name: config.data, **layers, "manifest.json": as_json(manifest)})


def write_oci_layout(path: Path, what: Image | Index, *, tag: str | None = None) -> Path:
    """As a tar archive; `tag` becomes its reference name."""
    images = what.images if isinstance(what, Index) else (what,)
    top = what.manifest()
    blobs = [top, *(blob for image in images for blob in (image.manifest(), image.config_blob(), *image.layer_blobs()))]
    annotations = {"annotations": {"org.opencontainers.image.ref.name": tag}} if tag else {}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{**top.descriptor, **annotations}]}
    files = {"oci-layout": as_json({"imageLayoutVersion": "1.0.0"}), "index.json": as_json(index)}
    return write_tar(path, {**files, **{blob_path(blob): blob.data for blob in blobs}})


def write_rootfs(path: Path, image: Image) -> Path:
    """What `docker export` writes: the files alone. Of one layer only, so that nothing needs merging."""
    (layer,) = image.layers
    path.write_bytes(layer.tar)
    return path


def blob_path(blob: Blob) -> str:
    return f"blobs/{blob.digest.replace(':', '/')}"


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
