from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from moorage_agent.errors import InvalidTask
from moorage_agent.images.store import Image
from moorage_agent.merge import Materials, argv_of, launch_of
from moorage_agent.paths import Paths
from moorage_agent.protocol import Container, DataFile, EnvVar, ImageConfig, Mount
from moorage_agent.runtime.launch import Bind, Launch, Tmpfs

from tests.agent.fake_host import IMAGE, task

PATHS = Paths("/disk", "/boot")
E, C = ("entry",), ("one", "two")


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "command", "args", "argv"),
    [
        pytest.param(E, C, None, None, E + C, id="the image alone"),
        pytest.param(None, C, None, None, C, id="an image without entrypoint"),
        pytest.param(E, C, None, ("x",), (*E, "x"), id="args replace the image's arguments"),
        pytest.param(E, C, None, (), E, id="empty args are no args"),
        pytest.param(E, C, ("sh",), None, ("sh",), id="command drops the image's arguments too"),
        pytest.param(E, C, ("sh",), ("-c", "x"), ("sh", "-c", "x"), id="command and args"),
        pytest.param(None, None, None, ("x",), ("x",), id="args of an image that says nothing"),
    ],
)
def test_what_is_run(entrypoint: Any, cmd: Any, command: Any, args: Any, argv: tuple[str, ...]) -> None:
    one = task(container=Container(command=command, args=args))
    assert argv_of(one, ImageConfig(entrypoint=entrypoint, command=cmd)) == argv


def launched(container: Container, config: ImageConfig | None = None, materials: Materials | None = None, **changes: Any) -> Launch:
    one = task(container=dataclasses.replace(container, command=container.command or ("run",)), **changes)
    image = Image(IMAGE, "linux/amd64", config or ImageConfig(), ("/layers/1/fs",), 1)
    return launch_of(one, image, materials or Materials(), paths=PATHS, node_name="n1")


def test_variables_add_up_and_the_tasks_win() -> None:
    launch = launched(Container(env=(EnvVar("A", "task"), EnvVar("C", "3"))), ImageConfig(env=("A=image", "B=2", "E")))
    assert launch.env == ("A=task", "B=2", "E=", "C=3")


def test_the_hostname_is_the_tasks_name_unless_it_says_otherwise() -> None:
    assert launched(Container()).hostname == "web-1-x"
    assert launched(Container(), name="w" * 62 + "-x").hostname == "w" * 62


def test_a_variable_may_come_from_a_value_that_travels_apart_and_never_shows() -> None:
    key = "secret/default/db/password/0123456789abcdef"
    launch = launched(Container(env=(EnvVar("PASSWORD", key=key),)), materials=Materials(env={key: b"{{hunter2}}"}))
    assert "PASSWORD={{hunter2}}" in launch.env
    assert "hunter2" not in repr(launch)


def test_a_value_that_is_no_text_cannot_be_a_variable() -> None:
    with pytest.raises(InvalidTask, match="mount it as a file"):
        launched(Container(env=(EnvVar("X", key="secret/a/b/c/d"),)), materials=Materials(env={"secret/a/b/c/d": b"\xff"}))


def test_templates_are_expanded_in_env_hostname_and_mount_sources() -> None:
    launch = launched(
        Container(
            env=(EnvVar("ME", "{{.Service.Name}}-{{ .Task.Slot }}@{{.Node.Hostname}}"),),
            hostname="web{{.Task.Slot}}",
            mounts=(Mount("/data", "volume", "default/shop/data-{{.Task.Slot}}"),),
        )
    )
    assert "ME=web-1@n1" in launch.env
    assert launch.hostname == "web1"
    assert launch.mounts == (Bind("/disk/volumes/default/shop/data-1", "/data"),)


def test_templates_stay_text_in_a_command() -> None:
    assert launched(Container(command=("sh", "-c", "echo {{.Node.Hostname}}"))).argv[-1] == "echo {{.Node.Hostname}}"


@pytest.mark.parametrize("text", ["{{.Task.ID}}", "{{}}", "{{.Node.Hostname | upper}}"])
def test_an_unknown_template_is_named(text: str) -> None:
    with pytest.raises(InvalidTask, match="env A: unknown template"):
        launched(Container(env=(EnvVar("A", text),)))


def test_mounts_go_from_the_root_down() -> None:
    file = DataFile("/data/conf/app.ini", "config/default/app/app.ini/00", secret=False)
    mounts = (Mount("/data/conf", "tmpfs", read_only=True, size=4096), Mount("/data", "volume", "default/shop/data", read_only=True))
    launch = launched(Container(mounts=mounts, files=(file,)), materials=Materials(files={file: "/files/1"}))
    assert launch.mounts == (
        Bind("/disk/volumes/default/shop/data", "/data", read_only=True),
        Tmpfs("/data/conf", 4096, read_only=True),
        Bind("/files/1", "/data/conf/app.ini", read_only=True),
    )


@pytest.mark.parametrize(
    "source", ["default/shop", "default/shop/../x", "/default/shop/x", "a/b/c/d/e", "a/b/.hidden", "a/b/c@d", "a//b", "a/b/c\0"]
)
def test_a_volume_key_that_could_be_another_path_is_refused(source: str) -> None:
    with pytest.raises(InvalidTask):
        launched(Container(mounts=(Mount("/data", "volume", source),)))


def test_a_slots_volume_does_not_lie_inside_another_volume() -> None:
    assert not PATHS.volume("a/b/c/1").startswith(PATHS.volume("a/b/c") + "/")


def test_working_directory_user_and_command_fall_back_to_the_image() -> None:
    launch = launched(Container(), ImageConfig(working_dir="/srv", user="app:app"))
    assert (launch.cwd, launch.user) == ("/srv", "app:app")
    launch = launched(Container(working_dir="/mine", user="0"), ImageConfig(working_dir="/srv", user="app:app"))
    assert (launch.cwd, launch.user) == ("/mine", "0")


def test_a_task_of_an_image_that_says_nothing_is_told_to_say_what_to_run() -> None:
    image = Image(IMAGE, "linux/amd64", ImageConfig(), ("/layers/1/fs",), 1)
    with pytest.raises(InvalidTask, match="set command"):
        launch_of(task(container=Container()), image, Materials(), paths=PATHS, node_name="n1")
