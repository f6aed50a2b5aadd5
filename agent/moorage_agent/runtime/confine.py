"""The last steps before a program runs, the same for a container's first process and for exec: who it is and what it may do, then execve.

The order is the meaning: descriptors are gone before the working directory is entered, capabilities leave the bounding set while we may
still take them away, the filter comes last because it would forbid the rest.
"""

from __future__ import annotations

import errno
import os
import sys

from moorage_agent.runtime import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from moorage_agent.runtime.request import Confinement

SIGPIPE, SIGXFSZ = 13, 25
_FORBIDDEN = frozenset(("import", "ctypes.dlopen", "compile", "exec"))


def lock_down() -> None:
    """No code is loaded from here on: what the import path, a codec or the C library would find next may be the container's."""
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []
    sys.path_importer_cache.clear()
    sys.addaudithook(_refuse)


def _refuse(event: str, _arguments: object) -> None:
    if event in _FORBIDDEN:
        os._exit(125)


class Steps:
    """Where we are, for the report of a failure: the kernel's errno says what went wrong, this says with what."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = "begin"


def last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        return int(file.read())


def close_all_but(*kept: int) -> None:
    """Close every descriptor above 2 that is not in `kept`."""
    first = 3
    for fd in sorted(kept):
        _close_range(first, fd - 1)
        first = fd + 1
    _close_range(first, 0x7FFFFFFF)


def _close_range(first: int, last: int) -> None:
    try:
        linux.close_range(first, last)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        os.closerange(first, min(last + 1, 1 << 20))


def set_oom_score(proc: int, confinement: Confinement, steps: Steps) -> None:
    """Instead of the zygote's own, which all it forks begin with: written through `proc`, as the label is."""
    steps.at = "OOM score"
    fd = os.open(b"self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
    os.write(fd, b"%d" % confinement["oom_score_adj"])
    os.close(fd)


def label(proc: int, confinement: Confinement, steps: Steps) -> None:
    """The AppArmor profile of the next execve, written through `proc`, a procfs known to be one (CVE-2025-52881).

    An LSM's own file first (5.8), else the one shared by all.
    """
    if not confinement["app_armor"]:
        return
    steps.at = "AppArmor profile"
    try:
        fd = os.open(b"thread-self/attr/apparmor/exec", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
    except FileNotFoundError:
        fd = os.open(b"thread-self/attr/exec", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
    os.write(fd, b"exec " + confinement["app_armor"])
    os.close(fd)


def apply(confinement: Confinement, identity: tuple[int, int, list[int]], last_cap: int, steps: Steps, error_fd: int) -> None:
    """Become what `confinement` says, all but the seccomp filter where no_new_privs lets that wait until the end."""
    uid, gid, groups = identity
    steps.at = "resource limits"
    os.umask(0o22)
    for resource, soft, hard in confinement["rlimits"]:
        linux.prlimit(0, resource, soft, hard)
    steps.at = "descriptors"
    close_all_but(error_fd)
    steps.at = "working directory"
    entered = _enter(confinement["cwd"])
    if not confinement["no_new_privs"]:
        steps.at = "seccomp"
        _load(confinement)
    steps.at = "identity"
    mask = confinement["capabilities"]
    for number in range(last_cap + 1):
        if not mask >> number & 1:
            linux.prctl(linux.PR_CAPBSET_DROP, number)
    if uid:
        linux.prctl(linux.PR_SET_KEEPCAPS, 1)
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if not entered:
        steps.at = "working directory"
        os.chdir(confinement["cwd"])
    steps.at = "working directory"
    if not os.getcwdb().startswith(b"/"):
        raise OSError(errno.ENOENT, "the working directory is outside of the container", confinement["cwd"])
    steps.at = "capabilities"
    if uid:
        linux.prctl(linux.PR_SET_KEEPCAPS, 0)
    kept = 0 if uid else mask  # as with Docker: another user than root gets the bounding set, and nothing in hand
    linux.capset(kept, kept, 0)
    linux.prctl(linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_CLEAR_ALL)
    if confinement["no_new_privs"]:
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)


def _enter(cwd: bytes) -> bool:
    """False when only the container's user may enter: tried again as that user."""
    try:
        os.chdir(cwd)
    except PermissionError:
        return False
    return True


def late_filter(confinement: Confinement) -> None:
    """With no_new_privs the filter needs no privilege, so it is the very last: nothing we still do is left in what it allows."""
    if confinement["no_new_privs"]:
        _load(confinement)


def _load(confinement: Confinement) -> None:
    if confinement["seccomp"]:
        linux.seccomp(confinement["seccomp"])


def default_signals() -> None:
    """CPython ignores SIGPIPE and SIGXFSZ, and what is ignored stays so across execve: `yes | head` would never end."""
    for signum in (SIGPIPE, SIGXFSZ):
        linux.set_signal(signum, linux.SIG_DFL)
    linux.block_signals(frozenset())


def run(argv: list[bytes], environment: dict[bytes, bytes], confinement: Confinement, steps: Steps) -> NoReturn:
    """Replace this process. Raises what execve said of the last place it made sense to try."""
    steps.at = "seccomp"
    late_filter(confinement)
    steps.at = "exec"
    os.environ.clear()
    failure: OSError = FileNotFoundError(errno.ENOENT, "not found in PATH", argv[0])
    for path in _candidates(argv[0], environment.get(b"PATH", b"")):
        try:
            os.execve(path, argv, environment)
        except (FileNotFoundError, NotADirectoryError) as error:
            failure = failure if isinstance(failure, PermissionError) or b"/" not in argv[0] else error
        except PermissionError as error:
            failure = error
    raise failure


def _candidates(name: bytes, path: bytes) -> list[bytes]:
    return [name] if b"/" in name else [b"%b/%b" % (directory or b".", name) for directory in path.split(b":")]


def environment(env: list[bytes], home: bytes) -> dict[bytes, bytes]:
    """The variables as execve wants them; of two with one name the later counts. HOME is the user's unless set."""
    found = {b"HOME": home}
    for variable in env:
        name, _, value = variable.partition(b"=")
        found[name] = value
    return found


def describe(error: BaseException, steps: Steps) -> bytes:
    """A failure as it travels to the shim: errno, step, words."""
    number = getattr(error, "errno", None) or 0
    path = getattr(error, "filename", None)
    about = f" ({os.fsdecode(path)})" if isinstance(path, (bytes, str)) and path else ""
    words = f"{getattr(error, 'strerror', None) or error or type(error).__name__}{about}"
    return f"{number}\0{steps.at}\0{words}".encode(errors="replace")[:4000]
