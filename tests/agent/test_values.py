from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from moorage_agent.errors import AgentError, InvalidTask
from moorage_agent.paths import Paths
from moorage_agent.systemd import unit_text
from moorage_agent.values import ValueStore, filesystem_at, is_secret

SECRET, CONFIG = "secret/default/db/password/0123456789abcdef", "config/default/app/app.ini/0123456789abcdef"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(f"{tmp_path}/disk", f"{tmp_path}/run")
    made.make()
    ValueStore(made).make()
    return made


def test_secrets_and_credentials_go_to_memory_and_the_rest_to_disk(paths: Paths) -> None:
    store = ValueStore(paths)
    for key in (SECRET, "pull/default/registry", CONFIG, "ca/default/bundle/ca.pem"):
        store.put(key, key.encode())
    assert contents(paths.root) == {CONFIG.encode(), b"ca/default/bundle/ca.pem"}
    assert contents(paths.run) == {SECRET.encode(), b"pull/default/registry"}


def test_values_outlive_the_daemon(paths: Paths) -> None:
    ValueStore(paths).put(SECRET, b"hunter2")
    store = ValueStore(paths)
    assert store.missing([SECRET, CONFIG]) == (CONFIG,)
    assert store.get(SECRET) == b"hunter2"


def test_a_value_that_is_not_here_is_named_and_asked_for_again(paths: Paths) -> None:
    store = ValueStore(paths)
    store.put(CONFIG, b"x")
    next(Path(paths.configs, "values").iterdir()).unlink()
    with pytest.raises(AgentError, match="config/default/app"):
        store.get(CONFIG)
    assert store.missing([CONFIG]) == (CONFIG,)


@pytest.mark.parametrize("key", ["", "secrets/a/b", "../secret/x", "SECRET/a"])
def test_a_key_of_no_known_kind_is_refused(key: str) -> None:
    with pytest.raises(InvalidTask):
        is_secret(key)


def test_a_changed_value_is_a_new_file_and_the_old_one_stays_as_it_was(paths: Paths) -> None:
    store = ValueStore(paths)
    store.put(CONFIG, b"old")
    old = store.file(CONFIG, uid=os.getuid(), gid=os.getgid(), mode=0o440)
    store.put(CONFIG, b"new")
    new = store.file(CONFIG, uid=os.getuid(), gid=os.getgid(), mode=0o440)
    assert (Path(old).read_bytes(), Path(new).read_bytes()) == (b"old", b"new")
    assert os.stat(new).st_mode & 0o7777 == 0o440
    assert store.file(CONFIG, uid=os.getuid(), gid=os.getgid(), mode=0o440) == new


def test_a_value_has_its_name_once_it_is_on_the_platter(paths: Paths) -> None:
    store = ValueStore(paths)
    for data in (b"old", b"new"):
        store.put(CONFIG, data)
        assert store.get(CONFIG) == data
    assert ValueStore(paths).missing([CONFIG]) == (CONFIG,)
    store.sync()
    assert not store.unsynced
    assert (store.get(CONFIG), ValueStore(paths).get(CONFIG)) == (b"new", b"new")


def test_a_value_that_comes_again_is_not_written_again(paths: Paths) -> None:
    store = ValueStore(paths)
    store.put(CONFIG, b"same")
    store.sync()
    store.put(CONFIG, b"same")
    assert not store.unsynced


def test_what_nobody_refers_to_is_swept_once_it_is_old(paths: Paths) -> None:
    store = ValueStore(paths)
    store.put(SECRET, b"kept")
    store.put(CONFIG, b"gone")
    store.file(CONFIG, uid=os.getuid(), gid=os.getgid(), mode=0o400)
    assert store.sweep([SECRET], (), older_than_s=60) == []
    for path in Path(paths.root).rglob("*"):
        os.utime(path, (time.time() - 100, time.time() - 100))
    assert len(store.sweep([SECRET], (), older_than_s=60)) == 2
    assert store.missing([SECRET, CONFIG]) == (CONFIG,)


def test_a_dropped_value_is_missing(paths: Paths) -> None:
    store = ValueStore(paths)
    store.put("pull/default/registry", b"{}")
    store.drop("pull/default/registry")
    assert not store.has("pull/default/registry")
    assert contents(paths.run) == set()


def test_the_topmost_mount_of_a_path_decides() -> None:
    mountinfo = "1 2 0:3 / /run rw shared:1 - tmpfs tmpfs rw\n4 1 8:1 / /run/moorage/secrets rw - ext4 /dev/sda rw\n"
    assert filesystem_at(mountinfo, "/run/moorage/secrets") == "ext4"
    assert filesystem_at(mountinfo + "5 4 0:9 / /run/moorage/secrets rw - tmpfs s rw\n", "/run/moorage/secrets") == "tmpfs"
    assert filesystem_at(mountinfo, "/run/moorage") is None


def test_the_unit_starts_the_agent_as_dial_does_and_is_not_restarted_when_it_retires() -> None:
    unit = unit_text("/usr/bin/python3", "/var/lib/moorage/agent/abc", log="/var/lib/moorage/state/agent.log")
    assert "ExecStart=/usr/bin/python3 -I -S -E /var/lib/moorage/agent/abc serve\n" in unit
    assert "Type=notify\n" in unit
    assert "Restart=on-failure\n" in unit


def contents(directory: str) -> set[bytes]:
    return {path.read_bytes() for path in Path(directory).rglob("*") if path.is_file()}
