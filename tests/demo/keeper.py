"""Runs the demo in a process that everything it starts dies with, so that nothing can be left behind.

With KEEP=1 that process stays when the demo is over; its id is in a file, and `clean` ends it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.machine import cache_dir

Play = Callable[[Callable[[], None] | None], None]


def run(play: Play, *, keep: bool) -> int:
    """The demo's exit code. A demo that is still running is ended first."""
    clean(quiet=True)
    fresh = not cache_dir().exists()
    cache_dir().mkdir(parents=True, exist_ok=True)
    if fresh:
        _mark().touch()
    ended, started = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ended)
        os._exit(_keeper(play, started, keep=keep))
    os.close(started)
    return _watch(child, ended)


def clean(*, quiet: bool = False) -> int:
    """End a demo that was kept, and remove the cache if a demo made it."""
    pid = _running()
    if pid:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 60
        while _running() and time.monotonic() < deadline:
            time.sleep(0.1)
        if _running():
            os.kill(pid, signal.SIGKILL)
    _pid_file().unlink(missing_ok=True)
    if quiet:
        return 0
    if _mark().exists():
        shutil.rmtree(cache_dir())
        print(f"the demo is gone, and so is what it built in {cache_dir()}")
    else:
        print(f"the demo is gone; {cache_dir()} was there before it and stays")
    return 0


def _keeper(play: Play, started: int, *, keep: bool) -> int:
    """In the child: play, then wait to be ended if the swarm is to be kept."""
    os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _pid_file().write_text(f"{os.getpid()} {_start_time(os.getpid())}")

    def stay() -> None:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):  # whoever reads what the demo says need not wait for what it leaves running
            os.dup2(nowhere, stream)
        os.write(started, b"0")
        os.close(started)
        while True:
            signal.pause()

    try:
        play(stay if keep else None)
    except SystemExit as end:
        return int(end.code or 0)
    except (AssertionError, TimeoutError) as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        _pid_file().unlink(missing_ok=True)
    return 0


def _watch(child: int, ended: int) -> int:
    """In the parent: until the demo is over, or only its swarm is left. Ctrl-C goes to the demo."""
    signal.signal(signal.SIGINT, lambda *_: os.kill(child, signal.SIGTERM))
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    if os.read(ended, 1) == b"0":
        return 0
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _running() -> int:
    """The keeper's process id; 0 when there is none, or another process has the number by now."""
    try:
        pid, started = _pid_file().read_text().split()
    except (OSError, ValueError):
        return 0
    return int(pid) if _start_time(int(pid)) == started else 0


def _start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat, proc(5): with the pid it names a process for good."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _pid_file() -> Path:
    return cache_dir() / "demo.pid"


def _mark() -> Path:
    return cache_dir() / "made-by-the-demo"
