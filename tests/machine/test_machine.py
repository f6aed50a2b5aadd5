"""What the bench keeps between runs is whole, what it starts does not outlive it, and what a killed run left is swept up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.fleet.cgroups import hierarchies
from tests.machine import Server, cache_dir, once
from tests.machine.scratch import scratch_folder
from tests.machine.waiting import eventually

CHECKOUT = Path(__file__).parents[2]


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.delenv("MOORAGE_CACHE", raising=False)
    assert cache_dir() == Path("/somewhere/moorage")
    monkeypatch.setenv("MOORAGE_CACHE", "/elsewhere")
    assert cache_dir() == Path("/elsewhere")


def test_what_is_made_once_is_made_by_one_of_many(tmp_path: Path) -> None:
    made: list[int] = []

    def make(target: Path) -> None:
        made.append(1)
        time.sleep(0.05)
        (target / "file").write_text("whole")

    threads = [threading.Thread(target=once, args=(tmp_path / "thing", make)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert (tmp_path / "thing/file").read_text() == "whole"


def test_what_could_not_be_made_is_not_there_and_is_made_the_next_time(tmp_path: Path) -> None:
    def fail(target: Path) -> None:
        (target / "half").touch()
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        once(tmp_path / "thing", fail)
    assert not (tmp_path / "thing").exists()
    once(tmp_path / "thing", lambda target: (target / "file").touch())
    assert [path.name for path in (tmp_path / "thing").iterdir()] == ["file"]


def test_a_server_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    server = Server(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"], log=tmp_path / "log")
    eventually("it is up", lambda: "up" in server.log())
    assert server.stop(grace_s=0.1) == -9
    assert not server.running


def test_a_paused_server_can_be_stopped(tmp_path: Path) -> None:
    server = Server(["sleep", "100"], log=tmp_path / "log")
    server.pause()
    server.stop()
    assert not server.running


def test_a_server_started_by_a_thread_outlives_the_thread_but_not_the_process(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, threading, pathlib\n"
        "from tests.machine import Server\n"
        "servers = []\n"
        "start = lambda: servers.append(Server(['sleep', '100'], log=pathlib.Path(sys.argv[1])))\n"
        "thread = threading.Thread(target=start); thread.start(); thread.join()\n"
        "print(servers[0].running, servers[0].pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "log")]
    running, pid = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, timeout=60).stdout.split()
    assert running == "True"
    eventually("it ended with the process", lambda: not Path(f"/proc/{pid}").exists())


def test_folders_of_dead_processes_are_swept_up_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    stale, living = tmp_path / f"moorage-probe-{ended.pid}-x", tmp_path / f"moorage-probe-{os.getppid()}-x"
    other = tmp_path / f"moorage-other-{ended.pid}-x"
    for folder in (stale, living, other):
        folder.mkdir()
    new = scratch_folder("probe", parent=tmp_path)
    assert set(tmp_path.iterdir()) == {living, other, new}


def test_hierarchies_are_read_whatever_the_machine_has() -> None:
    hybrid = (
        "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
        "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n"
    )
    assert [(str(found.mountpoint), found.options) for found in hierarchies(hybrid)] == [
        ("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct"),
        ("/sys/fs/cgroup/systemd", "name=systemd"),
    ]
    unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
    assert [(found.kind, found.options) for found in hierarchies(unified)] == [("cgroup2", "")]
