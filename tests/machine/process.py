"""A server process of the bench: its output in a log file, ended by its process id, never outliving the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.machine.waiting import eventually

# The kernel sends the parent-death signal when the *thread* that started a child ends. A pool thread of asyncio ends with its loop,
# so every child is started by this one thread, which lives as long as the process.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bench-spawner")
# The parent may be gone before the child asked for the signal: then the child has another parent already, and does not begin.
_BOUND = ["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", 'test "$PPID" = "$0" && exec "$@"']


class Server:
    """`argv` running with output appended to `log`. `pass_fds` stay open in it; `stdin` is a pipe (`self.stdin`) when asked for."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        stdin: bool = False,
    ) -> None:
        self.argv = [str(part) for part in argv]
        self.log_file = log
        self._env = env
        self._pass_fds = tuple(pass_fds)
        self._stdin = stdin
        self._process = _SPAWNER.submit(self._spawn).result()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with open(self.log_file, "ab") as log:
            return subprocess.Popen(
                [*_BOUND, str(os.getpid()), *self.argv],
                stdin=subprocess.PIPE if self._stdin else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                pass_fds=self._pass_fds,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def write(self, line: str) -> None:
        """One line to its standard input (only with `stdin`)."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def signal(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def pause(self) -> None:
        """Returns once it stands still: a thread that runs takes a moment to notice."""
        self.signal(signal.SIGSTOP)
        eventually(
            "each of its threads has stopped", lambda: all(state_of(thread) in "TZX" for thread in Path(f"/proc/{self.pid}/task").iterdir())
        )

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self, *, grace_s: float = 10.0) -> int:
        """Ask it to end, insist after `grace_s`; returns its exit code."""
        self.signal(signal.SIGTERM)
        self.resume()
        try:
            return self._ended(grace_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        self._process.kill()
        return self._ended(30)

    def wait(self, timeout_s: float) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        return self._ended(timeout_s)

    def _ended(self, timeout_s: float) -> int:
        if self._process.stdin is not None:
            self._process.stdin.close()
        return self._process.wait(timeout_s)


def state_of(thread: Path) -> str:
    """One letter, as in proc(5); X for one that has ended."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"
