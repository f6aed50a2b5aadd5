"""References mean here what they mean to docker and containerd."""

from __future__ import annotations

import pytest
from moorage_agent.errors import ImageError
from moorage_agent.images.reference import parse_reference

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "domain", "repository", "tag", "digest"),
    [
        ("nginx", "docker.io", "library/nginx", "latest", None),
        ("nginx:1.27", "docker.io", "library/nginx", "1.27", None),
        ("grafana/loki", "docker.io", "grafana/loki", "latest", None),
        ("docker.io/nginx", "docker.io", "library/nginx", "latest", None),
        ("index.docker.io/team/app:1", "docker.io", "team/app", "1", None),
        ("localhost/app", "localhost", "app", "latest", None),
        ("localhost:5000/app:2", "localhost:5000", "app", "2", None),
        ("registry.example/team/app", "registry.example", "team/app", "latest", None),
        ("Registry/app", "Registry", "app", "latest", None),
        ("registry/app", "docker.io", "registry/app", "latest", None),
        ("127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000", "a/b/c", "x", None),
        ("[::1]:5000/app", "[::1]:5000", "app", "latest", None),
        (f"app:1.2@sha256:{HEX}", "docker.io", "library/app", None, f"sha256:{HEX}"),
        (f"r.example:443/a@sha256:{HEX}", "r.example:443", "a", None, f"sha256:{HEX}"),
        ("x/a.b_c__d-e---f/g", "docker.io", "x/a.b_c__d-e---f/g", "latest", None),
        ("app:A.b_C-1", "docker.io", "library/app", "A.b_C-1", None),
    ],
)
def test_a_reference_is_read(text: str, domain: str, repository: str, tag: str | None, digest: str | None) -> None:
    reference = parse_reference(text)
    assert (reference.domain, reference.repository, reference.tag, reference.digest) == (domain, repository, tag, digest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "App",
        "team/App",
        "a//b",
        "/a",
        "a/",
        "a/../b",
        "..",
        "a..b",
        "a___b",
        "-a",
        "a b",
        "a:",
        "a:-x",
        "a:" + "x" * 129,
        "a@sha256:abc",
        "a@md5:" + "0" * 32,
        f"a@sha256:{HEX.upper()}",
        f"a@sha256:{HEX}/../x",
        HEX,
        "x" * 256,
        "r.example:port/a",
        "r_x.example/a",
        "r.example/a\n",
        "http://r.example/a",
        "é.example/a",
    ],
)
def test_what_is_no_reference_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ImageError, match="is invalid") as refused:
        parse_reference(text)
    assert refused.value.code == "InvalidReference"
    assert refused.value.retry_after_s is None


def test_docker_hub_is_asked_at_its_api_host() -> None:
    assert parse_reference("nginx").host == "registry-1.docker.io"
    assert parse_reference("r.example/nginx").host == "r.example"


def test_a_digest_is_asked_for_before_a_tag() -> None:
    assert parse_reference(f"app:1@sha256:{HEX}").version == f"sha256:{HEX}"
    assert parse_reference("app:1").version == "1"
    assert str(parse_reference("app:1").pinned(f"sha256:{HEX}")) == f"docker.io/library/app@sha256:{HEX}"
