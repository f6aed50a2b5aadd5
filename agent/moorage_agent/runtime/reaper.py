"""`init: true`: the first process stays what it is, runs the program as its child, forwards signals to it and buries whatever dies.

It has the program's own user, capabilities and filter, and cannot be traced by it: it is not dumpable.
"""

from __future__ import annotations

import os

from moorage_agent.runtime import confine, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from moorage_agent.runtime.request import Confinement

_FORWARDED = frozenset(range(1, 65)) - {9, 19, 32, 33, linux.SIGCHLD}  # KILL and STOP cannot be caught; 32 and 33 are the C library's


class Program:
    """What to run. `own_session`: away from our process group; with a terminal it must stay, or lose it."""

    __slots__ = ("argv", "confinement", "environment", "own_session")

    def __init__(self, argv: list[bytes], environment: dict[bytes, bytes], confinement: Confinement, *, own_session: bool) -> None:
        self.argv, self.environment, self.confinement, self.own_session = argv, environment, confinement, own_session


def run(program: Program, steps: confine.Steps, error_fd: int) -> NoReturn:
    """Ends with the program's code, 128 + n for a signal: a first process cannot kill itself."""
    linux.prctl(linux.PR_SET_DUMPABLE, 0)  # becoming another user made it dumpable again
    linux.block_signals(_FORWARDED | {linux.SIGCHLD})
    pid = os.fork()  # not clone3: the filter, loaded by now where new privileges are allowed, answers that with ENOSYS
    if pid == 0:
        if program.own_session:
            os.setsid()
        confine.default_signals()
        confine.run(program.argv, program.environment, program.confinement, steps)
    os.close(error_fd)  # its copy alone now says when the program runs
    confine.close_all_but()
    confine.late_filter(program.confinement)
    while True:
        signum = linux.sigwait(_FORWARDED | {linux.SIGCHLD})
        if signum != linux.SIGCHLD:
            _forward(pid, signum)
            continue
        code = _bury(pid)
        if code is not None:
            os._exit(code)


def _forward(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except OSError:
        pass  # it is gone, and SIGCHLD is on its way; or it became another user


def _bury(program: int) -> int | None:
    """The program's code if it was among the dead."""
    code = None
    while True:
        try:
            dead, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if dead == 0:
            return code
        if dead == program:
            code = os.waitstatus_to_exitcode(status)
            code = 128 - code if code < 0 else code
