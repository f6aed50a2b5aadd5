"""The kernel's edge: every ctypes call of the agent. Names and constants are the kernel's; a failed call raises OSError with its errno.

Calls go through PyDLL, which keeps the interpreter lock: between clone and exec nothing may switch threads. Numbers are from the kernel's
arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h; from 424 on all architectures share them.
Pointers must stay alive during the call, or for good where the kernel reads them later: none of the calls here needs that.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of `signal`, whose Python half brings enum along
import ctypes
import fcntl
import os
from ctypes import addressof, c_char_p, c_int, c_long, c_uint32, c_uint64, c_ulong, c_void_p
from struct import pack

MACHINE = os.uname().machine
_X86 = MACHINE == "x86_64"

# <linux/mount.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE = 0x1000, 0x4000, 1 << 18, 1 << 19
MNT_DETACH = 2
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE, AT_SYMLINK_NOFOLLOW = -100, 0x1000, 0x8000, 0x100
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 0x4, 0x40
FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC = 1, 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_SET_FD, FSCONFIG_CMD_CREATE = 0, 1, 5, 6
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_STRICTATIME = 1, 2, 4, 8, 0x20
# <linux/sched.h>
CLONE_PIDFD, CLONE_PARENT, CLONE_NEWNS, CLONE_INTO_CGROUP = 0x1000, 0x8000, 0x20000, 0x200000000
CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x2000000,
    0x4000000,
    0x8000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
SIGCHLD = 17
# <linux/openat2.h>
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x2, 0x4, 0x8, 0x10
OPENAT2_TRIES = 128
# <linux/prctl.h>
PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 4, 8, 24, 36, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
CLOSE_RANGE_CLOEXEC = 4
KEYCTL_JOIN_SESSION_KEYRING = 1
SECCOMP_SET_MODE_FILTER = 1
LINUX_CAPABILITY_VERSION_3 = 0x20080522
# <linux/bpf.h>
BPF_PROG_LOAD, BPF_PROG_ATTACH, BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI = 5, 8, 15, 6, 2

_libc = ctypes.PyDLL(None, use_errno=True)


class _SystemCall:
    """One system call: its number and the C types of its arguments, set once."""

    __slots__ = ("function", "name", "number")

    def __init__(self, name: str, x86_64: int, generic: int, *types: type) -> None:
        self.name = name
        self.number = x86_64 if _X86 else generic
        self.function = _libc["syscall"]
        self.function.restype = c_long
        self.function.argtypes = (c_long, *types)

    def __call__(self, *arguments: object, about: bytes | str | None = None) -> int:
        result: int = self.function(self.number, *arguments)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{self.name}: {os.strerror(code)}", about)
        return result


# Integers are passed as long: a system call reads whole registers.
_rt_sigaction = _SystemCall("rt_sigaction", 13, 134, c_long, c_void_p, c_void_p, c_long)
_mount = _SystemCall("mount", 165, 40, c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = _SystemCall("umount2", 166, 39, c_char_p, c_long)
_pivot_root = _SystemCall("pivot_root", 155, 41, c_char_p, c_char_p)
_clone3 = _SystemCall("clone3", 435, 435, c_void_p, c_long)
_unshare = _SystemCall("unshare", 272, 97, c_long)
_setns = _SystemCall("setns", 308, 268, c_long, c_long)
_capset = _SystemCall("capset", 126, 91, c_char_p, c_char_p)
_prctl = _SystemCall("prctl", 157, 167, c_long, c_ulong, c_ulong, c_ulong, c_ulong)
_seccomp = _SystemCall("seccomp", 317, 277, c_long, c_long, c_void_p)
_bpf = _SystemCall("bpf", 321, 280, c_long, c_void_p, c_long)
_keyctl = _SystemCall("keyctl", 250, 219, c_long, c_char_p)
_prlimit64 = _SystemCall("prlimit64", 302, 261, c_long, c_long, c_char_p, c_void_p)
_close_range = _SystemCall("close_range", 436, 436, c_long, c_long, c_long)
_openat2 = _SystemCall("openat2", 437, 437, c_long, c_char_p, c_void_p, c_long)
_open_tree = _SystemCall("open_tree", 428, 428, c_long, c_char_p, c_long)
_move_mount = _SystemCall("move_mount", 429, 429, c_long, c_char_p, c_long, c_char_p, c_long)
_fsopen = _SystemCall("fsopen", 430, 430, c_char_p, c_long)
_fsconfig = _SystemCall("fsconfig", 431, 431, c_long, c_long, c_char_p, c_char_p, c_long)
_fsmount = _SystemCall("fsmount", 432, 432, c_long, c_long, c_long)
_mount_setattr = _SystemCall("mount_setattr", 442, 442, c_long, c_char_p, c_long, c_char_p, c_long)


def _bytes(text: bytes | str | None) -> bytes | None:
    return os.fsencode(text) if isinstance(text, str) else text


# --- mounts


def mount(
    source: bytes | str | None, target: bytes | str, fstype: bytes | str | None, flags: int = 0, data: bytes | str | None = None
) -> None:
    _mount(_bytes(source), _bytes(target), _bytes(fstype), flags, _bytes(data), about=target)


def umount2(target: bytes | str, flags: int = 0) -> None:
    _umount2(_bytes(target), flags, about=target)


def pivot_root(new: bytes, put_old: bytes) -> None:
    """Both paths are relative to the working directory; "." for both swaps in place."""
    _pivot_root(new, put_old)


def open_tree(dir_fd: int, path: bytes | str, flags: int = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC) -> int:
    """A descriptor of the mount at `path`; with OPEN_TREE_CLONE of a detached copy, usable in another mount namespace."""
    return _open_tree(dir_fd, _bytes(path), flags, about=path)


def move_mount(mount_fd: int, target_fd: int, *, about: bytes = b"") -> None:
    """Attach the detached mount `mount_fd` on the file or directory `target_fd`."""
    _move_mount(mount_fd, b"", target_fd, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH, about=about)


def mount_setattr(dir_fd: int, path: bytes, flags: int, *, attr_set: int, propagation: int) -> None:
    """struct mount_attr is {attr_set, attr_clr, propagation, userns_fd}, all u64. Linux 5.12."""
    _mount_setattr(dir_fd, path, flags, pack("=QQQQ", attr_set, 0, propagation, 0), 32, about=path)


def fsopen(fstype: bytes) -> int:
    return _fsopen(fstype, FSOPEN_CLOEXEC, about=fstype)


def fsconfig(fs_fd: int, command: int, key: bytes | None = None, value: bytes | None = None, aux: int = 0) -> None:
    _fsconfig(fs_fd, command, key, value, aux, about=key)


def fsmount(fs_fd: int, attributes: int) -> int:
    return _fsmount(fs_fd, FSMOUNT_CLOEXEC, attributes)


def openat2(dir_fd: int, path: bytes, flags: int, resolve: int, *, mode: int = 0) -> int:
    """struct open_how is {flags, mode, resolve}, all u64. Linux 5.6.

    A scoped look-up that meets ".." while anything on the machine is renamed or mounted is answered by EAGAIN, to be tried again:
    openat2(2).
    """
    how = (c_uint64 * 3)(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(OPENAT2_TRIES - 1):
        try:
            return _openat2(dir_fd, path, addressof(how), 24, about=path)
        except BlockingIOError:
            continue
    return _openat2(dir_fd, path, addressof(how), 24, about=path)


# --- processes and namespaces

_clone_args = (c_uint64 * 11)()  # {flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup}
_pidfd = c_int(-1)


def clone3(flags: int, *, cgroup_fd: int = -1) -> tuple[int, int]:
    """(pid, pidfd) in the parent, (0, -1) in the child. Like fork without Python's hooks: for processes that never had a second thread."""
    for index in range(11):
        _clone_args[index] = 0
    _clone_args[0] = flags | CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup_fd >= 0 else 0)
    _clone_args[1] = addressof(_pidfd)
    _clone_args[4] = 0 if flags & CLONE_PARENT else SIGCHLD  # a child given to our parent signals as we do
    _clone_args[10] = max(cgroup_fd, 0)
    pid = _clone3(addressof(_clone_args), 88)
    return (pid, _pidfd.value) if pid else (0, -1)


