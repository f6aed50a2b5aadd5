"""An image's configuration becomes ours; hostile ones become an error."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage_agent.errors import ImageError
from moorage_agent.images.config import parse_config, rootfs_config
from moorage_agent.images.digest import digest_of
from moorage_agent.protocol import Healthcheck, ImageConfig

DIFF_ID = "sha256:" + "1" * 64
STABLE = "sha256:1f44d5354a2a540a08333b2ffffe36a4d846f7ae51023663bdadf6a5f2f6e411"


def parse(config: Any, **changes: Any) -> ImageConfig:
    body = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [DIFF_ID]}, "config": config, **changes}
    return parse_config(json.dumps(body).encode(), of="image app").config


def test_all_fields_are_taken_over() -> None:
    config = parse(
        {
            "Entrypoint": ["/entry"],
            "Cmd": ["serve", "--all"],
            "Env": ["A=1", "B=x=y"],
            "User": "app:app",
            "WorkingDir": "/srv",
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Volumes": {"/data": {}},
            "StopSignal": "SIGQUIT",
            "Labels": {"a": "b"},
            "ArgsEscaped": True,
            "OnBuild": ["RUN x"],
        }
    )
    assert config == ImageConfig(
        entrypoint=("/entry",),
        command=("serve", "--all"),
        env=("A=1", "B=x=y"),
        user="app:app",
        working_dir="/srv",
        ports=("80/tcp", "53/udp"),
        volumes=("/data",),
        stop_signal="SIGQUIT",
        labels={"a": "b"},
    )


def test_null_and_empty_are_not_the_same() -> None:
    assert parse({"Entrypoint": None, "Cmd": []}).entrypoint is None
    assert parse({"Entrypoint": None, "Cmd": []}).command == ()
    assert parse(None) == ImageConfig()
    assert parse({"Cmd": "one"}).command == ("one",)


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ({"Test": ["CMD", "/check", "-q"]}, Healthcheck(exec=("/check", "-q"))),
        ({"Test": ["CMD-SHELL", "test -e /x"]}, Healthcheck(exec=("/bin/sh", "-c", "test -e /x"))),
        ({"Test": ["NONE"]}, Healthcheck(disabled=True)),
        ({"Test": []}, None),
        ({}, None),
        (None, None),
        (
            {
                "Test": ["CMD", "x"],
                "Interval": 1_500_000_000,
                "Timeout": 0,
                "Retries": 7,
                "StartPeriod": 2_000_000_000,
                "StartInterval": 10**9,
            },
            Healthcheck(exec=("x",), interval_s=1.5, timeout_s=30.0, retries=7, start_period_s=2.0, start_interval_s=1.0),
        ),
    ],
)
def test_health_checks_are_dockers(check: Any, expected: Healthcheck | None) -> None:
    assert parse({"Healthcheck": check}).healthcheck == expected


def test_a_shell_check_runs_in_the_images_own_shell() -> None:
    check = parse({"Shell": ["/bin/bash", "-ec"], "Healthcheck": {"Test": ["CMD-SHELL", "true"]}}).healthcheck
    assert check is not None
    assert check.exec == ("/bin/bash", "-ec", "true")


@pytest.mark.parametrize(
    "config",
    [
        {"Env": "A=1\0B"},
        {"Env": [1]},
        {"Env": ["x"] * 10_001},
        {"Cmd": ["x" * 200_000]},
        {"Cmd": {"a": 1}},
        {"User": 5},
        {"User": "\ud800"},
        {"Labels": {"a": 1}},
        {"Labels": []},
        {"Volumes": ["/data"]},
        {"Healthcheck": {"Test": ["EVIL", "x"]}},
        {"Healthcheck": {"Test": ["CMD"]}},
        {"Healthcheck": {"Test": ["CMD", "x"], "Interval": -1}},
        {"Healthcheck": {"Test": ["CMD", "x"], "Retries": 1.5}},
        [],
        "x",
    ],
)
def test_malformed_fields_are_refused(config: Any) -> None:
    with pytest.raises(ImageError) as refused:
        parse(config)
    assert refused.value.code == "InvalidImage"


@pytest.mark.parametrize("rootfs", [None, {}, {"diff_ids": None}, {"diff_ids": ["x"]}, {"diff_ids": [DIFF_ID] * 128}, []])
def test_a_configuration_must_name_its_layers(rootfs: Any) -> None:
    with pytest.raises(ImageError):
        parse({}, rootfs=rootfs)


def test_a_bare_root_file_system_has_one_configuration_on_all_hosts() -> None:
    assert digest_of(rootfs_config(DIFF_ID)) == STABLE, "changing it pulls every such image again"
    assert parse_config(rootfs_config(DIFF_ID), of="image app").diff_ids == (DIFF_ID,)


keys = st.sampled_from(["Entrypoint", "Cmd", "Env", "User", "Labels", "Healthcheck", "Test", "Interval", "Shell", "Volumes", "x"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["CMD", "NONE", "CMD-SHELL"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(keys, values, max_size=6))
def test_no_configuration_raises_anything_but_an_image_error(config: dict[str, Any]) -> None:
    with contextlib.suppress(ImageError):
        parse(config)
