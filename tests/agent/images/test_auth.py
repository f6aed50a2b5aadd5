"""Challenges of all shapes are read, and what is secret shows nowhere."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage_agent.errors import ImageError
from moorage_agent.images.auth import Challenge, Credentials, parse_challenges


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            ['Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"'],
            [("bearer", {"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:a/b:pull,push"})],
        ),
        (['Basic realm="a \\"quoted\\" realm"'], [("basic", {"realm": 'a "quoted" realm'})]),
        (["basic"], [("basic", {})]),
        (["BEARER Realm=https://x/y?z=1 , Service=s"], [("bearer", {"realm": "https://x/y?z=1", "service": "s"})]),
        (['Negotiate, Basic realm="x", Bearer realm="y"'], [("negotiate", {}), ("basic", {"realm": "x"}), ("bearer", {"realm": "y"})]),
        (['Bearer realm="y"', 'Basic realm="x"'], [("bearer", {"realm": "y"}), ("basic", {"realm": "x"})]),
        (['Bearer realm = "y" , error = "insufficient_scope"'], [("bearer", {"realm": "y", "error": "insufficient_scope"})]),
        ([""], []),
        ([], []),
        ([",,,="], []),
    ],
)
def test_challenges_are_read(headers: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(headers) == [Challenge(scheme, parameters) for scheme, parameters in expected]


@given(st.text(alphabet='Bearer ="\\,x:/\n', max_size=300))
def test_any_header_is_read_in_a_moment(header: str) -> None:
    before = time.monotonic()
    parse_challenges([header])
    assert time.monotonic() - before < 1


def test_a_long_hostile_header_is_read_in_a_moment() -> None:
    before = time.monotonic()
    parse_challenges(["Bearer realm=" + "a:/" * 20_000 + '"', 'Bearer realm="' + "\\" * 60_000, "a " * 30_000])
    assert time.monotonic() - before < 5


def test_credentials_show_no_secret() -> None:
    secret = Credentials.from_json(b'{"username": "user", "password": "hunter2", "identitytoken": "t0ken"}')
    assert "hunter2" not in repr(secret)
    assert "t0ken" not in repr(secret)
    assert secret.password == "hunter2"


@pytest.mark.parametrize("data", [b"", b"hunter2", b"[]", b"{}", b'{"username": ["hunter2"]}', b'"hunter2"', b"\xff"])
def test_what_is_no_credentials_is_refused_without_repeating_it(data: bytes) -> None:
    with pytest.raises(ImageError) as refused:
        Credentials.from_json(data)
    assert refused.value.code == "InvalidCredentials"
    assert "hunter2" not in str(refused.value)
