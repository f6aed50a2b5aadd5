"""The variant that runs here is found, the best of several, and a refusal lists what there is."""

from __future__ import annotations

import pytest
from moorage_agent.errors import ImageError
from moorage_agent.images.platforms import Platform, choose, host_platform, parse_platform


@pytest.mark.parametrize(
    ("machine", "platform"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64/v8"),
        ("armv7l", "linux/arm/v7"),
        ("armv6l", "linux/arm/v6"),
        ("riscv64", "linux/riscv64"),
        ("i686", "linux/386"),
        ("s390x", "linux/s390x"),
        ("new-machine", "linux/new-machine"),
    ],
)
def test_a_machine_has_a_platform(machine: str, platform: str) -> None:
    assert str(host_platform(machine)) == platform


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], "linux/amd64"),
        ("linux/arm64/v8", ["linux/arm64", "linux/arm/v7"], "linux/arm64"),
        ("linux/arm64", ["linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v7"),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], "linux/arm/v6"),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], "linux/arm/v5"),
        ("linux/arm/v7", ["linux/arm"], "linux/arm"),
        ("linux/amd64", ["linux/amd64/v1", "linux/amd64/v2"], "linux/amd64/v1"),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v2"),
        ("linux/amd64", ["windows/amd64", "linux/x86_64"], "linux/x86_64"),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], "linux/amd64"),
    ],
)
def test_the_best_that_runs_is_chosen(wanted: str, offered: list[str], chosen: str) -> None:
    offers = [(Platform(*text.split("/")), text) for text in offered]
    assert choose(parse_platform(wanted), offers, of="image app") == chosen


@pytest.mark.parametrize(
    ("wanted", "offered"),
    [("linux/amd64", ["linux/arm64"]), ("linux/arm/v6", ["linux/arm/v7"]), ("linux/amd64", ["linux/amd64/v3"]), ("linux/amd64", [])],
)
def test_where_nothing_runs_the_offers_are_named(wanted: str, offered: list[str]) -> None:
    offers = [(Platform(*text.split("/")), text) for text in offered]
    with pytest.raises(ImageError, match=offered[0] if offered else "nothing that runs") as refused:
        choose(parse_platform(wanted), offers, of="image app")
    assert refused.value.code == "NoMatchingPlatform"


@pytest.mark.parametrize("text", ["", "linux", "linux/", "a/b/c/d", "linux/../x", "linux/amd64/", "linux/am d64"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="os/architecture"):
        parse_platform(text)
