"""Manifests are read as far as they make sense; all else is refused by name, and nothing raises anything but ImageError."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage_agent.errors import ImageError
from moorage_agent.images.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Index,
    Manifest,
    parse_manifest,
)

DIGEST = "sha256:" + "0" * 64
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 2}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 3}


def manifest(**changes: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER], **changes}


def entry(platform: dict[str, str] | None, **changes: Any) -> dict[str, Any]:
    return {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": 5, **({"platform": platform} if platform else {}), **changes}


def parse(data: Any, media_type: str | None = None) -> Manifest | Index:
    return parse_manifest(json.dumps(data).encode(), media_type, of="image app")


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, f"{OCI_MANIFEST}; charset=utf-8", "text/plain", "application/json", "", None])
def test_a_manifest_is_read_whatever_the_registry_calls_it(media_type: str | None) -> None:
    parsed = parse(manifest(), media_type)
    assert isinstance(parsed, Manifest)
    assert (parsed.config.size, [layer.size for layer in parsed.layers]) == (2, [3])


def test_dockers_words_mean_the_same() -> None:
    layers = [{**LAYER, "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip"}]
    config = {**CONFIG, "mediaType": "application/vnd.docker.container.image.v1+json"}
    assert isinstance(parse(manifest(mediaType=DOCKER_MANIFEST, config=config, layers=layers), DOCKER_MANIFEST), Manifest)
    assert isinstance(parse({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": []}, DOCKER_LIST), Index)


def test_a_manifest_without_a_media_type_is_known_by_its_content() -> None:
    body = manifest()
    del body["mediaType"]
    assert isinstance(parse(body), Manifest)
    assert isinstance(parse({"schemaVersion": 2, "manifests": []}), Index)


def test_an_index_keeps_what_may_run() -> None:
    amd64 = {"os": "linux", "architecture": "amd64"}
    parsed = parse(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [
                entry(amd64),
                entry({"os": "linux", "architecture": "arm", "variant": "v7"}),
                entry({"os": "unknown", "architecture": "unknown"}),
                entry(amd64, annotations={"vnd.docker.reference.type": "attestation-manifest"}),
                entry(amd64, mediaType="application/vnd.example.signature+json"),
                entry(None, mediaType=OCI_INDEX),
            ],
        }
    )
    assert isinstance(parsed, Index)
    assert [str(platform) for platform, _ in parsed.entries] == ["linux/amd64", "linux/arm/v7", "None"]


@pytest.mark.parametrize(
    ("data", "media_type", "why"),
    [
        (manifest(manifests=[]), None, "both layers and manifests"),
        (manifest(), OCI_INDEX, "the registry says"),
        (manifest(schemaVersion=1), None, "schema 1"),
        (manifest(schemaVersion=3), None, "unknown schema"),
        (manifest(schemaVersion=None), None, "unknown schema"),
        (manifest(artifactType="application/vnd.example.sbom"), None, "is an artifact"),
        (manifest(config={**CONFIG, "mediaType": "application/vnd.oci.empty.v1+json"}), None, "not a container image"),
        (manifest(config={**CONFIG, "mediaType": "application/vnd.cncf.helm.config.v1+json"}), None, "not a container image"),
        (manifest(config=None), None, "lacks a descriptor"),
        (manifest(layers=[{**LAYER, "digest": "sha512:" + "0" * 128}]), None, "only sha256"),
        (manifest(layers=[{**LAYER, "digest": "sha256:../../etc/passwd"}]), None, "no valid digest"),
        (manifest(layers=[{**LAYER, "digest": "sha256:" + "A" * 64}]), None, "only sha256|no valid digest"),
        (manifest(layers=[{**LAYER, "digest": None}]), None, "no valid digest"),
        (manifest(layers=[{**LAYER, "size": -1}]), None, "size"),
        (manifest(layers=[{**LAYER, "size": True}]), None, "size"),
        (manifest(layers=[{**LAYER, "size": 1 << 60}]), None, "size"),
        (manifest(layers=[{**LAYER, "size": "5"}]), None, "size"),
        (manifest(layers=[{**LAYER, "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}]), None, "do not carry"),
        (manifest(layers=[{**LAYER, "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar"}]), None, "do not carry"),
        (manifest(layers=[{**LAYER, "mediaType": "text/plain"}]), None, "no file system layer"),
        (manifest(layers=[LAYER] * 128), None, "128 layers"),
        (manifest(layers=None), None, "no list of layers"),
        (manifest(mediaType="application/vnd.docker.distribution.manifest.v1+prettyjws"), None, "not a container image"),
        ({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry(None)] * 1001}, None, "1001 manifests"),
        ([], None, "not a JSON object"),
    ],
)
def test_what_is_no_image_is_refused(data: Any, media_type: str | None, why: str) -> None:
    with pytest.raises(ImageError, match=why) as refused:
        parse(data, media_type)
    assert refused.value.code == "InvalidImage"


@pytest.mark.parametrize("body", [b"", b"<html>404</html>", b"[" * 100_000, b"\xff\xfe", b"{" + b" " * MAX_BYTES + b"}"])
def test_bodies_that_are_no_manifest_are_refused(body: bytes) -> None:
    with pytest.raises(ImageError):
        parse_manifest(body, None, of="image app")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from([DIGEST, OCI_MANIFEST, OCI_INDEX]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*manifest(), *CONFIG, "manifests", "platform", "os"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values, st.sampled_from([None, OCI_MANIFEST, OCI_INDEX]))
def test_no_json_raises_anything_but_an_image_error(data: Any, media_type: str | None) -> None:
    shaped = {"schemaVersion": 2, **data} if isinstance(data, dict) else data
    for value in (data, shaped):
        with contextlib.suppress(ImageError):
            parse(value, media_type)