def unshare(flags: int) -> None:
    _unshare(flags)


def setns(fd: int, flags: int) -> None:
    """With a pidfd (5.8) `flags` may name several namespaces, joined together."""
    _setns(fd, flags)


def prctl(option: int, arg2: int = 0, arg3: int = 0) -> None:
    _prctl(option, arg2, arg3, 0, 0)


def set_process_name(name: bytes) -> None:
    """At most 15 bytes. Through /proc: making a buffer for prctl would cost a supervisor 200 KiB of touched pages."""
    fd = os.open(b"/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, name)
    os.close(fd)


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Masks of capability numbers; two u32 triples, low words first."""
    low, high = 0xFFFFFFFF, 32
    header = pack("=Ii", LINUX_CAPABILITY_VERSION_3, 0)
    _capset(
        header,
        pack(
            "=6I",
            effective & low,
            permitted & low,
            inheritable & low,
            effective >> high,
            permitted >> high,
            inheritable >> high,
        ),
    )


def seccomp(program: bytes) -> None:
    """Load a classic BPF program of 8-byte instructions. struct sock_fprog is {u16 len, pointer}."""
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = (c_uint64 * 2)(len(program) // 8, addressof(buffer))
    _seccomp(SECCOMP_SET_MODE_FILTER, 0, addressof(fprog))


def bounding_set() -> int:
    """The capabilities this process may still have or give."""
    with open("/proc/self/status", "rb") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith(b"CapBnd:"))


def keyctl_join_session_keyring() -> None:
    """A new, anonymous session keyring, so that the caller's is not reachable from here on."""
    _keyctl(KEYCTL_JOIN_SESSION_KEYRING, None)


def prlimit(pid: int, resource: int, soft: int, hard: int) -> None:
    """RLIM_INFINITY is -1."""
    _prlimit64(pid, resource, pack("=QQ", soft & 0xFFFFFFFFFFFFFFFF, hard & 0xFFFFFFFFFFFFFFFF), None)


def getrlimit(resource: int) -> tuple[int, int]:
    old = (c_uint64 * 2)()
    _prlimit64(0, resource, None, addressof(old))
    return old[0], old[1]


def close_range(first: int, last: int, flags: int = 0) -> None:
    """Linux 5.9; CLOSE_RANGE_CLOEXEC 5.11."""
    if first <= last:
        _close_range(first, last, flags)


# --- signals

SIG_DFL, SIG_IGN = 0, 1


def stop_ignoring(signum: int) -> None:
    """SIG_DFL where it is ignored. Asks the kernel itself: the C library keeps signals 32 and 33 from its callers."""
    old, default = (c_ulong * 4)(), (c_ulong * 4)()
    _rt_sigaction(signum, None, addressof(old), 8)
    if old[0] == SIG_IGN:
        _rt_sigaction(signum, addressof(default), None, 8)


def set_signal(signum: int, action: int) -> None:
    """SIG_DFL or SIG_IGN."""
    _signal.signal(signum, action)


def wake_on_child(fd: int) -> None:
    """Write a byte to the non-blocking `fd` whenever a child ends; -1: stop that."""
    _signal.signal(SIGCHLD, _do_nothing if fd >= 0 else _signal.SIG_DFL)
    _signal.set_wakeup_fd(fd)


def _do_nothing(_signum: int, _frame: object) -> None:
    """A handler is what makes the byte be written."""


def block_signals(signums: frozenset[int]) -> None:
    """Block these, and no others."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, signums)


def sigwait(signums: frozenset[int]) -> int:
    return int(_signal.sigwait(signums))


def pidfd_kill(pidfd: int) -> None:
    """SIGKILL; a process that is gone is fine."""
    try:
        _signal.pidfd_send_signal(pidfd, 9)
    except ProcessLookupError:
        pass


def seal(memfd: int) -> None:
    """F_ADD_SEALS with SEAL, SHRINK, GROW and WRITE: it stays what it is."""
    fcntl.fcntl(memfd, 1033, 0x1 | 0x2 | 0x4 | 0x8)


# --- device programs of cgroup v2


def bpf_load_device_program(program: bytes) -> int:
    """A descriptor of the loaded program. Older kernels than 5.11 account it against RLIMIT_MEMLOCK."""
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache")
    attributes = pack(
        "=IIQQIIQII16s", BPF_PROG_TYPE_CGROUP_DEVICE, len(program) // 8, addressof(code), addressof(licence), 0, 0, 0, 0, 0, b"moorage"
    )
    buffer = ctypes.create_string_buffer(attributes, 72)
    return _bpf(BPF_PROG_LOAD, addressof(buffer), 72)


def bpf_attach_device_program(cgroup_fd: int, program_fd: int) -> None:
    """Lives as long as the cgroup; all programs from here up to the root must allow an access."""
    buffer = (c_uint32 * 8)(cgroup_fd, program_fd, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI)
    _bpf(BPF_PROG_ATTACH, addressof(buffer), 32)
