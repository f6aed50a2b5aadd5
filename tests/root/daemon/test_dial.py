from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from moorage_agent.protocol import Decoder

from tests.root.daemon.agent_host import AgentHost
from tests.root.daemon.test_interpreters import interpreters

pytestmark = pytest.mark.root


class Dial:
    """What SSH would run; `said` is the agent's hello."""

    def __init__(self, host: AgentHost, *, home: Path | None = None) -> None:
        command = host.verb("dial")
        command[4] = str(home or host.home)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 18)
        self.said = Decoder().feed(data)[0][0] if data else {}

    def hang_up(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(5)

    def __enter__(self) -> Dial:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def dialled(host: AgentHost) -> Iterator[AgentHost]:
    """A host whose daemons are started by dial alone; they are ended in the end by a daemon of the test's own taking over."""
    yield host
    pid = listener(host)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def listener(host: AgentHost) -> int | None:
    """The process that holds the daemon's lock."""
    if not os.path.exists(host.paths.agent_lock):
        return None
    inode = os.stat(host.paths.agent_lock).st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "FLOCK" in fields and fields[5].endswith(f":{inode}"):
            return int(fields[4])
    return None


def test_dial_starts_a_daemon_and_leaves_it_running(dialled: AgentHost) -> None:
    with Dial(dialled) as dial:
        assert dial.said["type"] == "hello"
        assert dial.said["agentVersion"] == dialled.home.name
        pid = listener(dialled)
        assert pid is not None
        assert os.getsid(pid) != os.getsid(0)
        assert dial.hang_up() == 0
    assert listener(dialled) == pid


def test_the_next_dial_reaches_the_same_daemon(dialled: AgentHost) -> None:
    with Dial(dialled) as first:
        pid = listener(dialled)
        begun = time.monotonic()
        with Dial(dialled) as second:
            assert time.monotonic() - begun < 3
            assert second.said["facts"]["hostId"] == first.said["facts"]["hostId"]
            assert listener(dialled) == pid


def test_several_dials_at_once_start_one_daemon(dialled: AgentHost) -> None:
    with ThreadPoolExecutor(4) as threads:
        dials = list(threads.map(Dial, [dialled] * 4))
    for dial in dials:
        assert dial.said["type"] == "hello"
        dial.close()
    assert dialled.daemon_log().count("serving") == 1


def test_a_dial_of_another_version_replaces_the_daemon_and_no_container(dialled: AgentHost) -> None:
    newer = dialled.home.parent / ("f" * 64)
    shutil.copytree(dialled.home, newer)
    with Dial(dialled) as first:
        operator = dialled.connect()
        task = dialled.task(operator, "sleep", "1000", grace_s=0.1)
        operator.push(task)
        operator.wait_state("Running", task)
        pid = operator.tasks[task.uid].pid
        with Dial(dialled, home=newer) as dial:
            assert dial.said["agentVersion"] == newer.name
            assert first.process.wait(5) == 0
            operator = dialled.connect()
            operator.wait_state("Running", task)
            assert (operator.tasks[task.uid].pid, operator.tasks[task.uid].restarts) == (pid, 0)
            assert os.readlink(f"{dialled.paths.root}/agent/current") == newer.name


def test_a_dial_of_another_version_lets_an_uninstall_come_to_its_end(dialled: AgentHost, tmp_path: Path) -> None:
    newer = tmp_path / ("f" * 64)
    shutil.copytree(dialled.home, newer)
    with Dial(dialled):
        operator = dialled.connect()
        task = dialled.task(operator, "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", grace_s=3.0)
        operator.push(task)
        operator.wait_state("Running", task)
        with subprocess.Popen(dialled.verb("uninstall", "--yes"), stderr=subprocess.DEVNULL) as uninstall:
            operator.wait("it stops", lambda: operator.tasks[task.uid].stopping)
            with Dial(dialled, home=newer) as dial:
                assert dial.process.wait(20) == 69
                assert dial.process.stderr is not None
                assert b"being uninstalled" in dial.process.stderr.read()
            assert uninstall.wait(30) == 0
    assert not os.path.exists(dialled.paths.root)
    shutil.copytree(newer, dialled.home)  # the host's own end takes a daemon


def test_a_daemon_that_hangs_is_replaced(dialled: AgentHost) -> None:
    with Dial(dialled):
        pid = listener(dialled)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with Dial(dialled) as second:
            assert second.said["type"] == "hello"
            assert listener(dialled) not in (None, pid)


GREETS_AND_HANGS = """
import fcntl, socket, struct, sys
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.write("another")
lock.flush()
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[2])
listening.listen()
print("listens", flush=True)
body, kept = b'{"type":"hello"}', []
while True:
    kept.append(listening.accept()[0])
    kept[-1].sendall(struct.pack(">II", len(body), 0) + body)
"""

DIAL = """
import sys
sys.path.insert(0, sys.argv[1])
from moorage_agent import dial
from moorage_agent.paths import Paths
dial.LEAVE_WITHIN_S = 0.5
sys.exit(dial.dial(Paths(*sys.argv[2:])))
"""


@pytest.mark.parametrize("version", interpreters())
def test_a_daemon_that_greets_and_then_hangs_is_replaced(dialled: AgentHost, version: str) -> None:
    python, paths = interpreters()[version], dialled.paths
    paths.make()
    hanging = [sys.executable, "-c", GREETS_AND_HANGS, paths.agent_lock, paths.agent_socket]
    dialling = [python, "-I", "-S", "-E", "-c", DIAL, str(dialled.home), paths.root, paths.run, paths.boot_id_file]
    with subprocess.Popen(hanging, stdout=subprocess.PIPE) as hung:
        assert hung.stdout is not None
        assert hung.stdout.readline() == b"listens\n"
        try:
            done = subprocess.run(dialling, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
            assert hung.poll() == -signal.SIGKILL, done.stderr
        finally:
            hung.kill()
    hello, _ = Decoder().feed(done.stdout)[0]
    assert hello["agentVersion"] == dialled.home.name


def test_a_daemon_that_cannot_start_is_explained(dialled: AgentHost) -> None:
    Path(dialled.paths.tasks).write_text("not a directory")
    dial = subprocess.run(dialled.verb("dial"), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    Path(dialled.paths.tasks).unlink()
    assert dial.returncode == 69
    assert "did not start" in dial.stderr
    assert dialled.paths.tasks in dial.stderr
